// The API of the browser SDK. README.md tells it with examples.
// Conversation ids, sequence numbers and times (milliseconds since 1970) are numbers; what is beyond 2^53-1 is refused with an error.

/** Every error of the SDK: `code` is for programs, `message` says what was wrong and what to do. */
export class WhimbrelError extends Error {
  readonly code: string;
  constructor(code: string, message: string);
}

/** Opens the device's store and starts connecting. Resolves when the local store can be read: never waits for the network. */
export function openClient(options: ClientOptions): Promise<Client>;

export interface ClientOptions {
  user: string;
  device?: string;            // default: made once at random ("web-xxxxxxxx"), kept in the store
  token?: string;
  url?: string;               // base address of the server; default: location.origin
  transport?: "auto" | "webtransport" | "websocket";
  store?: "indexeddb" | "memory";
}

export type Target = { user: string } | { conversation: number };
export type Transport = "webtransport" | "websocket" | "none";

export interface Connection {
  state: "connecting" | "connected" | "offline" | "ended";   // ended: do not connect again without the user (replaced, refused, unauthorized …)
  transport: Transport;
  error?: { code: string; message: string };                 // why, when offline or ended
  retryAt?: number;                                          // ms since 1970, when offline
  warning?: { code: string; message: string };               // the browser keeps nothing: messages are lost with the tab
}

export interface Conversation {
  id: number | null;          // null: begun here, not yet on the server
  kind: "direct";
  members: string[];
  other: string;              // the other member of a direct conversation (the user itself for notes)
  last: Message | null;       // newest, pending ones included
  unread: number;             // messages of others beyond the user's read mark
  read: number;               // the user's own read mark
  draft: string;
}

export interface Message {
  conversation: number | null;
  seq: number | null;         // null while it waits
  nonce: string | null;       // own messages sent by this device: stable from sending to sent (16 hex digits)
  from: string;
  time: number;               // server's once known, else the local clock
  text: string;
  state: "received" | "sending" | "sent" | "delivered" | "read" | "rejected";
  error?: { code: string; message: string };   // of a rejected one
}

export interface Client extends EventTarget {
  readonly user: string;
  readonly device: string;
  readonly connection: Connection;
  readonly waiting: number;                         // commands not yet known to be applied

  // From the local store, never from the network.
  conversations(): Promise<Conversation[]>;         // newest first
  conversation(of: Target): Promise<Conversation | null>;
  messages(of: Target, page?: { before?: number; after?: number; limit?: number }): Promise<Message[]>; // rising; pending ones at the end of the newest page
  // Asks the server for a page of history, stores it, resolves with whether there is more that way; rejects if it cannot be had (offline …).
  loadHistory(of: Target, page: { before?: number; after?: number; limit?: number }): Promise<{ messages: Message[]; more: boolean }>;
  onlineUsers(): Promise<string[]>;

  send(to: Target, text: string): Promise<Message>; // resolves once it is durable on this device ("sending")
  retry(nonce: string): Promise<Message>;           // sends a rejected one again (under a new nonce)
  discard(nonce: string): Promise<void>;            // drops a rejected one
  markRead(of: Target, seq: number): Promise<void>;
  saveDraft(of: Target, text: string): Promise<void>;
  typing(to: Target, active: boolean): void;        // a signal: may get lost; throttled by the SDK
  watch(who: { users?: string[]; everyone?: boolean }): void;  // kept over reconnects by the SDK
  presence(user: string): "online" | "offline" | "unknown";
  reconnect(): void;                                // try now
  close(): Promise<void>;

  // Events (CustomEvent; each is a hint to read again): 
  //  "connection" detail: Connection
  //  "change"     detail: { conversations: Array<{ id: number | null; other: string }> }   something stored about them changed (any tab)
  //  "message"    detail: Message              a new one of somebody else was stored (for notifications; at most the live ones)
  //  "typing"     detail: { conversation: number; user: string; active: boolean }  (ends by itself after 6 s)
  //  "presence"   detail: { user: string; state: "online" | "offline" }
  //  "reset"      detail: { reason: string }   what is held may have gaps; the store was made right already
  //  "conflict"   detail: { message: string }  the outbox disagreed with the server (restored or cloned store); sorted out already
}
