// The steps of connecting, each by itself, with what to do where it fails.

import { browser } from "../src/environment.js";
import { endpoints, parseUrl } from "../src/link/discover.js";
import { nameFault } from "../src/codec/types.js";
import { connectWebSocket } from "../src/link/websocket.js";
import { connectWebTransport } from "../src/link/webtransport.js";
import { signIn } from "./session.js";
import { span, texts } from "./language.js";

/** @typedef {"works" | "fails" | "skipped"} Outcome */
/** @typedef {{ outcome: Outcome, seen: string, mend?: string }} Finding */
/** @typedef {keyof typeof texts.steps} StepName */
/** @typedef {import("../src/link/link.js").Link} Link */

/** @typedef {object} Visit what a round of steps knows, and finds out
 * @property {string} user nobody where it is empty
 * @property {string} token
 * @property {any} [known] what the server said of itself
 * @property {boolean} [silent] whether the server did not answer at all
 * @property {number} [skew] milliseconds that this device's clock is ahead
 * @property {Link[]} links that came about
 */

/** How long the server may take for each answer, in milliseconds. */
const PATIENCE = 8_000;
/** Clocks that differ by more are worth a word. */
const SKEW_MAX = 60_000;
/** UDP that is swallowed Chromium notices after 4 to 5 seconds; what is refused it notices within a round trip or two. */
const SILENT_AFTER = 2_500;
/** After more attempts that failed, Chromium waits so long before the next that its time says nothing. */
const HELD_AFTER = 7;

const env = browser();
const here = new URL(location.origin);
/** Links give up by themselves after about as long. */
const patient = new AbortController().signal;
let failures = 0;

/** @param {string} seen @returns {Finding} */
const works = (seen) => ({ outcome: "works", seen });
/** @param {string} seen @param {string} mend @returns {Finding} */
const fails = (seen, mend) => ({ outcome: "fails", seen, mend });
/** @param {string} seen @returns {Finding} */
const skipped = (seen) => ({ outcome: "skipped", seen });

function network() {
  return navigator.onLine === false ? fails(texts.networkFails, texts.networkMend) : works(texts.networkWorks);
}

/** @param {Visit} visit */
async function server(visit) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), PATIENCE);
  try {
    const response = await fetch("/.well-known/whimbrel", { cache: "no-store", credentials: "omit", signal: abort.signal });
    const date = Date.parse(response.headers.get("date") ?? "");
    if (!Number.isNaN(date)) visit.skew = Date.now() - date;
    if (!response.ok) return fails(texts.serverOdd(String(response.status)), texts.serverOddMend);
    const known = await response.json().catch(() => null);
    if (typeof known?.websocket?.url !== "string") return fails(texts.serverOdd(response.headers.get("content-type") ?? ""), texts.serverOddMend);
    if (Array.isArray(known.versions) && !known.versions.includes(1)) return fails(texts.serverOther, texts.serverOtherMend);
    visit.known = known;
    return works(texts.serverWorks(here.host));
  } catch {
    visit.silent = true;
    return fails(texts.serverSilent(here.host), texts.serverSilentMend);
  } finally {
    clearTimeout(timer);
  }
}

/** @param {Visit} visit */
function clock({ skew }) {
  if (skew === undefined) return skipped(texts.clockUnknown);
  if (Math.abs(skew) <= SKEW_MAX) return works(texts.clockWorks);
  const by = span(Math.abs(skew));
  return fails(skew > 0 ? texts.clockAhead(by) : texts.clockBehind(by), texts.clockMend);
}

/** Whether the page was opened so that browsers offer everything, in a browser that has it. @param {Visit} visit */
function page({ known }) {
  if (!isSecureContext) {
    // TLS has the number of the port for QUIC.
    const secure = parseUrl(known?.webtransport?.url)?.host ?? here.hostname;
    return fails(texts.pageUnsafe(location.origin), texts.pageUnsafeMend(`https://${secure}`));
  }
  return typeof env.WebTransport === "function" ? works(texts.pageWorks) : fails(texts.pageOld, texts.pageOldMend);
}

