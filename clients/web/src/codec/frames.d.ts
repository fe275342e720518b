// The shapes of frames in memory: those of the protocol's JSON form, but u64 is a bigint and bytes are a Uint8Array.

export type Nonce = string;
export type Target = { user: string } | { conversation: bigint };
export interface Position { epoch: bigint; cursor: bigint; time: bigint }
export type Origin = "snapshot" | "oldest" | "now";
export interface Extension { key: number; value: Uint8Array }
export interface Hello {
  minVersion: number; maxVersion: number; user: string; device: string; token: string; agent: string; instance: Nonce; attempt: number;
  incarnation: bigint; position: Position | null; origin: Origin; extensions: Extension[];
}
export type ResetReason = "trimmed" | "otherLog";
export interface Begin { cursor: bigint; time: bigint; snapshot: boolean; reset: ResetReason | null }
export type Endpoint = { webTransport: { url: string; certificateHashes: Uint8Array[] } } | { webSocket: { url: string } };
export interface Welcome {
  version: number; user: string; sessionEpoch: bigint; epoch: bigint; incarnation: bigint; applied: bigint; appliedNonce: Nonce;
  head: bigint; begin: Begin; window: number; maxText: number; time: bigint; endpoints: Endpoint[]; extensions: Extension[];
}
export interface Content { kind: string; text: string; extensions: Extension[] }
export interface Send { to: Target; content: Content }
export interface MarkRead { conversation: bigint; seq: bigint }
export type CommandBody =
  | { kind: "send"; body: Send }
  | { kind: "markRead"; body: MarkRead }
  | { kind: "unknown"; body: null };
export type Command = { incarnation: bigint; cseq: bigint; nonce: Nonce } & CommandBody;
export type EventBody =
  | { kind: "skip"; body: { through: bigint } }
  | { kind: "started"; body: { conversation: bigint; kind: string; members: string[] } }
  | { kind: "message"; body: { conversation: bigint; seq: bigint; from: string | null; content: Content } }
  | { kind: "sent"; body: { incarnation: bigint; cseq: bigint; conversation: bigint; seq: bigint } }
  | { kind: "rejected"; body: { incarnation: bigint; cseq: bigint; code: string; message: string } }
  | { kind: "receipt"; body: { conversation: bigint; user: string | null; delivered: bigint; read: bigint } }
  | { kind: "unknown"; body: null };
export type Event = { seq: bigint; time: bigint } & EventBody;
export interface StoredMessage { seq: bigint; time: bigint; from: string; content: Content }
export interface ConversationState {
  conversation: bigint; kind: string; members: { user: string; delivered: bigint; read: bigint }[]; head: bigint; messages: StoredMessage[];
}
export interface Snapshot { conversations: ConversationState[]; last: boolean }
export interface History { of: Target; from: bigint; direction: "backwards" | "forwards"; limit: number }
export type QueryBody =
  | { kind: "history"; body: History }
  | { kind: "online"; body: { after: string; limit: number } }
  | { kind: "unknown"; body: null };
export type Query = { id: bigint } & QueryBody;
export interface HistoryPage { conversation: bigint; messages: StoredMessage[]; more: boolean }
export interface OnlinePage { users: string[]; more: boolean }
export type AnswerBody =
  | { kind: "history"; body: HistoryPage }
  | { kind: "online"; body: OnlinePage }
  | { kind: "refused"; body: { code: string; message: string } }
  | { kind: "unknown"; body: null };
export type Answer = { id: bigint; last: boolean } & AnswerBody;
export interface Watch { users: string[]; everyone: boolean }
export interface ClientState { background: boolean; askAfterS: number }
export type Signal = { typing: { to: Target; active: boolean } } | { watch: Watch } | { state: ClientState };
export type ServerSignal =
  | { typing: { conversation: bigint; user: string; active: boolean } }
  | { presence: { user: string; state: string }[] };
export interface Failure { code: string; message: string; retryAfterMs: number }

export type ClientFrame =
  | { hello: Hello } | { command: Command } | { ack: { seq: bigint } } | { query: Query } | { signal: Signal }
  | { ping: { id: number } } | { pong: { id: number } };
export type ServerFrame =
  | { welcome: Welcome } | { applied: { cseq: bigint } } | { event: Event } | { snapshot: Snapshot } | { answer: Answer }
  | { signal: ServerSignal } | { ping: { id: number } } | { pong: { id: number } } | { busy: { cseq: bigint; retryAfterMs: number } }
  | { goAway: { retryAfterMs: number; message: string } } | { error: Failure };
