// A list that keeps only what can be seen, and a little around it, in the document, however long it is.
//
// Rows stand in normal flow between two spacers. A row's height is known once it was shown, and estimated before; before the first item
// there is room for what is known to exist and was not read yet. So the scroll bar tells the truth, and what comes above takes up room
// that was kept for it. What turns out taller or lower than estimated is taken from the upper spacer: nothing that is seen moves, and the
// scroll position is not set while somebody scrolls, which would break a browser's smooth scrolling. Once the list rests, the spacer is
// set to what is likely.

import { arrange } from "./dom.js";

/** How far around the visible part rows are kept, in pixels, and how little of that may be left before rows are added. */
const AROUND = 1200;
const AROUND_MIN = 500;
/** So little at first: what is seen is painted sooner, and the rest is laid out after that. */
const AROUND_FIRST = 100;
/** Nearer to the end than this counts as being there. */
const END = 24;
/** The list rests when it was not scrolled for so long, in milliseconds. */
const REST = 150;

/**
 * @template Item
 * @typedef {object} Rows
 * @property {(item: Item) => string} key what names an item over changes
 * @property {(items: Item[], index: number) => number} estimate its likely height in pixels
 * @property {(items: Item[]) => number} before how many items there are before the first, as far as known
 * @property {() => HTMLElement} make an empty row
 * @property {(row: HTMLElement, items: Item[], index: number) => void} fill makes a row show an item; called often, changes little
 * @property {() => void} rendered other rows may stand in the document now
 */

