/**
 * Owns the proof of what the page keeps of a stream: a dense, bounded window, and rules that count honestly.
 *
 * Run by vitest with a client that hands over what a test says. Drawing is proven in a real browser, in tests/e2e.
 */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { UnbrokenError } from "../../src/unbroken/web/client/errors.js";
import { PAGE_MESSAGES, StreamModel } from "../../src/unbroken/web/view/model.js";
import { view } from "./fakes.js";

/** @type {(() => void)[]} */
let frames = [];
/** Draw until nothing asks for a frame any more. */
const draw = () => {
  while (frames.length > 0) frames.shift()?.();
};

/** @param {any} stored @param {any} [seen] @param {Record<string, any>} [calls] */
async function opened(stored, seen = null, calls = {}) {
  /** @type {any} */
  const drawing = { reset: vi.fn(), append: vi.fn(), prepend: vi.fn(), dropBelow: vi.fn(), remark: vi.fn() };
  /** @type {any} */
  const client = {
    state: async () => stored,
    follow: vi.fn((_name, options) => {
      client.options = options;
      return { leave: vi.fn() };
    }),
    ...calls,
  };
  const kept = new Map(seen === null ? [] : [["unbroken.seen:a", JSON.stringify(seen)]]);
  const storage = /** @type {any} */ ({ getItem: (/** @type {string} */ key) => kept.get(key) ?? null, setItem: (/** @type {string} */ key, /** @type {string} */ value) => kept.set(key, value) });
  const model = new StreamModel(client, "a", { changed: () => {}, storage });
  model.attach(drawing);
  await model.open();
  const feed = (/** @type {number} */ first, /** @type {number} */ count, size = 1) =>
    client.options.onMessages({ epoch: 7, first, messages: Array.from({ length: count }, () => ({ text: "x".repeat(size) })) });
  const event = (/** @type {any} */ happened) => client.options.onEvent(happened);
  return { model, client, drawing, feed, event, kept };
}

/** @param {StreamModel} model */
const words = (model) => model.items.flatMap((item) => ("mark" in item ? [item.mark.words] : []));
/** @param {StreamModel} model */
const seqs = (model) => model.items.flatMap((item) => ("seq" in item ? [item.seq] : []));

