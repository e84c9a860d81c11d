/**
 * Owns the proof of what the page keeps of a session: a bounded number of cards, each followed once, or read over SSE.
 *
 * Run by vitest with a client that hands over what a test says. Drawing is proven in a real browser, in tests/e2e.
 */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { CARDS_MAX, SessionModel } from "../../src/unbroken/web/view/session.js";
import { view } from "./fakes.js";

/** @param {string} stream @param {any} [more] */
const run = (stream, more = {}) => view(stream, { run: { type: "task", name: "count" }, ...more });

/** @param {any[]} streams @param {string} [transport] */
async function opened(streams, transport = "websocket") {
  /** @type {Map<string, any>} */
  const follows = new Map();
  /** @type {any} */
  const client = {
    status: { transport },
    streams,
    list: vi.fn(async () => ({ streams: client.streams, next: null })),
    read: vi.fn(async () => ({ first: 1, messages: [{ kind: "progress", json: { progress: 4 } }] })),
    follow: vi.fn((stream, options) => {
      if (follows.has(stream)) throw new Error("followed twice");
      follows.set(stream, options);
      return { leave: () => follows.delete(stream) };
    }),
  };
  const host = { changed: vi.fn(), said: vi.fn() };
  const model = new SessionModel(client, "s", host);
  await model.refresh();
  const tell = (/** @type {string} */ stream, /** @type {number} */ first, /** @type {any[]} */ ...messages) => follows.get(stream).onMessages({ epoch: 7, first, messages });
  const event = (/** @type {string} */ stream, /** @type {any} */ happened) => {
    const options = follows.get(stream);
    if (happened.event === "ended" || happened.event === "failed") follows.delete(stream);
    options.onEvent(happened);
  };
  return { model, client, host, follows, tell, event };
}

/** @type {(() => void)[]} */
let frames = [];
beforeEach(() => {
  frames = [];
  vi.stubGlobal("requestAnimationFrame", (/** @type {() => void} */ frame) => frames.push(frame));
  vi.stubGlobal("cancelAnimationFrame", () => {});
});
afterEach(() => vi.unstubAllGlobals());

describe("an open session", () => {
  test("each run is followed once from near its tail, and what is no run is linked", async () => {
    const { model, client, follows } = await opened([run("b", { head: 1000 }), run("a", { head: 3 }), view("log")]);
    await model.refresh();
    expect([...follows].map(([stream, { after }]) => [stream, after])).toEqual([["b", "7:800"], ["a", "7:0"]]);
    expect(client.follow).toHaveBeenCalledTimes(2);
    expect(model.others.map(({ stream }) => stream)).toEqual(["log"]);
  });

  test("of a long run the summary tells what was before its newest messages, and a card does without one that cannot be had", async () => {
    const { model, client } = await opened([]);
    client.runs = { summary: vi.fn(async (/** @type {string} */ stream) => {
      if (stream === "bad") throw new Error("no");
      return { stream: view(stream, { head: 1000 }), cursor: "7:1000", complete: true, messages: [{ seq: 2, kind: "started", json: { attempt: 4 } }, { seq: 900, kind: "progress", json: { progress: 1 } }] };
    }) };
    client.streams = [run("long", { head: 1000 }), run("bad", { head: 1000 }), run("short", { head: 3 })];
    await model.refresh();
    await model.refresh();
    expect(client.runs.summary.mock.calls.flat()).toEqual(["long", "bad"]);
    expect(model.cards.map(({ attempt, progress }) => [attempt, progress])).toEqual([[4, null], [0, null], [0, null]]);
  });

  test("its cards are bounded", async () => {
    const { model, follows } = await opened(Array.from({ length: 150 }, (_, index) => run(`r${index}`)));
    expect([model.cards.length, follows.size, model.others.length]).toEqual([CARDS_MAX, CARDS_MAX, 150 - CARDS_MAX]);
  });

  test("whatever comes between two frames is one drawing", async () => {
    const { host, tell, model } = await opened([run("a"), run("b")]);
    frames.splice(0).forEach((frame) => frame());
    host.changed.mockClear();
    for (let seq = 1; seq <= 50; seq += 1) {
      tell("a", seq, { kind: "progress", json: { progress: seq, total: 50 } });
      tell("b", seq, { kind: "text", text: "x" });
    }
    frames.splice(0).forEach((frame) => frame());
    expect(host.changed).toHaveBeenCalledTimes(1);
    expect(model.cards.map(({ progress }) => progress?.done)).toEqual([50, undefined]);
  });

  test("an end and a question are said, and a run that has ended is not followed again", async () => {
    const { model, host, tell, event, follows } = await opened([run("a")]);
    tell("a", 1, { kind: "input_required", json: { id: "q", message: "?" } });
    expect(host.said).toHaveBeenLastCalledWith("count waits for an answer");
    event("a", { event: "ended", state: "timed_out", view: run("a", { state: "timed_out", head: 1 }) });
    expect(host.said).toHaveBeenLastCalledWith("count timed out");
    await model.refresh();
    expect(follows.size).toBe(0);
    expect(model.cards[0]?.state).toBe("timed_out");
  });

  test("a run that is gone, and another of its name, are told apart", async () => {
    const { model, client, event, follows } = await opened([run("a", { state: "failed", head: 1 })]);
    event("a", { event: "ended", state: "failed", view: run("a", { state: "failed", head: 0 }) });
    client.streams = [run("a", { epoch: 8 })];
    await model.refresh();
    expect([model.cards[0]?.state, follows.size]).toEqual(["running", 1]);
    client.streams = [];
    await model.refresh();
    expect([model.cards.length, follows.size]).toEqual([0, 0]);
  });

  test("over SSE most are read instead of followed, so that the browser's connections last", async () => {
    const { model, client, follows } = await opened(Array.from({ length: 12 }, (_, index) => run(`r${index}`, { head: 1 })), "sse");
    expect(follows.size).toBe(3);
    expect(model.cards[11]?.progress?.done).toBe(4);
    await model.refresh();
    expect(client.read, "only what is new is read").toHaveBeenCalledTimes(9);
  });

  test("a connection that turns out to be SSE is left to most at once", async () => {
    const { model, client, follows } = await opened(Array.from({ length: 12 }, (_, index) => run(`r${index}`, { head: 1 })));
    expect(follows.size).toBe(12);
    client.status.transport = "sse";
    await model.connected();
    expect(follows.size).toBe(3);
    await model.refresh();
    expect([follows.size, model.cards[11]?.progress?.done]).toEqual([3, 4]);
  });

  test("a server that is away leaves the cards as they were", async () => {
    const { model, client } = await opened([run("a")]);
    client.list.mockRejectedValueOnce(new Error("away"));
    await model.refresh();
    expect([model.error, model.cards.length]).toEqual(["away", 1]);
  });

  test("leaving leaves every run", async () => {
    const { model, follows } = await opened([run("a"), run("b")]);
    model.close();
    expect(follows.size).toBe(0);
  });
});
