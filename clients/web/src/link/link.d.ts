import type { ServerFrame } from "../codec/frames.js";
import type { WhimbrelError } from "../errors.js";

export type TransportKind = "webtransport" | "websocket";

/** A connection that carries frames. Knows nothing of what they mean. */
export interface Link {
  readonly transport: TransportKind;
  /** The longest datagram that goes; 0 where none do. */
  readonly datagramMax: number;
  /**
   * Begins to read. Where `onframes` returns a promise, the link reads no further before it is fulfilled, if it can help it. `onhints` gets
   * what came in datagrams: it may be doubled, late, or before its turn. After `onclosed`, or `close`, none of them is called again.
   */
  start(onframes: OnFrames, onclosed: (why: WhimbrelError) => void, onhints: (frames: ServerFrame[]) => void): void;
  /** Sends one frame. What cannot be sent is lost, and `onclosed` says so. */
  send(frame: Uint8Array): void;
  /** Sends frames, each behind its length, in a datagram of at most `datagramMax` bytes. It may get lost, and nobody says so. */
  hint(datagram: Uint8Array): void;
  /** Sends one frame on a stream of its own, where there are such. Fulfilled when the server has ended it, rejected when it broke. */
  ask?(frame: Uint8Array, onframes: OnFrames): Promise<void>;
  /** Bytes handed to `send` and not yet taken by the network. */
  readonly queued: number;
  /** Sends what was handed in as far as the server takes it, and closes. */
  close(): void;
}

type OnFrames = (frames: ServerFrame[]) => Promise<void> | void;

export interface Endpoints {
  webtransport?: { url: string; hashes: Uint8Array[] };
  websocket?: { url: string };
}