beforeEach(() => {
  frames = [];
  vi.useFakeTimers({ now: 1_000_000, toFake: ["Date", "setTimeout", "clearTimeout"] });
  vi.stubGlobal("requestAnimationFrame", (/** @type {() => void} */ frame) => frames.push(frame));
  vi.stubGlobal("cancelAnimationFrame", () => {});
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("where it begins", () => {
  test.each([
    ["a short stream from its first message", view("a", { head: 20 }), null, "7:0"],
    ["a long stream near its tail", view("a", { head: 12_000 }), null, "7:11500"],
    ["a trimmed stream at what is left", view("a", { head: 12_000, first: 11_901 }), null, "7:11900"],
    ["a reload meets what was shown", view("a", { head: 12_000 }), { epoch: 7, seq: 11_200, at: 0 }, "7:10700"],
    ["a long absence is not read whole", view("a", { head: 12_000 }), { epoch: 7, seq: 100, at: 0 }, "7:9000"],
    ["another epoch's note counts for nothing", view("a", { head: 12_000 }), { epoch: 6, seq: 100, at: 0 }, "7:11500"],
    ["a note beyond the head counts for nothing", view("a", { head: 20 }), { epoch: 7, seq: 21, at: 0 }, "7:0"],
  ])("%s", async (_name, stored, seen, after) => {
    const { client } = await opened(stored, seen);
    expect(client.options.after).toBe(after);
  });

  test("a server that is away is asked again, an unknown stream is not", async () => {
    let asked = 0;
    const away = await opened(null, null, {
      state: async () => {
        asked += 1;
        if (asked === 1) throw new UnbrokenError("unreachable", "", { retryable: true });
        return view("a", { head: 1 });
      },
    });
    expect(away.model.phase).toBe("loading");
    await vi.advanceTimersByTimeAsync(1100);
    expect(away.model.phase).toBe("following");
    const unknown = await opened(null, null, { state: async () => Promise.reject(new UnbrokenError("not_found")) });
    expect(unknown.model.phase).toBe("missing");
  });

  test("a link opened before its stream began shows it when it does", async () => {
    let asked = 0;
    const early = await opened(null, null, {
      state: async () => {
        asked += 1;
        if (asked <= 2) throw new UnbrokenError("not_found");
        return view("a", { head: 1 });
      },
    });
    expect(early.model.phase).toBe("missing");
    await vi.advanceTimersByTimeAsync(2100);
    expect(early.model.phase).toBe("following");
  });
});

describe("what a reload says", () => {
  test("the rule stands behind the last message shown before", async () => {
    const { model, feed } = await opened(view("a", { head: 12 }), { epoch: 7, seq: 8, at: 996_000 });
    feed(1, 12);
    draw();
    expect(model.items.findIndex((item) => "mark" in item)).toBe(8);
    expect(words(model)).toEqual(["resumed at 8 · away 4.0 s · 4 caught up · 0 lost"]);
  });

  test("messages that are only left to be scrolled to are not lost", async () => {
    const { model, feed } = await opened(view("a", { head: 12_000 }), { epoch: 7, seq: 100, at: 1_000_000 });
    feed(9001, 3000);
    draw();
    expect(words(model)).toEqual(["resumed at 100 · away 0.0 s · 3,000 caught up · 8,900 more above · 0 lost"]);
  });

  test("messages that were trimmed meanwhile are lost", async () => {
    const { model, feed } = await opened(view("a", { head: 300, first: 151 }), { epoch: 7, seq: 100, at: 1_000_000 });
    feed(151, 150);
    draw();
    expect(words(model)).toEqual(["resumed at 100 · away 0.0 s · 150 caught up · 50 lost"]);
    expect(/** @type {any} */ (model.items[0]).mark.loud).toBe(true);
  });

  test("another epoch is told loudly", async () => {
    const { model } = await opened(view("a", { head: 3 }), { epoch: 6, seq: 2, at: 0 });
    draw();
    expect(words(model)[0]).toContain("new stream of the same name");
  });

  test("a stream that had ended before is no resumption", async () => {
    const { model, feed } = await opened(view("a", { head: 8, state: "completed" }), { epoch: 7, seq: 8, at: 0 });
    feed(1, 8);
    draw();
    expect(words(model)).toEqual([]);
  });
});

describe("while it is open", () => {
  test("a lost connection is told with what it has cost", async () => {
    const { model, feed, event } = await opened(view("a", { head: 5 }));
    feed(1, 5);
    draw();
    model.disconnected();
    vi.setSystemTime(1_002_500);
    event({ event: "subscribed", view: view("a", { head: 9 }) });
    feed(6, 3);
    draw();
    expect(words(model)).toEqual(["resumed at 5 · away 2.5 s · catching up 3 of 4"]);
    expect(model.behind).toBe(1);
    feed(9, 1);
    draw();
    expect(words(model)).toEqual(["resumed at 5 · away 2.5 s · 4 caught up · 0 lost"]);
    expect(seqs(model)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test("trimmed messages are told, and count as lost", async () => {
    const { model, feed, event } = await opened(view("a", { head: 5 }));
    feed(1, 5);
    model.disconnected();
    event({ event: "trimmed", missing: 3, first: 9 });
    event({ event: "subscribed", view: view("a", { head: 10, first: 9 }) });
    feed(9, 2);
    draw();
    expect(words(model)).toEqual(["3 messages can no longer be had: trimmed before 9", "resumed at 5 · away 0.0 s · 2 caught up · 3 lost"]);
  });

  test("an epoch that changes empties the window", async () => {
    const { model, feed, event, drawing } = await opened(view("a", { head: 5 }));
    feed(1, 5);
    draw();
    event({ event: "epoch_changed", epoch: 8 });
    event({ event: "subscribed", view: view("a", { epoch: 8, head: 1 }) });
    draw();
    expect(drawing.reset).toHaveBeenLastCalledWith([]);
    expect(seqs(model)).toEqual([]);
    expect(words(model)[0]).toContain("made anew");
  });

  test("one frame draws all that came since the last", async () => {
    const { feed, drawing } = await opened(view("a", { head: 0 }));
    draw();
    for (let seq = 1; seq <= 100; seq += 1) feed(seq, 1);
    expect(frames.length).toBe(1);
    draw();
    expect(drawing.append).toHaveBeenCalledTimes(1);
    expect(drawing.append.mock.calls[0][0].length).toBe(100);
  });

  test("the window asks to drop its far end, in messages and in characters", async () => {
    const { feed, drawing } = await opened(view("a", { head: 0 }));
    for (let first = 1; first <= 5001; first += 1000) {
      feed(first, 1000);
      draw();
    }
    expect(drawing.dropBelow).toHaveBeenCalledTimes(1);
    expect(drawing.dropBelow.mock.calls[0][0]).toBe(1251);
    const large = await opened(view("a", { head: 0 }));
    large.feed(1, 30, 100_000);
    draw();
    expect(large.drawing.dropBelow).toHaveBeenCalledTimes(1);
  });

  test("a view that is paused holds a bounded rest, and goes on at the tail", async () => {
    const { model, feed, drawing } = await opened(view("a", { head: 3 }));
    feed(1, 3);
    draw();
    model.pause(true);
    for (let first = 4; first < 20_004; first += 1000) {
      feed(first, 1000);
      draw();
    }
    expect(seqs(model)).toEqual([1, 2, 3]);
    model.pause(false);
    draw();
    const shown = seqs(model);
    expect(drawing.reset).toHaveBeenCalled();
    expect(shown.at(-1)).toBe(20_003);
    expect(shown.length).toBeLessThanOrEqual(5000);
    expect(shown).toEqual(Array.from({ length: shown.length }, (_, index) => (shown[0] ?? 0) + index));
    expect(model.oldest).toBe(shown[0]);
  });

  test("a reader away from the tail is told how many are new", async () => {
    const { model, feed } = await opened(view("a", { head: 10 }));
    feed(1, 10);
    draw();
    model.tail(false);
    feed(11, 7);
    draw();
    expect(model.unread).toBe(7);
    model.tail(true);
    expect(model.unread).toBe(0);
  });

  test("older pages are read until they meet the window, in as many answers as it takes", async () => {
    const read = vi.fn(async (_name, { after, limit }) => {
      const seq = Number(after.split(":")[1]);
      return { first: seq + 1, messages: Array.from({ length: Math.min(limit, 200) }, (_, index) => ({ text: `m${seq + 1 + index}` })) };
    });
    const { model, feed, drawing } = await opened(view("a", { head: 2000 }), null, { read });
    feed(1501, 500);
    draw();
    expect(model.hasOlder).toBe(true);
    await model.loadOlder();
    expect(read.mock.calls.map((call) => [call[1].after, call[1].limit])).toEqual([["7:1000", PAGE_MESSAGES], ["7:1200", 300], ["7:1400", 100]]);
    expect(drawing.prepend.mock.calls[0][0].length).toBe(500);
    expect(seqs(model)[0]).toBe(1001);
    expect(seqs(model)).toEqual(Array.from({ length: 1000 }, (_, index) => 1001 + index));
  });

  test("a page that could not be read whole is not shown with a hole", async () => {
    const read = vi.fn(async () => (read.mock.calls.length > 1 ? { first: 0, messages: [] } : { first: 1001, messages: [{ text: "x" }] }));
    const { model, feed, drawing } = await opened(view("a", { head: 2000 }), null, { read });
    feed(1501, 500);
    draw();
    await model.loadOlder();
    expect(drawing.prepend).not.toHaveBeenCalled();
    expect(seqs(model)[0]).toBe(1501);
  });

  test("what was shown is noted for the next reload", async () => {
    const { model, feed, kept } = await opened(view("a", { head: 5 }));
    feed(1, 5);
    model.save();
    expect(kept.get("unbroken.seen:a")).toBeUndefined();
    draw();
    model.save();
    expect(JSON.parse(kept.get("unbroken.seen:a") ?? "")).toEqual({ epoch: 7, seq: 5, at: 1_000_000 });
  });
});
