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
  /** Default: made once at random ("web-xxxxxxxx"), kept in the store. A device that is named has a store of its own. */
  device?: string;
  token?: string;
  /** Base address of the server; default: `location.origin`. */
  url?: string;
  transport?: "auto" | "webtransport" | "websocket";
  store?: "indexeddb" | "memory";
}

export type Target = { user: string } | { conversation: number };
export type Transport = "webtransport" | "websocket" | "none";

export interface Connection {
  /** "ended": do not connect again without the user (replaced, refused, unauthorized …). */
  state: "connecting" | "connected" | "offline" | "ended";
  transport: Transport;
  /** Why, when offline or ended; while connecting again, why the session before ended. */
  error?: { code: string; message: string };
  /** Milliseconds since 1970, when offline. */
  retryAt?: number;
  /** The browser keeps nothing here: messages that were not sent are lost with the tab. */
  warning?: { code: string; message: string };
}

export interface Conversation {
  /** null: begun here, not yet on the server. */
  id: number | null;
  kind: "direct";
  members: string[];
  /** The other member of a direct conversation (the user itself for notes). */
  other: string;
  /** Newest, pending ones included. */
  last: Message | null;
  /** Messages of others beyond the user's read mark, of those that are stored here. */
  unread: number;
  /** The user's own read mark. */
  read: number;
  draft: string;
}

export interface Message {
  conversation: number | null;
  /** null while it waits. */
  seq: number | null;
  /** Own messages sent by this device: stable from sending to sent (16 hex digits). */
  nonce: string | null;
  from: string;
  /** The server's once known, else the local clock's. */
  time: number;
  text: string;
  state: "received" | "sending" | "sent" | "delivered" | "read" | "rejected";
  /** Of a rejected one. */
  error?: { code: string; message: string };
}

export interface Page { before?: number; after?: number; limit?: number }

/** What each event carries. Each is a hint to read again. */
export interface ClientEvents {
  connection: Connection;
  /** Something stored about them changed, in any tab. */
  change: { conversations: { id: number | null; other: string }[] };
  /** A new one of somebody else was stored: for notifications; not those that came while the device was away. */
  message: Message;
  /** Ends by itself after 6 s. */
  typing: { conversation: number; user: string; active: boolean };
  presence: { user: string; state: "online" | "offline" };
  /** A line that somebody without a name said in the lobby; only after `watch({ lobby: true })`. Those who fall behind miss some. */
  lobby: { text: string };
  /** What is held may have gaps ("trimmed"), or was of another log and is gone ("otherLog"). */
  reset: { reason: string };
  /** The outbox disagreed with the server (restored or cloned store); sorted out already. */
  conflict: { message: string };
}

export interface Client extends EventTarget {
  readonly user: string;
  readonly device: string;
  readonly connection: Connection;
  /** Commands not yet known to be applied. */
  readonly waiting: number;

  // From the local store, never from the network.

  /** Newest first. */
  conversations(): Promise<Conversation[]>;
  /** null where there is nothing: no message, none that waits, no draft. */
  conversation(of: Target): Promise<Conversation | null>;
  /** Rising, at most 1000 (50 unless said); pending ones at the end of the newest page. Ends where something may be missing. */
  messages(of: Target, page?: Page): Promise<Message[]>;

  // From the server: rejects if it cannot be had (offline …).

  /** Asks for a page of history (at most 500), stores it, and says whether there is more that way. */
  loadHistory(of: Target, page: Page): Promise<{ messages: Message[]; more: boolean }>;
  onlineUsers(): Promise<string[]>;

  // Into the outbox: resolves once it is durable on this device.

  send(to: Target, text: string): Promise<Message>;
  /** Sends a rejected one again, under a new nonce. */
  retry(nonce: string): Promise<Message>;
  /** Drops a rejected one. */
  discard(nonce: string): Promise<void>;
  markRead(of: Target, seq: number): Promise<void>;
  saveDraft(of: Target, text: string): Promise<void>;

  // Fleeting.

  /** A signal: may get lost; throttled by the SDK. */
  typing(to: Target, active: boolean): void;
  /** Whose presence is wanted, and whether the lobby is, instead of what this tab said before; kept over reconnects. */
  watch(who: { users?: string[]; everyone?: boolean; lobby?: boolean }): void;
  presence(user: string): "online" | "offline" | "unknown";
  /** Tries now, also after the connection ended. */
  reconnect(): void;
  /**
   * Says that the page is suspended, or about to be: the user does not look online for this device, and what comes goes to push at once. For
   * applications whose wrapper says so; what the browser says of its own pages the SDK hears itself. Resolves when the server knows, at once
   * where there is no connection (each later one begins with it), and after 5 s at most. Never rejects.
   */
  background(): Promise<void>;
  /** The opposite: somebody is there. Looks at once whether the connection lives, or tries to connect. Resolves as `background` does. */
  foreground(): Promise<void>;
  /** Stores and acknowledges what is done, and lets another tab lead. What waits stays in the store. */
  close(): Promise<void>;

  addEventListener<K extends keyof ClientEvents>(
    type: K, listener: (event: CustomEvent<ClientEvents[K]>) => void, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
}
