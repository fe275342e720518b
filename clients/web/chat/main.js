// Where the page starts: who, then their store, then everything else.

import { openClient } from "../src/index.js";
import { rememberAccount } from "./accounts.js";
import { startApp } from "./app.js";
import { el } from "./dom.js";
import { language, learnHours, texts } from "./language.js";
import { askName } from "./login.js";
import { Messages } from "./messages.js";
import { faultOf } from "./names.js";
import { State } from "./state.js";

/** So long after the start, in milliseconds, is done what the next start needs. */
const LEARN_AFTER = 3_000;

const place = /** @type {HTMLElement} */ (document.getElementById("page"));
const asked = new URLSearchParams(location.search);

/** @param {string | null} value @returns {"auto" | "webtransport" | "websocket"} */
const transportOf = (value) => (value === "websocket" || value === "webtransport" ? value : "auto");

async function start() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = texts.appName;
  const wanted = asked.get("as")?.trim() ?? "";
  const user = wanted === "" || faultOf(wanted) !== null ? await askName(place, wanted) : wanted;
  const client = await openClient({ user, transport: transportOf(asked.get("transport")) });
  const to = asked.get("to")?.trim() ?? "";
  const first = to !== "" && faultOf(to) === null ? { messages: new Messages(client, to), conversation: client.conversation({ user: to }) } : null;
  rememberAccount(user);
  const state = new State(client);
  startApp(state, place, first);
  keepForOffline(state);
  // What is looked at goes first.
  await first?.messages.started.catch(() => {});
  await state.start();
  // Somebody may have chosen another clock since the last time.
  setTimeout(learnHours, LEARN_AFTER);
}

/** The page itself is kept too, so that it opens without the server. @param {State} state */
function keepForOffline(state) {
  const worker = navigator.serviceWorker;
  if (!worker) return;
  const begun = worker.controller !== null;
  worker.register("/web/chat/sw.js", { scope: "/", updateViaCache: "none" }).catch(() => {
    // Not allowed here (a private window, a certificate that is not trusted): the page works, but not without the server.
  });
  // The first worker takes over a page of its own version; a later one brings another.
  worker.addEventListener("controllerchange", () => {
    if (begun) state.tell("notice", { kind: "version" });
  });
}

start().catch((why) => {
  const again = el("button", { class: "primary", type: "button", onclick: () => location.reload() }, texts.tryAgain);
  const reason = why instanceof Error ? why.message : String(why);
  place.replaceChildren(el("main", { class: "login" }, el("div", { class: "card", role: "alert" },
    el("h1", {}, texts.startFailed), el("p", { class: "hint" }, texts.startFailedHint(reason)), again)));
});
