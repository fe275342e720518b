import type { ServerFrame } from "../codec/frames.js";
import type { WhimbrelError } from "../errors.js";

export type TransportKind = "webtransport" | "websocket";

/** A connection that carries frames. Knows nothing of what they mean. */
export interface Link {
  readonly transport: TransportKind;
  /**
   * Begins to read. Where `onframes` returns a promise, the link reads no further before it is fulfilled, if it can help it. After
   * `onclosed`, or `close`, neither is called again.
   */
  start(onframes: (frames: ServerFrame[]) => Promise<void> | void, onclosed: (why: WhimbrelError) => void): void;
  /** Sends one frame. What cannot be sent is lost, and `onclosed` says so. */
  send(frame: Uint8Array): void;
  /** Bytes handed to `send` and not yet taken by the network. */
  readonly queued: number;
  /** Sends what was handed in as far as the server takes it, and closes. */
  close(): void;
}

export interface Endpoints {
  webtransport?: { url: string; hashes: Uint8Array[] };
  websocket?: { url: string };
}
