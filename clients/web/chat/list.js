// A list that keeps only what can be seen, and a little around it, in the document, however long it is.
//
// Rows stand in normal flow between two spacers. Heights are known once a row was shown, and estimated before. What is above may turn out
// taller or lower than estimated: the upper spacer takes the difference, so that nothing that is seen moves, and the scroll position is
// set only where the spacer cannot (at the top, or once the estimates have drifted too far).

import { arrange } from "./dom.js";

/** How far around the visible part rows are kept, in pixels, and how little of that may be left before rows are added. */
const AROUND = 1200;
const AROUND_MIN = 500;
/** Nearer to the end than this counts as being there. */
const END = 24;

/**
 * @template Item
 * @typedef {object} Rows
 * @property {(item: Item) => string} key what names an item over changes
 * @property {(items: Item[], index: number) => number} estimate its likely height in pixels
 * @property {() => HTMLElement} make an empty row
 * @property {(row: HTMLElement, items: Item[], index: number) => void} fill makes a row show an item; called often, changes little
 */

/** @template Item */
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
    /** @type {Map<string, number>} */
    this.heights = new Map();
    /** @type {Map<string, HTMLElement>} */
    this.shown = new Map();
    this.start = 0;
    this.end = 0;
    /** The height of the upper spacer. */
    this.top = 0;
    /** Whether the end is seen, and stays seen as items come. */
    this.following = true;
    this.width = 0;
    /** @type {{ key: string, index: number, bottom: number } | null} the first row that is seen, and how far its end is below the upper edge */
    this.anchor = null;
    scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.observer = new ResizeObserver(() => this.resized());
    this.observer.observe(scroller);
  }

  stop() {
    this.observer.disconnect();
  }

  /** @param {number} index */
  heightAt(index) {
    const item = /** @type {Item} */ (this.items[index]);
    return this.heights.get(this.rows.key(item)) ?? this.rows.estimate(this.items, index);
  }

  /** @param {number} from @param {number} to */
  heightOf(from, to) {
    let height = 0;
    for (let index = from; index < to; index++) height += this.heightAt(index);
    return height;
  }

  /** Shows these items; what is seen stays where it is, or at the end. @param {Item[]} items */
  setItems(items) {
    const anchor = this.anchor;
    this.items = items;
    if (items.length === 0) {
      this.shown.clear();
      this.body.replaceChildren();
      this.start = this.end = 0;
      this.setTop(0);
      this.below.style.height = "0";
      return;
    }
    if (this.following || !anchor) return this.toEnd();
    let index = items.findIndex((item) => this.rows.key(item) === anchor.key);
    if (index < 0) index = Math.min(anchor.index, items.length - 1);
    this.render(index, anchor.bottom);
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
    for (let attempt = 0; attempt < 2; attempt++) this.render(index, offset + this.heightAt(index));
    this.following = this.atEnd();
  }

  /** The items of which the end can be seen, as a range. @returns {[number, number]} */
  visible() {
    const edge = this.scroller.getBoundingClientRect();
    let [from, to] = [this.end, this.start];
    for (let index = this.start; index < this.end; index++) {
      const row = this.rowAt(index);
      if (!row) continue;
      const { bottom } = row.getBoundingClientRect();
      if (bottom <= edge.top || bottom > edge.bottom + END) continue;
      from = Math.min(from, index);
      to = index + 1;
    }
    return [from, to];
  }

  /** @param {number} index */
  rowAt(index) {
    const item = this.items[index];
    return item === undefined ? undefined : this.shown.get(this.rows.key(item));
  }

  atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return this.end === this.items.length && scrollHeight - scrollTop - clientHeight < END;
  }

  /** How far away the end is, in pixels, as far as known. */
  get toGo() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  scrolled() {
    if (this.items.length === 0) return;
    this.following = this.atEnd();
    const { scrollTop, clientHeight } = this.scroller;
    const from = this.lead.offsetHeight + this.top;
    const to = from + this.body.offsetHeight;
    const enoughAbove = this.start === 0 ? this.top === 0 : from <= scrollTop - AROUND_MIN;
    const enoughBelow = this.end === this.items.length || to >= scrollTop + clientHeight + AROUND_MIN;
    if (enoughAbove && enoughBelow) this.remember();
    else if (from > scrollTop + clientHeight || to < scrollTop) this.jumped();
    else {
      this.remember();
      if (this.anchor) this.render(this.anchor.index, this.anchor.bottom);
    }
  }

  /** To a place far from all rows, with the scroll bar or a key. */
  jumped() {
    let at = this.lead.offsetHeight - this.scroller.scrollTop;
    let index = 0;
    while (index < this.items.length - 1 && at + this.heightAt(index) <= 0) {
      at += this.heightAt(index);
      index += 1;
    }
    this.render(index, at + this.heightAt(index));
  }

  resized() {
    if (this.items.length === 0) return;
    const { clientWidth } = this.scroller;
    if (clientWidth === 0) return;
    if (clientWidth !== this.width) {
      this.width = clientWidth;
      this.heights.clear();
    }
    if (this.following || !this.anchor) this.toEnd();
    else this.render(this.anchor.index, this.anchor.bottom);
  }

  /** Lays the rows around an item, whose lower edge is to be `bottom` pixels below the upper edge of what is seen.
   * @param {number} index @param {number} bottom */
  render(index, bottom) {
    const { scroller, items, rows } = this;
    const view = scroller.clientHeight;
    let start = index;
    let end = index + 1;
    for (let up = this.heightAt(index) - bottom; start > 0 && up < AROUND; start--) up += this.heightAt(start - 1);
    for (let down = bottom - view; end < items.length && down < AROUND; end++) down += this.heightAt(end);
    // Spacers as far as known first: a document that is too short for a moment would lose its scroll position.
    this.below.style.height = `${this.heightOf(end, items.length)}px`;
    const moved = start < this.start ? -this.heightOf(start, Math.min(this.start, items.length)) : this.heightOf(this.start, start);
    this.setTop(Math.max(0, this.top + moved));
    this.fill(start, end);

    // Measured all at once: one layout.
    let before = 0;
    for (let at = start; at < end; at++) {
      const height = this.rowAt(at)?.getBoundingClientRect().height ?? 0;
      this.heights.set(rows.key(/** @type {Item} */ (items[at])), height);
      if (at <= index) before += height;
    }
    const lead = this.lead.offsetHeight;
    this.below.style.height = `${this.heightOf(end, items.length)}px`;
    let top = scroller.scrollTop + bottom - before - lead;
    const likely = this.heightOf(0, start);
    // The spacer must be nothing at the beginning, and leave room for what is above before it.
    if (start === 0 || top < AROUND_MIN || top > 2 * likely + view) top = likely;
    this.setTop(top);
    const wanted = lead + top + before - bottom;
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
      const key = rows.key(/** @type {Item} */ (items[index]));
      const row = this.shown.get(key) ?? rows.make();
      rows.fill(row, items, index);
      shown.set(key, row);
      wanted.push(row);
    }
    this.shown = shown;
    this.start = start;
    this.end = end;
    arrange(this.body, wanted);
  }

  /** @param {number} top */
  setTop(top) {
    this.top = top;
    this.above.style.height = `${top}px`;
  }

  /** Notes what is seen, to hold on to when something changes. */
  remember() {
    const edge = this.scroller.getBoundingClientRect().top;
    for (let index = this.start; index < this.end; index++) {
      const bottom = (this.rowAt(index)?.getBoundingClientRect().bottom ?? 0) - edge;
      if (bottom > END || index === this.end - 1) {
        this.anchor = { key: this.rows.key(/** @type {Item} */ (this.items[index])), index, bottom };
        return;
      }
    }
  }
}
