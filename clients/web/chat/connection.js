// What the connection is, in one word; the transport in its tooltip; and, without one, when it is tried again, and where to look why.

import { el, say, set } from "./dom.js";
import { texts } from "./language.js";

/** @typedef {import("./state.js").State} State */
/** @typedef {import("../src/index.js").Client} Client */

/** Names as people write them; not translated. */
const transports = { webtransport: "WebTransport", websocket: "WebSocket", none: "" };

/** @param {State} state */
export function connectionWord(state) {
  const now = state.client.connection.state;
  if (now === "connected") return texts.connected;
  // An attempt every few seconds is no news: it stays "offline" until one works, and nobody hears of each.
  if (now === "connecting" && !state.away) return texts.connecting;
  if (now === "ended") return texts.ended;
  return state.waiting > 0 ? texts.disconnectedWaiting(state.waiting) : texts.disconnected;
}

/** Nothing where there is none: the word for the connection says it. @param {Client} client */
export function transportWords(client) {
  const name = transports[client.connection.transport];
  return name === "" ? "" : texts.overTransport(name);
}

/** Both in one line. @param {State} state */
export function connectionFactWords(state) {
  const over = state.client.connection.transport !== "none";
  return over ? texts.connectionFact(connectionWord(state), transportWords(state.client)) : connectionWord(state);
}

/** Why a session ended, for people. @param {{ code: string, message: string } | undefined} error */
export function endedWords(error) {
  if (error?.code === "replaced") return texts.endedReplaced;
  if (error?.code === "unauthorized") return texts.endedUnauthorized;
  return texts.endedOther(error?.message ?? "");
}

/** @param {State} state */
export function makeConnection(state) {
  const { client } = state;
  const word = el("span", { class: "word" });
  const transport = el("span", { class: "unseen" });
  const status = el("span", { role: "status" }, word, " ", transport);
  const element = el("div", { class: "connection" }, el("span", { class: "dot", "aria-hidden": "true" }), status);

  function show() {
    const { connection } = client;
    set(element, "data-transport", connection.transport);
    set(element, "data-connection", connection.state);
    say(word, connectionWord(state));
    const words = transportWords(client);
    say(transport, words);
    set(element, "title", [words, connection.error?.message ?? ""].filter(Boolean).join(". "));
  }

  state.addEventListener("connection", show);
  show();
  return element;
}

/** When the next attempt comes, counted down, and a way not to wait for it. Nothing here is announced: a number a second is not for ears.
 * @param {State} state @param {AbortSignal} [signal] ends it */
export function makeRetry(state, signal) {
  const { client } = state;
  const when = el("span", { class: "when" });
  const element = el("div", { class: "retry", "aria-live": "off" }, when,
    // In a tab of its own: what is being written stays.
    el("a", { class: "link", href: `/doctor?as=${encodeURIComponent(state.user)}`, target: "_blank" }, texts.whyNot),
    el("button", { class: "link", type: "button", onclick: () => client.reconnect() }, texts.tryNow));
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  function show() {
    clearTimeout(timer);
    element.hidden = !state.away;
    if (!state.away) return;
    const left = (client.connection.retryAt ?? 0) - Date.now();
    const seconds = Math.max(0, Math.ceil(left / 1000));
    say(when, seconds > 0 ? texts.tryingIn(seconds) : texts.tryingNow);
    if (seconds > 0) timer = setTimeout(show, left - (seconds - 1) * 1000);
  }

  state.addEventListener("connection", show, { signal });
  signal?.addEventListener("abort", () => clearTimeout(timer));
  show();
  return element;
}
