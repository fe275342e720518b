// The shapes of what is stored. Conversation ids, sequence numbers and times are numbers here: IndexedDB's keys know no bigints.

import type { Position } from "../codec/frames.js";
import type { OutboxState } from "../uplink.js";

/** A command in the outbox; its key is `id`, which rises in the order of enqueuing. */
export interface OutboxRow {
  id: number;
  incarnation: bigint;
  cseq: bigint;
  nonce: string;
  time: number;                 // when it was enqueued, by this device's clock
  applied: boolean;             // the server has it durably; its outcome was not taken yet
  rejected?: { code: string; message: string };
  body: OutboxBody;
}

export type OutboxBody =
  | { kind: "send"; to: RowTarget; text: string }
  | { kind: "markRead"; conversation: number; seq: number };
export type RowTarget = { user: string } | { conversation: number };

/** In `meta`, under "outbox". */
export interface OutboxMeta extends OutboxState {
  last: bigint;                 // the highest number given
  rows: number;                 // how many are in the store, rejected ones included
  bytes: number;                // of text in them
}

export interface MessageRow {
  conversation: number;
  seq: number;
  from: string;                 // empty where the writer is not known
  time: number;
  text: string;
  nonce?: string;               // of a message that this device sent
  gap?: boolean;                // the one before it may be missing here
}

export interface MemberRow { user: string; delivered: number; read: number }

export interface ConversationRow {
  id: number;
  kind: string;
  members: MemberRow[];
  other: string;
  newest: number;               // highest number of a message that is stored
  last: MessageRow | null;
  unread: number;
}

export interface Loaded {
  device: string;
  outbox: OutboxMeta;
  position: Position | null;
  rows: OutboxRow[];            // all that are not rejected, in order
  way: Way | null;
}

/** How the server was last reached. In `meta`, under "way". */
export interface Way { transport: "webtransport" | "websocket"; network: string; at: number }
