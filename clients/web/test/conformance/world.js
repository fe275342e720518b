// Devices, a server and the network between them, under a clock that only steps move.

import { decodeClientFrame, decodeServerFrame, encodeClientFrame, encodeServerFrame } from "../../src/codec/index.js";
import { checkAll } from "./check.js";
import { Dead, Device, DeviceStore, Work } from "./device.js";
import { Out, Server } from "./server.js";
import { DEVICES, userOf } from "./store.js";

/** @typedef {import("./script.js").Step} Step */

/** Frames that the server lets wait for a link before it stops pushing events. */
const ROOM = 6;
/** The most processes there are, clones among them. */
const PROCESSES = 6;

/**
 * @typedef {object} Link
 * @property {number} device
 * @property {Uint8Array[]} up
 * @property {Uint8Array[]} down
 * @property {boolean} closed the server has closed it: once it is drained the device notices
 * @property {number} life of the server at its other end
 */

export class World {
  /** @param {import("./fault.js").Fault | undefined} fault */
  constructor(fault) {
    this.now = 0;
    this.server = new Server(fault);
    this.devices = Array.from({ length: DEVICES }, (_, no) => new Device(no, new DeviceStore(), fault));
    /** @type {Link[]} */
    this.links = [];
    /** @type {[number, Uint8Array][]} */
    this.upCopies = [];
    /** @type {[number, Uint8Array][]} */
    this.downCopies = [];
    /** Every life of the server's store; the last is the present one. A life that was rolled back keeps its mailboxes as they were then. */
    this.lives = [{ mailboxes: /** @type {import("./store.js").Mailbox[]} */ ([]), effectsAtStart: new Map() }];
    /** @type {import("./store.js").ServerStore | undefined} */
    this.serverBackup = undefined;
    /** @type {Map<number, DeviceStore>} */
    this.backups = new Map();
    this.nonces = 0;
    /** Devices whose wish for a new outbox came late, over a link that they had given up. @type {Set<number>} */
    this.overtaken = new Set();
    /** @type {string[]} */
    this.violations = [];
    for (let device = 0; device < DEVICES; device++) this.#connect(device);
  }

  /**
   * Carries out a script, lets everything come to rest, and checks what came of it. Throws where a promise was broken.
   * @param {Step[]} script
   * @param {import("./script.js").Kind} kind
   * @param {import("./fault.js").Fault} [fault]
   */
  static run(script, kind, fault) {
    const world = new World(fault);
    for (const step of script) {
      world.now += 1;
      world.#step(step);
      world.#noViolations();
    }
    world.#heal();
    world.#noViolations();
    checkAll(world, kind);
  }

