// The browser SDK of Whimbrel. README.md is its documentation, index.d.ts its types.

import { Client } from "./client.js";
import { browser } from "./environment.js";

export { WhimbrelError } from "./errors.js";

/**
 * Opens the device's store and starts connecting. Resolves when the local store can be read: never waits for the network.
 * @param {import("./index.js").ClientOptions} options
 * @returns {Promise<import("./index.js").Client>}
 */
// The types of its events are known to index.d.ts only.
export const openClient = (options) => /** @type {Promise<any>} */ (Client.open(options, browser()));
