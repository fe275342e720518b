// Whether the server lets a user in: a session begins as the device "doctor", and ends.

import { encodeClientFrame } from "../src/codec/index.js";
import { randomHex } from "../src/environment.js";
import { texts } from "./language.js";

const names = { webtransport: "WebTransport", websocket: "WebSocket" };

/**
 * @param {import("../src/link/link.js").Link} link
 * @param {{ user: string, token: string }} who
 * @param {number} patience in milliseconds
 * @returns {Promise<import("./steps.js").Finding>}
 */
export async function signIn(link, { user, token }, patience) {
  try {
    const answer = await firstFrame(link, hello(user, token), patience);
    if ("welcome" in answer) return { outcome: "works", seen: texts.sessionWorks(user, names[link.transport]) };
    if ("error" in answer) {
      const { code, message } = answer.error;
      const mend = code === "unauthorized" ? tokenMend(user, token) : texts.refusals[code] ?? texts.refusedOther;
      return { outcome: "fails", seen: texts.sessionRefused(message), mend };
    }
    throw new Error(Object.keys(answer).join());
  } catch (why) {
    return { outcome: "fails", seen: texts.sessionLost(why instanceof Error ? why.message : String(why)), mend: texts.sessionLostMend };
  }
}

/** @param {string} user @param {string} token */
const hello = (user, token) => encodeClientFrame({
  hello: {
    minVersion: 1, maxVersion: 1, user, device: "doctor", token, agent: "whimbrel-doctor/web", instance: randomHex(8), attempt: 1, incarnation: 0n,
    position: null, origin: "now", extensions: [],
  },
});

/** @param {import("../src/link/link.js").Link} link @param {Uint8Array} hello @param {number} patience
 * @returns {Promise<import("../src/codec/frames.js").ServerFrame>} */
function firstFrame(link, hello, patience) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(texts.noAnswer(patience / 1_000))), patience);
    const over = () => clearTimeout(timer);
    link.start(
      ([frame]) => {
        over();
        if (frame) resolve(frame);
      },
      () => {
        over();
        reject(new Error(texts.closed));
      },
      () => {},
    );
    link.send(hello);
  });
}

/** What may be wrong with a token, as far as it says so itself: it is read, not verified. @param {string} user @param {string} token */
function tokenMend(user, token) {
  if (token === "") return texts.tokenMissing;
  /** @type {any} */
  let claims;
  try {
    const text = atob((token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/"));
    claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (char) => char.charCodeAt(0))));
  } catch {
    return texts.tokenForm;
  }
  const now = Date.now() / 1_000;
  if (typeof claims?.sub === "string" && claims.sub !== user) return texts.tokenUser(claims.sub);
  if (claims?.exp <= now) return texts.tokenOver;
  return claims?.nbf > now ? texts.tokenEarly : texts.tokenStrange;
}
