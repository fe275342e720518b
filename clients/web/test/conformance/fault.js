// Faults to plant, so that it is known that the checker sees them.

/**
 * One thing that a server or a device does wrong.
 * @typedef {"appliesBeforeCommit" | "countsRepeats" | "forgetsNonces" | "doesNotFence" | "losesEvents" | "forgetsTime" | "beginsWithoutTime"
 *   | "sendsBeforeStoring" | "acksBeforeStoring" | "storesPositionFirst" | "changesNonces" | "keepsSilent" | "takesDoubles" | "takesEarly"} Fault
 */

export const SERVER = /** @type {const} */ (["appliesBeforeCommit", "countsRepeats", "losesEvents"]);
export const SERVER_WITH_ODD_DEVICES = /** @type {const} */ (["forgetsNonces", "doesNotFence"]);
export const DEVICE = /** @type {const} */ (["sendsBeforeStoring", "acksBeforeStoring", "storesPositionFirst", "takesDoubles", "takesEarly"]);
