// What docs/protocol.md says of every structure, as data. A test compares the two.

import { CODES } from "../errors.js";
import { bool, bytes, choice, envelope, hash, kind, list, name, nonce, open, optional, struct, text, u16, u32, u64, u8 } from "./types.js";

const contentKind = open("ContentKind", { 1: "text" });
const conversationKind = open("ConversationKind", { 1: "direct" });
const errorCode = open("ErrorCode", CODES);
const presenceState = open("PresenceState", { 1: "online", 2: "offline" });

const position = struct("Position", { epoch: u64, cursor: u64, time: u64 });
const origin = choice("Origin", [["snapshot", null], ["oldest", null], ["now", null]]);
const extension = struct("Extension", { key: u16, value: bytes });
const hello = struct("Hello", {
  minVersion: u8, maxVersion: u8, user: name, device: name, token: text, agent: text, instance: nonce, attempt: u32, incarnation: u64,
  position: optional(position), origin, extensions: list(extension),
});

const resetReason = choice("ResetReason", [["trimmed", null], ["otherLog", null]]);
const begin = struct("Begin", { cursor: u64, time: u64, snapshot: bool, reset: optional(resetReason) });
const webTransportEndpoint = struct("WebTransportEndpoint", { url: text, certificateHashes: list(hash) });
const webSocketEndpoint = struct("WebSocketEndpoint", { url: text });
const endpoint = choice("Endpoint", [["webTransport", webTransportEndpoint], ["webSocket", webSocketEndpoint]]);
const welcome = struct("Welcome", {
  version: u8, user: name, sessionEpoch: u64, epoch: u64, incarnation: u64, applied: u64, appliedNonce: nonce, head: u64, begin,
  window: u32, maxText: u32, time: u64, endpoints: list(endpoint), extensions: list(extension),
});

const target = choice("Target", [["user", name], ["conversation", u64]]);
const content = struct("Content", { kind: contentKind, text, extensions: list(extension) });
const command = envelope("Command", { incarnation: u64, cseq: u64, nonce }, "CommandBody", {
  1: kind("send", struct("Send", { to: target, content })),
  2: kind("markRead", struct("MarkRead", { conversation: u64, seq: u64 })),
});
const ack = struct("Ack", { seq: u64 });
const applied = struct("Applied", { cseq: u64 });
const busy = struct("Busy", { cseq: u64, retryAfterMs: u32 });

const event = envelope("Event", { seq: u64, time: u64 }, "EventBody", {
  1: kind("skip", struct("Skip", { through: u64 })),
  2: kind("started", struct("Started", { conversation: u64, kind: conversationKind, members: list(name) })),
  3: kind("message", struct("Message", { conversation: u64, seq: u64, from: optional(name), content })),
  4: kind("sent", struct("Sent", { incarnation: u64, cseq: u64, conversation: u64, seq: u64 })),
  5: kind("rejected", struct("Rejected", { incarnation: u64, cseq: u64, code: errorCode, message: text })),
  6: kind("receipt", struct("Receipt", { conversation: u64, user: optional(name), delivered: u64, read: u64 })),
});

const storedMessage = struct("StoredMessage", { seq: u64, time: u64, from: name, content });
const memberState = struct("MemberState", { user: name, delivered: u64, read: u64 });
const conversationState = struct("ConversationState", {
  conversation: u64, kind: conversationKind, members: list(memberState), head: u64, messages: list(storedMessage),
});
const snapshot = struct("Snapshot", { conversations: list(conversationState), last: bool });

const direction = choice("Direction", [["backwards", null], ["forwards", null]]);
const query = envelope("Query", { id: u64 }, "QueryBody", {
  1: kind("history", struct("History", { of: target, from: u64, direction, limit: u32 })),
  2: kind("online", struct("Online", { after: text, limit: u32 })),
});
const answer = envelope("Answer", { id: u64, last: bool }, "AnswerBody", {
  1: kind("history", struct("HistoryPage", { conversation: u64, messages: list(storedMessage), more: bool })),
  2: kind("online", struct("OnlinePage", { users: list(name), more: bool })),
  3: kind("refused", struct("Refused", { code: errorCode, message: text })),
});

export const clientState = struct("ClientState", { background: bool, askAfterS: u16 });
const signal = choice("Signal", [
  ["typing", struct("Typing", { to: target, active: bool })],
  ["watch", struct("Watch", { users: list(name), everyone: bool, lobby: bool })],
  ["state", clientState],
]);
const serverSignal = choice("ServerSignal", [
  ["typing", struct("TypingFrom", { conversation: u64, user: name, active: bool })],
  ["presence", list(struct("Presence", { user: name, state: presenceState }))],
  ["lobby", struct("LobbyLine", { text })],
]);
const ping = struct("Ping", { id: u32 });
const goAway = struct("GoAway", { retryAfterMs: u32, message: text });
const error = struct("Error", { code: errorCode, message: text, retryAfterMs: u32 });

export const clientFrame = choice("ClientFrame", [
  ["hello", hello], ["command", command], ["ack", ack], ["query", query], ["signal", signal], ["ping", ping], ["pong", ping],
]);
export const serverFrame = choice("ServerFrame", [
  ["welcome", welcome], ["applied", applied], ["event", event], ["snapshot", snapshot], ["answer", answer], ["signal", serverSignal],
  ["ping", ping], ["pong", ping], ["busy", busy], ["goAway", goAway], ["error", error],
]);
