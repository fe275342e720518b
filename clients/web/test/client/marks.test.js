// One mark of reading a second and conversation, and none forgotten.

import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { Marks, MARK_EVERY } from "../../src/marks.js";

test("the first mark goes at once, the rest together a second later, each conversation by itself", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const marks = new Marks();
    assert.equal(await marks.turn(1, 1), 1);
    const waiting = marks.turn(1, 2);
    assert.equal(await marks.turn(1, 4), undefined);
    assert.equal(await marks.turn(1, 3), undefined);
    assert.equal(await marks.turn(2, 9), 9);
    mock.timers.tick(MARK_EVERY);
    assert.equal(await waiting, 4);
    const again = marks.turn(1, 5);
    mock.timers.tick(MARK_EVERY);
    assert.equal(await again, 5);
    mock.timers.tick(MARK_EVERY);
    assert.equal(await marks.turn(1, 6), 6, "after a second of nothing it goes at once again");
  } finally {
    mock.timers.reset();
  }
});