  #noViolations() {
    if (this.violations.length > 0) throw new Error(this.violations[0]);
  }

  /** @param {Step} step */
  #step(step) {
    const device = "device" in step ? step.device % this.devices.length : 0;
    switch (step.do) {
      case "enqueue": this.#enqueue(device, step.kind); break;
      case "connect": this.#connect(device); break;
      case "disconnect": {
        const { link } = this.devices[device];
        if (link !== undefined && !step.arrives) this.links[link].up = [];
        this.devices[device].disconnect();
        break;
      }
      case "up": this.#up(step.link, step.count); break;
      case "down": this.#down(step.link, step.count); break;
      case "upCopy": {
        const copy = pickCopy(this.upCopies, step.pick, step.again);
        if (copy) this.#arriveAtServer(copy[0], copy[1], true);
        break;
      }
      case "downCopy": {
        const copy = pickCopy(this.downCopies, step.pick, step.again);
        if (copy) this.#arriveAtDevice(copy[0], copy[1]);
        break;
      }
      case "commit": this.#withServer((server, now, out) => server.commit(step.outcome, now, out)); break;
      case "overload": this.server.overloaded = step.overloaded; break;
      case "wait":
        this.now += step.ms;
        for (let no = 0; no < this.devices.length; no++) this.#withDevice(no, (device, work) => device.transmit(work));
        break;
      case "crash": this.devices[device].fuse = step.after; break;
      case "serverCrash": this.#withServer((server, _, out) => server.crash(out)); break;
      case "trim": {
        const mailbox = this.server.store.mailboxes[step.user];
        mailbox.floor = Math.max(mailbox.floor, mailbox.head - step.keep);
        break;
      }
      case "backup": this.backups.set(device, this.devices[device].store.clone()); break;
      case "restore": {
        const backup = this.backups.get(device);
        if (!backup) break;
        this.devices[device].kill();
        this.devices[device].store = backup.clone();
        break;
      }
      case "clone": {
        const { no, store, fault } = this.devices[device];
        if (this.devices.length < PROCESSES) this.devices.push(new Device(no, store.clone(), fault));
        break;
      }
      case "serverBackup": this.serverBackup = this.server.store.clone(); break;
      case "serverRestore": this.#restoreServer(step.raise); break;
    }
    this.#withServer(() => {});
  }

  /**
   * @param {number} device
   * @param {number} kind
   */
  #enqueue(device, kind) {
    this.nonces += 1;
    const nonce = this.nonces.toString(16).padStart(16, "0");
    // Kind 3 is one that the model refuses.
    const text = kind === 3 ? "" : `message ${this.nonces}`;
    /** @type {import("../../src/codec/frames.js").CommandBody} */
    const body = kind === 2
      ? { kind: "markRead", body: { conversation: 1n, seq: BigInt(this.nonces) } }
      : { kind: "send", body: { to: { conversation: 1n }, content: { kind: "text", text, extensions: [] } } };
    this.#withDevice(device, (device, work) => device.enqueue(nonce, body, work));
  }

  /** @param {number} device */
  #connect(device) {
    this.devices[device].disconnect();
    const up = [encodeClientFrame({ hello: this.devices[device].hello() })];
    this.links.push({ device, up, down: [], closed: false, life: this.lives.length - 1 });
    this.devices[device].link = this.links.length - 1;
  }

  /**
   * @param {number} pick
   * @param {number} count
   */
  #up(pick, count) {
    const no = nth(this.links, pick, (link) => link.up.length > 0);
    if (no === undefined) return;
    for (; count > 0; count--) {
      const bytes = this.links[no].up.shift();
      if (!bytes) return;
      this.#arriveAtServer(no, bytes, false);
    }
  }

  /**
   * @param {number} pick
   * @param {number} count
   */
  #down(pick, count) {
    const no = nth(this.links, pick, (link, no) => this.devices[link.device].link === no && (link.closed || link.down.length > 0));
    if (no === undefined) return;
    const link = this.links[no];
    for (; count > 0; count--) {
      const bytes = link.down.shift();
      if (!bytes) break;
      this.#arriveAtDevice(no, bytes);
    }
    if (link.closed && link.down.length === 0 && this.devices[link.device].link === no) this.devices[link.device].disconnect();
  }

  /**
   * @param {number} no
   * @param {Uint8Array} bytes
   * @param {boolean} copy
   */
  #arriveAtServer(no, bytes, copy) {
    const link = this.links[no];
    if (link.closed || link.life + 1 < this.lives.length) return;
    const frame = decodeClientFrame(bytes);
    const device = this.devices[link.device];
    if ("hello" in frame && frame.hello.incarnation === 0n && device.link !== no) this.overtaken.add(device.no);
    this.#withServer((server, now, out) => server.onFrame(no, frame, copy, now, out));
  }

  /**
   * Frames of links that the device has given up are lost.
   * @param {number} no
   * @param {Uint8Array} bytes
   */
  #arriveAtDevice(no, bytes) {
    const { device } = this.links[no];
    if (this.devices[device].link === no) this.#withDevice(device, (device, work) => device.onFrame(decodeServerFrame(bytes), work));
  }

  /**
   * Lets the server do something, then push what it can.
   * @param {(server: Server, now: bigint, out: Out) => void} work
   */
  #withServer(work) {
    const out = new Out();
    work(this.server, BigInt(1_000_000 + this.now), out);
    this.#carry(out);
    for (const no of [...this.server.sessions.keys()]) {
      const pushed = new Out();
      this.server.pump(no, Math.max(0, ROOM - this.links[no].down.length), pushed);
      this.#carry(pushed);
    }
  }

  /** @param {Out} out */
  #carry(out) {
    for (const [no, frame] of out.frames) {
      const bytes = encodeServerFrame(frame);
      if ("event" in frame) this.downCopies.push([no, bytes]);
      this.links[no].down.push(bytes);
    }
    for (const no of out.closed) this.links[no].closed = true;
    this.violations.push(...out.violations);
  }

  /**
   * Lets a device do something, over the link that it has then.
   * @param {number} no
   * @param {(device: Device, work: Work) => void} action
   */
  #withDevice(no, action) {
    const device = this.devices[no];
    const present = this.lives.length - 1;
    const { link } = device;
    const life = link === undefined ? present : this.links[link].life;
    const work = new Work(this.now, life);
    try {
      action(device, work);
    } catch (why) {
      // A process that died is started again by the next step that connects it.
      if (!(why instanceof Dead)) throw why;
    }
    this.violations.push(...work.violations);
    for (const id of work.applied) {
      if (life === present && !this.server.store.effects.has(id)) this.violations.push(`command ${id} is said to be applied and is not durable`);
    }
    if (link === undefined) return;
    for (const frame of work.out) {
      const bytes = encodeClientFrame(frame);
      if ("command" in frame) this.upCopies.push([link, bytes]);
      this.links[link].up.push(bytes);
    }
    if (work.reconnect && device.link !== undefined) this.#connect(no);
  }

  /** @param {boolean} raise */
  #restoreServer(raise) {
    if (!this.serverBackup) return;
    const store = this.serverBackup.clone();
    this.#withServer((server, _, out) => server.crash(out));
    for (const link of this.links) link.closed = true;
    this.lives[this.lives.length - 1].mailboxes = this.server.store.mailboxes.map((mailbox) => mailbox.clone());
    if (raise) store.epoch = this.server.store.epoch + 1n;
    this.lives.push({ mailboxes: [], effectsAtStart: new Map(store.effects) });
    this.server.store = store;
  }

  /**
   * From here on nothing goes wrong. First sessions go on as they are; then every process connects in its turn (clones throw each other
   * out), and comes to rest.
   */
  #heal() {
    this.server.overloaded = false;
    for (let no = 0; no < this.devices.length; no++) {
      this.devices[no].fuse = undefined;
      this.#settle(no);
    }
    // Three rounds: in the second a process sees what later ones did in the first; in the third nothing is new.
    for (let round = 0; round < 3; round++) {
      for (let no = 0; no < this.devices.length; no++) {
        this.#connect(no);
        this.#settle(no);
        this.devices[no].disconnect();
      }
    }
  }

  /** @param {number} no */
  #settle(no) {
    const device = this.devices[no];
    const user = userOf(device.no);
    for (let round = 0; round < 400; round++) {
      this.now += 5;
      if (device.link === undefined) {
        this.#connect(no);
        continue;
      }
      const at = device.link;
      const link = this.links[at];
      for (let bytes; (bytes = link.up.shift()); ) this.#arriveAtServer(at, bytes, false);
      this.#withServer((server, now, out) => server.commit("good", now, out));
      for (let bytes; (bytes = link.down.shift()); ) this.#arriveAtDevice(at, bytes);
      if (link.closed) device.disconnect();
      this.#withDevice(no, (device, work) => device.transmit(work));
      if (device.done(this.server.store.mailboxes[user].head) && this.server.idle) return;
    }
    throw new Error(`process ${no} does not come to rest`);
  }
}

/**
 * @template T
 * @param {T[]} items
 * @param {number} pick
 * @param {(item: T, no: number) => boolean} filter
 */
function nth(items, pick, filter) {
  const matching = items.map((_, no) => no).filter((no) => filter(items[no], no)).reverse();
  return matching[pick % Math.max(matching.length, 1)];
}

/**
 * @template T
 * @param {T[]} items
 * @param {number} pick
 * @param {boolean} again
 */
function pickCopy(items, pick, again) {
  if (items.length === 0) return undefined;
  const at = items.length - 1 - (pick % items.length);
  return again ? items[at] : items.splice(at, 1)[0];
}
