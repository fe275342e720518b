// The questions of one session that are asked on streams of their own, so that a long answer delays no message.

import { encodeClientFrame } from "./codec/index.js";
import { CodecError } from "./errors.js";

/** @typedef {import("./codec/frames.js").Query} Query */

/** Streams at once; further questions go over the session's. Servers allow 16. */
const STREAMS_MAX = 8;

export class Asking {
  /**
   * @param {import("./link/link.js").Link} link
   * @param {(answer: import("./codec/frames.js").Answer) => void} onanswer
   * @param {(query: Query) => void} onend the stream of a question has ended, whether or not it was answered
   */
  constructor(link, onanswer, onend) {
    this.link = link;
    this.onanswer = onanswer;
    this.onend = onend;
    this.streams = 0;
  }

  /**
   * Asks, if there is a stream for it.
   * @param {Query} query
   * @returns {boolean} whether there is
   */
  ask(query) {
    const { link } = this;
    if (!link.ask || this.streams >= STREAMS_MAX) return false;
    this.streams += 1;
    const ended = () => {
      this.streams -= 1;
      this.onend(query);
    };
    link.ask(encodeClientFrame({ query }), (frames) => {
      for (const frame of frames) {
        if (!("answer" in frame) || frame.answer.id !== query.id) throw new CodecError("the server answered something else");
        this.onanswer(frame.answer);
      }
    }).then(ended, ended);
    return true;
  }
}
