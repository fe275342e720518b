// What a server says about how to reach it. Asked before each round of attempts: certificates, and with them their hashes, change.

import { WhimbrelError } from "../errors.js";

const TIMEOUT = 8_000;
const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/;

/**
 * @param {import("../environment.js").Environment} env
 * @param {URL} base
 * @param {AbortSignal} signal
 * @returns {Promise<import("./link.js").Endpoints>}
 */
export async function discover(env, base, signal) {
  const url = new URL("/.well-known/whimbrel", base);
  const response = await fetchInTime(env, url, signal);
  const fallback = { websocket: { url: socketUrl(base) } };
  // A server that does not say: its WebSocket is at the usual place.
  if (response.status === 404) return fallback;
  if (!response.ok) throw new WhimbrelError("unreachable", `${url} answers with ${response.status}`);
  /** @type {any} */
  let known;
  try {
    known = await response.json();
  } catch {
    throw new WhimbrelError("unreachable", `${url} does not answer with JSON: is a Whimbrel server there?`);
  }
  if (Array.isArray(known?.versions) && known.versions.length > 0 && !known.versions.includes(1)) {
    throw new WhimbrelError("unsupportedVersion", `the server speaks versions ${known.versions} of the protocol, this SDK version 1: update it`);
  }
  return endpoints(base, known, fallback);
}

/**
 * @param {URL} base
 * @param {any} known
 * @param {{ websocket: { url: string } }} fallback
 * @returns {import("./link.js").Endpoints}
 */
export function endpoints(base, known, fallback) {
  /** @type {import("./link.js").Endpoints} */
  const found = { ...fallback };
  if (typeof known?.webtransport?.url === "string") {
    const hashes = Array.isArray(known.webtransport.certificateHashes) ? known.webtransport.certificateHashes : [];
    found.webtransport = { url: known.webtransport.url, hashes: hashes.map(base64).filter((/** @type {any} */ hash) => hash?.length === 32) };
  }
  const announced = known?.websocket?.url;
  // Who asked over TLS is not talked down to plain text by the answer.
  const parsed = parseUrl(announced);
  if (parsed) {
    const { protocol, hostname } = parsed;
    if (protocol === "wss:" || base.protocol === "http:" || LOOPBACK.test(hostname)) found.websocket = { url: announced };
  }
  return found;
}

/**
 * @param {unknown} text
 * @returns {URL | undefined}
 */
export function parseUrl(text) {
  try {
    return new URL(String(text));
  } catch {
    return undefined;
  }
}

/** @param {URL} base */
function socketUrl(base) {
  const url = new URL("/ws", base);
  url.protocol = base.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

/** @param {unknown} text */
function base64(text) {
  try {
    return Uint8Array.from(atob(String(text)), (char) => char.charCodeAt(0));
  } catch {
    return undefined;
  }
}

/**
 * @param {import("../environment.js").Environment} env
 * @param {URL} url
 * @param {AbortSignal} signal
 */
async function fetchInTime(env, url, signal) {
  const abort = new AbortController();
  const stop = () => abort.abort();
  const timer = setTimeout(stop, TIMEOUT);
  signal.addEventListener("abort", stop);
  try {
    return await env.fetch(url, { signal: abort.signal, cache: "no-store", credentials: "omit" });
  } catch {
    throw new WhimbrelError("unreachable", `${url.origin} does not answer`);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}
