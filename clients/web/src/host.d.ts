// What the connection and its sessions need of whoever runs them.

import type { Hello, ClientState, Position, ServerSignal, Watch } from "./codec/frames.js";
import type { Connection } from "./index.js";
import type { Environment } from "./environment.js";
import type { TransportKind } from "./link/link.js";
import type { Patience } from "./pulse.js";
import type { Queries } from "./queries.js";
import type { Session } from "./session.js";
import type { Database } from "./store/database.js";
import type { MessageRow } from "./store/rows.js";

/** What happens, for whoever shows it. */
interface Told {
  changed(changed: { id: number | null; other: string }[]): void;
  received(message: MessageRow): void;
  signal(signal: ServerSignal): void;
  reset(reason: string): void;
  conflict(message: string): void;
  /** Whose presence is wanted. */
  watch(): Watch | undefined;
}

/** What the connection of a device needs. */
export interface Config extends Told {
  env: Environment;
  db: Database;
  user: string;
  device: string;
  token: string;
  url: URL;
  transport: "auto" | TransportKind;
  status(connection: Connection): void;
}

/** What a session needs. */
export interface Host extends Told {
  env: Environment;
  db: Database;
  user: string;
  queries: Queries;
  patience: Patience;
  hello(incarnation: bigint, position: Position | null): Hello;
  /** How the device is now. */
  state(): ClientState;
  greeted(session: Session): void;
  /** `retryAfterMs` is -1: at once; 0: with backoff. */
  lost(session: Session, why: { code: string; message: string }, retryAfterMs: number): void;
  /** Nobody should connect again without the user. */
  ended(session: Session, why: { code: string; message: string }): void;
  /** Something happened: `poll` is worth a call. */
  wake(): void;
}