/** @template {object} Item */
export class VirtualList {
  /** @param {HTMLElement} scroller @param {HTMLElement} lead stands above all rows, with a height that never changes
   * @param {Rows<Item>} rows */
  constructor(scroller, lead, rows) {
    this.scroller = scroller;
    this.lead = lead;
    this.rows = rows;
    this.above = document.createElement("div");
    this.below = document.createElement("div");
    this.body = document.createElement("div");
    this.above.className = this.below.className = "spacer";
    this.body.className = "rows";
    scroller.append(lead, this.above, this.body, this.below);
    /** @type {Item[]} */
    this.items = [];
    /** The height of each item, measured or estimated. @type {number[]} */
    this.sizes = [];
    /** The room before the first item, for those that were not read yet. */
    this.reserve = 0;
    /** @type {Map<string, number>} */
    this.measured = new Map();
    /** @type {WeakMap<Item, number>} */
    this.estimated = new WeakMap();
    /** @type {Map<string, HTMLElement>} */
    this.shown = new Map();
    this.start = 0;
    this.end = 0;
    /** The height of the upper spacer. */
    this.top = 0;
    /** Whether the end is seen, and stays seen as items come. */
    this.following = true;
    this.width = 0;
    /** How far around the visible part rows are kept; less until the first were painted. */
    this.around = AROUND_FIRST;
    /** Whether the first rows stand and were not painted yet. */
    this.unpainted = false;
    /** Where the list last put the scroll position. */
    this.placed = 0;
    /** @type {{ key: string, index: number, bottom: number } | null} the first row that is seen, and how far its end is below the upper edge */
    this.anchor = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} running while somebody scrolls */
    this.moving = undefined;
    scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.observer = new ResizeObserver(() => this.resized());
    this.observer.observe(scroller);
  }

  stop() {
    this.observer.disconnect();
    clearTimeout(this.moving);
  }

  /** @param {number} index */
  keyAt(index) {
    return this.rows.key(/** @type {Item} */ (this.items[index]));
  }

  /** @param {number} index */
  sizeAt(index) {
    return this.sizes[index] ?? 0;
  }

  /** @param {number} from @param {number} to */
  heightOf(from, to) {
    let height = 0;
    for (let index = from; index < to; index++) height += this.sizeAt(index);
    return height;
  }

  /** Looks every height up again. */
  size() {
    const { items } = this;
    this.sizes = items.map((item, index) => {
      const measured = this.measured.get(this.rows.key(item));
      if (measured !== undefined) return measured;
      const known = this.estimated.get(item) ?? this.rows.estimate(items, index);
      this.estimated.set(item, known);
      return known;
    });
    this.reserve = items.length === 0 ? 0 : (this.rows.before(items) * this.heightOf(0, items.length)) / items.length;
  }

  /** Shows these items; what is seen stays where it is, or at the end. @param {Item[]} items */
  setItems(items) {
    this.catchUp();
    const anchor = this.anchor;
    this.items = items;
    this.size();
    if (items.length === 0) {
      this.shown.clear();
      this.body.replaceChildren();
      this.start = this.end = 0;
      this.setTop(0);
      this.below.style.height = "0";
      return;
    }
    if (this.around !== AROUND) this.widen();
    if (this.following || !anchor) return this.toEnd();
    let index = items.findIndex((item) => this.rows.key(item) === anchor.key);
    if (index < 0) index = Math.min(anchor.index, items.length - 1);
    this.render(index, anchor.bottom);
  }

  /** Rows around the first ones, once those were painted. */
  widen() {
    if (this.unpainted) return;
    this.unpainted = true;
    // The frame after the next begins once that was painted.
    requestAnimationFrame(() => requestAnimationFrame(() => {
      this.unpainted = false;
      this.around = AROUND;
      // Whoever scrolls meanwhile gets them by that.
      this.moving ??= setTimeout(() => this.rest());
    }));
  }

  toEnd() {
    this.following = true;
    if (this.items.length === 0) return;
    this.render(this.items.length - 1, this.scroller.clientHeight);
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.remember();
  }

  /** Puts the top of an item `offset` pixels below the upper edge. @param {number} index @param {number} offset */
  toItem(index, offset) {
    this.following = false;
    // The height is known only after a first attempt.
    for (let attempt = 0; attempt < 2; attempt++) this.render(index, offset + this.sizeAt(index));
    this.following = this.atEnd();
  }

  /** The items of which the end can be seen, as a range. @returns {[number, number]} */
  visible() {
    const edge = this.scroller.getBoundingClientRect();
    let [from, to] = [this.end, this.start];
    for (let index = this.start; index < this.end; index++) {
      const bottom = this.rowAt(index)?.getBoundingClientRect().bottom ?? 0;
      if (bottom <= edge.top || bottom > edge.bottom + END) continue;
      from = Math.min(from, index);
      to = index + 1;
    }
    return [from, to];
  }

  /** @param {number} index */
  rowAt(index) {
    return index < this.items.length ? this.shown.get(this.keyAt(index)) : undefined;
  }

  atEnd() {
    return this.end === this.items.length && this.toGo < END;
  }

  /** How far away the end is, in pixels, as far as known. */
  get toGo() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  /** How far the first item's top is above the upper edge of what is seen; less than nothing if it is below. */
  get aboveEdge() {
    return this.scroller.scrollTop - this.lead.offsetHeight - (this.top - this.heightOf(0, this.start));
  }

  scrolled() {
    if (this.items.length === 0) return;
    // The list itself has scrolled to its first rows: those are painted before anything else is done.
    if (this.unpainted && Math.abs(this.scroller.scrollTop - this.placed) < 1) return;
    this.around = AROUND;
    clearTimeout(this.moving);
    this.moving = setTimeout(() => this.rest(), REST);
    this.following = this.atEnd();
    const { scrollTop, clientHeight } = this.scroller;
    const from = this.lead.offsetHeight + this.top;
    const to = from + this.body.offsetHeight;
    const enoughAbove = this.start === 0 || from <= scrollTop - AROUND_MIN;
    const enoughBelow = this.end === this.items.length || to >= scrollTop + clientHeight + AROUND_MIN;
    if (from > scrollTop + clientHeight || to < scrollTop) return this.jumped();
    this.remember();
    if (!(enoughAbove && enoughBelow) && this.anchor) this.render(this.anchor.index, this.anchor.bottom);
  }

  /** To a place far from all rows, with the scroll bar or a key. */
  jumped() {
    let at = this.lead.offsetHeight + this.reserve - this.scroller.scrollTop;
    let index = 0;
    while (index < this.items.length - 1 && at + this.sizeAt(index) <= 0) {
      at += this.sizeAt(index);
      index += 1;
    }
    this.render(index, at + this.sizeAt(index));
  }

  /** Takes in that somebody has scrolled where the event that says so is still to come: what follows would take them back. */
  catchUp() {
    const moved = this.items.length > 0 && Math.abs(this.scroller.scrollTop - this.placed) >= 1;
    if (moved) this.scrolled();
    return moved;
  }

  rest() {
    this.moving = undefined;
    if (this.catchUp()) return;
    if (this.anchor && this.anchor.index < this.items.length) this.render(this.anchor.index, this.anchor.bottom);
  }

  resized() {
    const { clientWidth } = this.scroller;
    if (this.items.length === 0 || clientWidth === 0) return;
    if (clientWidth !== this.width) {
      this.width = clientWidth;
      this.measured.clear();
      this.estimated = new WeakMap();
      this.size();
    }
    if (this.following || !this.anchor) this.toEnd();
    else this.render(this.anchor.index, this.anchor.bottom);
  }

  /** Lays the rows around an item, whose lower edge is to be `bottom` pixels below the upper edge of what is seen.
   * @param {number} index @param {number} bottom */
  render(index, bottom) {
    const { scroller, items } = this;
    const view = scroller.clientHeight;
    // From an item that is far away to one that is near: only those have to be laid out.
    while (index > 0 && bottom - this.sizeAt(index) > view) {
      bottom -= this.sizeAt(index);
      index -= 1;
    }
    while (index < items.length - 1 && bottom < 0) {
      index += 1;
      bottom += this.sizeAt(index);
    }
    let start = index;
    let end = index + 1;
    for (let up = this.sizeAt(index) - bottom; start > 0 && up < this.around; start--) up += this.sizeAt(start - 1);
    for (let down = bottom - view; end < items.length && down < this.around; end++) down += this.sizeAt(end);
    // Spacers as far as known first: a document that is too short for a moment would lose its scroll position.
    this.below.style.height = `${this.heightOf(end, items.length)}px`;
    const before = this.reserve + this.heightOf(0, start);
    this.setTop(Math.max(this.top, before));
    this.fill(start, end);

    // Measured all at once: one layout.
    let height = 0;
    for (let at = start; at < end; at++) {
      const size = this.rowAt(at)?.getBoundingClientRect().height ?? 0;
      this.measured.set(this.keyAt(at), size);
      this.sizes[at] = size;
      if (at <= index) height += size;
    }
    const lead = this.lead.offsetHeight;
    const held = scroller.scrollTop + bottom - height - lead;
    // While somebody scrolls the spacer takes all differences, if it can: it must leave room for what is before.
    const enough = before < AROUND_MIN ? held >= 0 : held >= AROUND_MIN;
    const top = this.moving !== undefined && enough ? held : before;
    this.setTop(top);
    const wanted = lead + top + height - bottom;
    if (Math.abs(scroller.scrollTop - wanted) >= 0.5) scroller.scrollTop = wanted;
    this.remember();
  }

  /** Makes the rows of a range, and only those, stand in the document. @param {number} start @param {number} end */
  fill(start, end) {
    const { items, rows } = this;
    /** @type {HTMLElement[]} */
    const wanted = [];
    /** @type {Map<string, HTMLElement>} */
    const shown = new Map();
    for (let index = start; index < end; index++) {
      const key = this.keyAt(index);
      const row = this.shown.get(key) ?? rows.make();
      rows.fill(row, items, index);
      shown.set(key, row);
      wanted.push(row);
    }
    this.shown = shown;
    this.start = start;
    this.end = end;
    arrange(this.body, wanted);
    rows.rendered();
  }

  /** @param {number} top */
  setTop(top) {
    this.top = top;
    this.above.style.height = `${top}px`;
  }

  /** Notes what is seen, to hold on to when something changes. */
  remember() {
    this.placed = this.scroller.scrollTop;
    const edge = this.scroller.getBoundingClientRect().top;
    for (let index = this.start; index < this.end; index++) {
      const bottom = (this.rowAt(index)?.getBoundingClientRect().bottom ?? 0) - edge;
      if (bottom > END || index === this.end - 1) {
        this.anchor = { key: this.keyAt(index), index, bottom };
        return;
      }
    }
  }
}