/** @param {Visit} visit */
async function webtransport(visit) {
  if (typeof env.WebTransport !== "function") return skipped(texts.noWebTransport);
  if (!visit.known) return skipped(texts.notReached);
  const endpoint = addresses(visit).webtransport;
  if (!endpoint) return skipped(texts.notOffered);
  const { host, port } = new URL(endpoint.url);
  const begun = performance.now();
  try {
    visit.links.unshift(await connectWebTransport(env, endpoint, patient));
    failures = 0;
    return works(texts.webtransportWorks(host));
  } catch {
    failures += 1;
    const silent = performance.now() - begun > SILENT_AFTER;
    if (failures > HELD_AFTER && silent) return fails(texts.webtransportHeld(host), texts.webtransportHeldMend);
    const udp = port || "443";
    return silent
      ? fails(texts.webtransportSilent(host), texts.webtransportSilentMend(udp))
      : fails(texts.webtransportRefused(host), texts.webtransportRefusedMend(udp));
  }
}

/** @param {Visit} visit */
async function websocket(visit) {
  if (visit.silent) return skipped(texts.notReached);
  const { url } = addresses(visit).websocket;
  const { host } = new URL(url);
  const announced = String(visit.known?.websocket.url ?? url);
  try {
    visit.links.push(await connectWebSocket(env, url, patient));
    return works(texts.websocketWorks(host));
  } catch {
    return fails(texts.websocketFails(host), announced !== url && here.protocol === "https:" ? texts.websocketMixed(announced) : texts.websocketMend);
  }
}

/** Where the server is, as the SDK has it: a server that did not say has its WebSocket at the usual place. @param {Visit} visit */
function addresses({ known }) {
  const url = new URL("/ws", here);
  url.protocol = here.protocol === "https:" ? "wss:" : "ws:";
  const fallback = { websocket: { url: url.href } };
  return { ...fallback, ...endpoints(here, known, fallback) };
}

async function storage() {
  const NAME = "whimbrel-doctor";
  try {
    await /** @type {Promise<void>} */ (new Promise((resolve, reject) => {
      const opening = indexedDB.open(NAME, 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore("notes").put("here", 1);
      opening.onerror = opening.onblocked = () => reject(opening.error ?? new Error("blocked"));
      opening.onsuccess = () => {
        opening.result.close();
        resolve();
      };
    }));
    return works(texts.storageWorks);
  } catch (why) {
    return fails(texts.storageFails(why instanceof Error ? why.name : String(why)), texts.storageMend);
  } finally {
    // Where nothing is kept there is nothing to delete.
    globalThis.indexedDB?.deleteDatabase(NAME);
  }
}

/** @param {Visit} visit */
function session(visit) {
  if (visit.user === "") return skipped(texts.sessionNobody);
  if (nameFault(visit.user)) return fails(texts.sessionName, texts.sessionNameMend);
  const [link] = visit.links;
  return link ? signIn(link, visit, PATIENCE) : skipped(texts.sessionNoConnection);
}

/** In groups: those of one are taken at once, since none needs another.
 * @type {[StepName, (visit: Visit) => Finding | Promise<Finding>][][]} */
export const groups = [
  [["network", network], ["server", server]],
  [["clock", clock], ["page", page]],
  [["webtransport", webtransport], ["websocket", websocket], ["storage", storage]],
  [["session", session]],
];

/** Takes every step, and tells when each begins and what came of it.
 * @param {Pick<Visit, "user" | "token">} who @param {(name: StepName) => void} begins
 * @param {(name: StepName, finding: Finding, took: number) => void} tell */
export async function examine(who, begins, tell) {
  /** @type {Visit} */
  const visit = { ...who, links: [] };
  /** @param {[StepName, (visit: Visit) => Finding | Promise<Finding>]} step */
  const take = async ([name, step]) => {
    begins(name);
    const begun = performance.now();
    const found = step(visit);
    // What is known without asking anybody takes no time worth a word.
    if (found instanceof Promise) tell(name, await found, performance.now() - begun);
    else tell(name, found, 0);
  };
  for (const group of groups) await Promise.all(group.map(take));
  for (const link of visit.links) link.close();
}
