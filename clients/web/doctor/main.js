// The page at `/doctor`: why can this browser not connect? Its steps are in steps.js.

import { accounts } from "../chat/accounts.js";
import { el, say, set } from "../chat/dom.js";
import { bird, icon } from "../chat/icons.js";
import { chooseLanguage, language } from "../chat/preferred.js";
import { languages, milliseconds, texts } from "./language.js";
import { copyText, reportOf } from "./report.js";
import { examine, groups } from "./steps.js";

/** @typedef {import("./steps.js").StepName} StepName */
/** @typedef {{ state: "waits" | "runs" | import("./steps.js").Outcome, seen: string, mend: string, took: string }} Row */
/** @typedef {keyof typeof texts.verdicts} Verdict */

const drawings = /** @type {const} */ ({ works: "check", fails: "close", skipped: "skip" });
/** So long it is said that the report was copied, in milliseconds. */
const COPIED_FOR = 2_000;

const asked = new URLSearchParams(location.search);
/** @type {Map<StepName, Row>} */
const rows = new Map();
/** @type {Verdict} */
let verdict = "runs";
let running = false;

/** @param {StepName} name */
function makeStep(name) {
  const state = el("span", { class: "state" });
  const word = el("span", { class: "unseen" });
  const took = el("span", { class: "took" });
  const seen = el("p", { class: "seen" });
  const mend = el("p", { class: "mend" });
  const element = el("li", { class: "step", "data-step": name }, state, el("h2", {}, texts.steps[name], word), took, seen, mend);
  /** @param {Row} row */
  const show = (row) => {
    rows.set(name, row);
    set(element, "data-state", row.state);
    state.replaceChildren(...(row.state in drawings ? [icon(drawings[/** @type {keyof typeof drawings} */ (row.state)])] : []));
    say(word, `: ${texts.states[row.state]}`);
    say(took, row.took);
    say(seen, row.seen);
    say(mend, row.mend);
  };
  return { element, show };
}

/** What it all means. @returns {Verdict} */
function verdictOf() {
  const state = (/** @type {StepName} */ name) => rows.get(name)?.state;
  const reached = state("server") === "works" && (state("webtransport") === "works" || state("websocket") === "works");
  if (!reached) return "none";
  if (state("session") === "fails") return "refused";
  return [...rows.values()].some((row) => row.state === "fails") ? "part" : "well";
}

const steps = new Map(groups.flat().map(([name]) => /** @type {const} */ ([name, makeStep(name)])));
const status = el("p", { class: "verdict", role: "status" });

/** @param {Verdict} now */
function decide(now) {
  verdict = now;
  set(status, "data-verdict", now);
  say(status, texts.verdicts[now]);
}

const user = el("input", { type: "text", autocomplete: "username", autocapitalize: "none", spellcheck: "false", dir: "auto", value: asked.get("as") ?? "" });
const token = el("input", { type: "password", autocomplete: "off", spellcheck: "false", dir: "ltr" });
const again = el("button", { class: "primary", type: "button", onclick: () => run() }, texts.tryAgain);
const copy = el("button", { class: "secondary", type: "button", onclick: async () => {
  say(copy, (await copyText(reportOf(texts.verdicts[verdict], rows))) ? texts.copied : texts.copyFailed);
  setTimeout(() => say(copy, texts.copy), COPIED_FOR);
} }, texts.copy);

async function run() {
  // Buttons stay as they are: one that is switched off loses the focus.
  if (running) return;
  running = true;
  decide("runs");
  for (const { show } of steps.values()) show({ state: "waits", seen: "", mend: "", took: "" });
  await examine(
    { user: user.value.trim(), token: token.value.trim() },
    (name) => steps.get(name)?.show({ state: "runs", seen: "", mend: "", took: "" }),
    (name, { outcome, seen, mend = "" }, took) => steps.get(name)?.show({ state: outcome, seen, mend, took: took > 0 && outcome !== "skipped" ? milliseconds(took) : "" }),
  );
  decide(verdictOf());
  running = false;
}

function languageChoice() {
  const buttons = Object.entries(languages).map(([tag, { language: name }]) => el("button", {
    type: "button", class: "choice", lang: tag, "aria-pressed": String(tag === language), onclick: () => chooseLanguage(/** @type {keyof typeof languages} */ (tag)),
  }, name));
  return el("div", { class: "choices", role: "group", "aria-label": texts.languageChoice }, ...buttons);
}

/** Nobody is signed in unasked: whose name is in the address came from a page where it was in use. */
function door() {
  const [last] = accounts();
  if (user.value === "" && last) user.placeholder = last;
  return el("form", { class: "door", novalidate: true, onsubmit: (/** @type {Event} */ event) => {
    event.preventDefault();
    if (user.value.trim() === "") user.value = user.placeholder;
    void run();
  } },
  el("h2", {}, texts.doorTitle),
  el("label", {}, el("span", {}, texts.doorName), user),
  el("label", {}, el("span", {}, texts.doorToken), token),
  el("p", { class: "hint" }, texts.doorHint),
  el("button", { class: "secondary", type: "submit" }, texts.doorTry));
}

document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
document.title = texts.title;
document.getElementById("page")?.replaceChildren(el("main", { class: "doctor", tabindex: "-1" },
  el("header", {}, bird(), el("h1", {}, texts.title)),
  status,
  el("ol", { class: "steps" }, ...[...steps.values()].map(({ element }) => element)),
  el("div", { class: "actions" }, again, copy),
  door(),
  el("footer", {}, el("a", { class: "link", href: "/" }, texts.toMessages), languageChoice())));
void run();
