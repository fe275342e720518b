// Marks of reading, coalesced: who reads while messages pour in makes one a second for each conversation, not one for each message.

/** The least time between two marks of a conversation, in milliseconds. */
export const MARK_EVERY = 1_000;

export class Marks {
  /** Conversations that were marked within the last second. @type {Map<number, { wanted: number, waiting?: (upTo: number) => void }>} */
  #recent = new Map();

  /**
   * Waits until a mark may be made. Resolves with up to where; with nothing if another call that waits makes it.
   * @param {number} conversation
   * @param {number} seq
   * @returns {Promise<number | undefined>}
   */
  turn(conversation, seq) {
    const mark = this.#recent.get(conversation);
    if (!mark) {
      this.#begin(conversation);
      return Promise.resolve(seq);
    }
    mark.wanted = Math.max(mark.wanted, seq);
    if (mark.waiting) return Promise.resolve(undefined);
    return new Promise((resolve) => (mark.waiting = resolve));
  }

  /** @param {number} conversation */
  #begin(conversation) {
    /** @type {{ wanted: number, waiting?: (upTo: number) => void }} */
    const mark = { wanted: 0 };
    this.#recent.set(conversation, mark);
    setTimeout(() => {
      this.#recent.delete(conversation);
      if (!mark.waiting) return;
      this.#begin(conversation);
      mark.waiting(mark.wanted);
    }, MARK_EVERY);
  }
}
