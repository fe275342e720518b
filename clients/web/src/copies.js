// Copies of small commands in datagrams, while the path loses packets, so that a retransmission is rarely waited for. A browser does not
// say what becomes of its own packets (Chromium has no `getStats`), but the server knows what becomes of its own, and sends copies of
// events while they get lost. Those are the sign: a path that loses one way mostly loses both. No I/O and no clock.

import { Writer } from "./codec/bytes.js";
import { withLength } from "./codec/index.js";

/** The longest frame that is copied. */
const COPY_MAX = 1_000;
/** When copies follow what went over the stream: so that they travel in other packets. */
const COPY_AFTER = [10, 30];
/** Copies that are due within this time of each other share a datagram. */
const TOGETHER = 5;
/** Commands that wait to be copied. Who has more to say at once waits for retransmissions. */
const WAITING_MAX = 32;
/** So long after the last sign the path counts as good again. */
const LOSSY_FOR = 60_000;

export class Copies {
  /** In the order in which they went over the stream. @type {{ cseq: bigint, frame: Uint8Array, sent: number, copied: number }[]} */
  #waiting = [];
  #lossyUntil = -Infinity;

  /** The server sent a copy. @param {number} now */
  onLossy(now) {
    this.#lossyUntil = now + LOSSY_FOR;
  }

  /**
   * A command went over the stream.
   * @param {bigint} cseq
   * @param {Uint8Array} frame
   * @param {number} now
   */
  push(cseq, frame, now) {
    if (now >= this.#lossyUntil || frame.length > COPY_MAX || this.#waiting.length >= WAITING_MAX) return;
    this.#waiting.push({ cseq, frame: withLength(frame), sent: now, copied: 0 });
  }

  /**
   * Copies are of no use, or not wanted, up to this command.
   * @param {bigint} cseq
   */
  drop(cseq) {
    this.#waiting = this.#waiting.filter((waiting) => waiting.cseq > cseq);
  }

  /** When `pollTransmit` has something. */
  get due() {
    return Math.min(...this.#waiting.map(due));
  }

  /**
   * What to send in a datagram now, if anything: at most so many bytes. Call it until there is nothing.
   * @param {number} now
   * @param {number} most
   */
  pollTransmit(now, most) {
    if (now < this.due) return undefined;
    const datagram = new Writer();
    for (const waiting of this.#waiting) {
      // It does not fit this path.
      if (waiting.frame.length > most) waiting.copied = COPY_AFTER.length;
      else if (due(waiting) <= now + TOGETHER && datagram.length + waiting.frame.length <= most) {
        datagram.put(waiting.frame);
        waiting.copied += 1;
      }
    }
    this.#waiting = this.#waiting.filter(({ copied }) => copied < COPY_AFTER.length);
    return datagram.length > 0 ? datagram.done() : undefined;
  }
}

/** @param {{ sent: number, copied: number }} waiting */
const due = ({ sent, copied }) => sent + COPY_AFTER[copied];
