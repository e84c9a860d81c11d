/**
 * Owns the proof that the client carries what the session decides, under the faults of a browser's network.
 *
 * Run by vitest with a scripted WebSocket and a virtual clock. It never repeats what the vectors prove.
 */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { HELD_LOW, HELD_MAX } from "../../src/unbroken/web/client/follow.js";
import { connect, UnbrokenError } from "../../src/unbroken/web/client/unbroken.js";
import { FakeWebSocket, fakeFetch, messages, subscribed, view } from "./fakes.js";

/** @typedef {import("../../src/unbroken/web/client/unbroken.js").Client} Client */

/** @type {Client[]} */
let clients = [];
const TICKET = { "POST /app/v1/tickets": () => ({ status: 201, body: { ticket: "t1", expires_in: 30 } }) };

/** @param {Record<string, any>} [options] */
function client(options = {}) {
  const made = connect("http://test.example/app", { WebSocket: /** @type {any} */ (FakeWebSocket), fetch: fakeFetch(TICKET).fetch, random: () => 0, ...options });
  clients.push(made);
  return made;
}

/** Let promises run, then timers that are due within `seconds`. */
const pass = (seconds = 0) => vi.advanceTimersByTimeAsync(seconds * 1000);

/** @param {Record<string, any>} [options] */
async function connected(options) {
  const made = client(options);
  await pass();
  FakeWebSocket.last.open();
  FakeWebSocket.last.receive({ type: "hello", protocol: "unbroken.v1", silence_seconds: 40 });
  return made;
}

/** @param {AsyncIterable<any>} follow @param {any[]} into */
async function collect(follow, into) {
  for await (const message of follow) into.push(message.text);
}

beforeEach(() => {
  vi.useFakeTimers();
  FakeWebSocket.reset();
});

afterEach(() => {
  for (const made of clients) made.close();
  clients = [];
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("following", () => {
  test("goes on over a lost connection, each message once, until the end", async () => {
    const unbroken = await connected();
    /** @type {string[]} */
    const got = [];
    const follow = unbroken.follow("a");
    const done = collect(follow, got);
    FakeWebSocket.last.receive(subscribed(1, "a", "7:0"));
    FakeWebSocket.last.receive(messages("a", 1, 3));
    FakeWebSocket.last.drop();
    expect(unbroken.status).toMatchObject({ phase: "waiting", failures: 1 });
    await pass(0.2);
    const second = FakeWebSocket.last;
    expect(FakeWebSocket.made.length).toBe(2);
    second.open();
    expect(second.sent[0]).toMatchObject({ type: "subscribe", after: "7:3" });
    second.receive(subscribed(second.sent[0].id, "a", "7:3"));
    second.receive(messages("a", 3, 3));
    second.receive({ type: "state", stream: view("a", { head: 5, state: "completed" }) });
    await done;
    expect(got).toEqual(["m1", "m2", "m3", "m4", "m5"]);
    expect((await follow.ended).state).toBe("completed");
  });

  test("leaving the loop leaves the stream and cancels nothing", async () => {
    const unbroken = await connected();
    const follow = unbroken.follow("a");
    const socket = FakeWebSocket.last;
    const first = (async () => {
      for await (const message of follow) return message.text;
      return null;
    })();
    socket.receive(subscribed(1, "a", "7:0"));
    socket.receive(messages("a", 1, 3));
    expect(await first).toBe("m1");
    expect(socket.sent.map((frame) => frame.type)).toEqual(["subscribe", "unsubscribe"]);
    await expect(follow.ended).rejects.toMatchObject({ code: "left" });
    expect(() => unbroken.follow("a")).not.toThrow();
  });

  test("a signal leaves too", async () => {
    const unbroken = await connected();
    const leaving = new AbortController();
    unbroken.follow("a", { signal: leaving.signal });
    leaving.abort();
    expect(FakeWebSocket.last.sentOf("unsubscribe")).toEqual([{ type: "unsubscribe", stream: "a" }]);
  });

  test("a stream is followed once", async () => {
    const unbroken = await connected();
    unbroken.follow("a");
    expect(() => unbroken.follow("a")).toThrow(/followed already/);
  });

  test("a refused subscription is thrown where the messages are awaited", async () => {
    const unbroken = await connected();
    const done = collect(unbroken.follow("a"), []);
    FakeWebSocket.last.receive({ type: "error", id: 1, stream: "a", code: "not_found", message: "no such stream" });
    await expect(done).rejects.toMatchObject({ code: "not_found", message: "no such stream" });
  });

  test("a reader that is behind pauses the stream, and gets everything when it goes on", async () => {
    const unbroken = await connected();
    const socket = FakeWebSocket.last;
    /** @type {AsyncIterator<any>} */
    const reading = unbroken.follow("a")[Symbol.asyncIterator]();
    const next = reading.next();
    socket.receive(subscribed(1, "a", "7:0"));
    socket.receive(messages("a", 1, HELD_MAX + 10));
    expect(socket.sentOf("pause").length).toBe(1);
    expect((await next).value?.seq).toBe(1);
    for (let seq = 2; seq <= HELD_MAX + 10; seq += 1) {
      expect((await reading.next()).value?.seq).toBe(seq);
      expect(socket.sentOf("resume").length).toBe(HELD_MAX + 10 - (seq - 1) <= HELD_LOW ? 1 : 0);
    }
  });

  test("a stream that was paused stays so over a new connection", async () => {
    const unbroken = await connected();
    unbroken.follow("a");
    FakeWebSocket.last.receive(subscribed(1, "a", "7:0"));
    FakeWebSocket.last.receive(messages("a", 1, HELD_MAX));
    FakeWebSocket.last.drop();
    await pass(0.2);
    FakeWebSocket.last.open();
    expect(FakeWebSocket.last.sent.map((frame) => frame.type)).toEqual(["subscribe", "pause"]);
  });

  test("a subscription that meets a passing failure is asked for again", async () => {
    const unbroken = await connected();
    unbroken.follow("a");
    const socket = FakeWebSocket.last;
    socket.receive({ type: "error", id: 1, stream: "a", code: "store_unavailable", retryable: true, message: "" });
    expect(socket.sentOf("subscribe").length).toBe(1);
    await pass(0.2);
    expect(socket.sentOf("subscribe").length).toBe(2);
  });

  test("a connection that only ever leaves gaps is given up", async () => {
    const unbroken = await connected();
    unbroken.follow("a", { after: "7:0" });
    const socket = FakeWebSocket.last;
    for (let round = 0; round < 5 && socket.readyState === 1; round += 1) {
      socket.receive(subscribed(socket.sentOf("subscribe").at(-1).id, "a", "7:0"));
      socket.receive(messages("a", 5, 1));
    }
    expect(socket.readyState).toBe(2);
    expect(unbroken.status.phase).toBe("waiting");
  });
});

describe("appending", () => {
  test("resolves when durable, and is sent again over a lost connection with the same numbers", async () => {
    const unbroken = await connected();
    const first = unbroken.append("a", "one");
    const second = unbroken.append("a", ["two", { kind: "json", json: { n: 3 } }]);
    const sent = FakeWebSocket.last.sentOf("append");
    expect(sent.map((frame) => frame.producer.seq)).toEqual([0, 1]);
    FakeWebSocket.last.receive({ type: "acks", acks: [{ id: sent[0].id, first: 1, last: 1 }] });
    expect(await first).toEqual({ first: 1, last: 1, duplicate: false });
    FakeWebSocket.last.drop();
    await pass(0.2);
    FakeWebSocket.last.open();
    expect(FakeWebSocket.last.sentOf("append")).toEqual([sent[1]]);
    FakeWebSocket.last.receive({ type: "acks", acks: [{ id: sent[1].id, first: 2, last: 3, duplicate: true }] });
    expect(await second).toEqual({ first: 2, last: 3, duplicate: true });
  });

  test("a passing refusal is tried again in order, with what followed it", async () => {
    const unbroken = await connected();
    const socket = FakeWebSocket.last;
    const both = [unbroken.append("a", "one"), unbroken.append("a", "two")];
    const [one, two] = socket.sentOf("append");
    socket.receive({ type: "error", id: one.id, stream: "a", code: "overloaded", retryable: true, message: "", detail: { retry_after_seconds: 2 } });
    socket.receive({ type: "error", id: two.id, stream: "a", code: "producer_gap", message: "", detail: { expected: 0 } });
    await pass(1.5);
    expect(socket.sentOf("append").length).toBe(2);
    await pass(1);
    expect(socket.sentOf("append").slice(2)).toEqual([one, two]);
    socket.receive({ type: "acks", acks: [{ id: one.id, first: 1, last: 1 }, { id: two.id, first: 2, last: 2 }] });
    expect((await Promise.all(both)).map((ack) => ack.last)).toEqual([1, 2]);
  });

  test("a refusal for good is thrown, and the next append is by a new producer", async () => {
    const unbroken = await connected();
    const socket = FakeWebSocket.last;
    const refused = unbroken.append("a", "one");
    socket.receive({ type: "error", id: socket.sent[0].id, stream: "a", code: "ended", message: "it has ended" });
    await expect(refused).rejects.toMatchObject({ code: "ended" });
    void unbroken.append("a", "two").catch(() => {});
    const [one, two] = socket.sentOf("append");
    expect(two.producer.seq).toBe(0);
    expect(two.producer.id).not.toBe(one.producer.id);
  });

  test("closing says that the outcome is unknown", async () => {
    const unbroken = await connected();
    const waiting = unbroken.append("a", "one");
    unbroken.close();
    await expect(waiting).rejects.toMatchObject({ code: "closed" });
    await expect(unbroken.append("a", "two")).rejects.toBeInstanceOf(UnbrokenError);
  });

  test("create and cancel are requests too", async () => {
    const unbroken = await connected();
    const created = unbroken.create("a", { kind: "run" });
    const cancelled = unbroken.cancel("a");
    const [create, cancel] = FakeWebSocket.last.sent;
    expect(create).toMatchObject({ type: "create", stream: "a", kind: "run" });
    FakeWebSocket.last.receive({ type: "result", id: create.id, stream: view("a"), created: true });
    FakeWebSocket.last.receive({ type: "result", id: cancel.id, stream: view("a", { cancel_requested: true }) });
    expect((await created).created).toBe(true);
    expect((await cancelled).view.cancel_requested).toBe(true);
  });
});

describe("the connection", () => {
  test("silence is noticed, and what the old socket says later is not heard", async () => {
    const unbroken = await connected();
    /** @type {string[]} */
    const got = [];
    void collect(unbroken.follow("a", { after: "7:0" }), got).catch(() => {});
    const old = FakeWebSocket.last;
    await pass(39.9);
    expect(unbroken.status.phase).toBe("live");
    await pass(0.4);
    expect(old.readyState).toBe(2);
    const next = FakeWebSocket.last;
    expect(next).not.toBe(old);
    next.open();
    old.receive(messages("a", 1, 1));
    old.onclose({ code: 1006 });
    await pass();
    expect(got).toEqual([]);
    expect(unbroken.status.phase).toBe("live");
  });

  test("a frame that is no JSON ends the connection and is come back from", async () => {
    const unbroken = await connected();
    FakeWebSocket.last.receive('{"type":"mess');
    expect(unbroken.status.phase).toBe("waiting");
    await pass(0.2);
    expect(FakeWebSocket.made.length).toBe(2);
  });

  test("a handshake that never ends is given up", async () => {
    const unbroken = client();
    await pass(14);
    expect(FakeWebSocket.made.length).toBe(1);
    await pass(1.2);
    expect(unbroken.status.failures).toBe(1);
    expect(FakeWebSocket.made.length).toBe(2);
  });

  test("a token is sent for a ticket, the ticket is offered, the token is in no address", async () => {
    const { fetch, calls } = fakeFetch(TICKET);
    await connected({ fetch, token: () => "secret" });
    expect(calls).toEqual([{ key: "POST /app/v1/tickets", headers: { Authorization: "Bearer secret" } }]);
    expect(FakeWebSocket.last.protocols).toEqual(["unbroken.v1", "ticket.t1"]);
    expect(FakeWebSocket.last.url).toBe("ws://test.example/app/v1/ws");
  });

  test("a wrong token is refused without a storm, and a right one comes back", async () => {
    let token = "wrong";
    const { fetch, calls } = fakeFetch({ "POST /app/v1/tickets": () => (token === "wrong" ? { status: 401, body: { code: "unauthorized", detail: "no" } } : { status: 201, body: { ticket: "t2" } }) });
    const unbroken = client({ fetch, token: () => token });
    await pass(100);
    expect(unbroken.status).toMatchObject({ phase: "refused", code: "unauthorized" });
    expect(calls.length).toBe(1);
    token = "right";
    unbroken.reconnect();
    await pass();
    FakeWebSocket.last.open();
    expect(unbroken.status.phase).toBe("live");
  });

  test.each(["connecting", "open"])("another one's token takes the place of the one that a connection is %s with", async (phase) => {
    let token = "";
    const { fetch } = fakeFetch({ "POST /app/v1/tickets": () => (token === "" ? { status: 401, body: { code: "unauthorized" } } : { status: 201, body: { ticket: token } }) });
    const unbroken = client({ fetch, token: () => token });
    await pass();
    const former = FakeWebSocket.last;
    if (phase === "open") former.open();
    else former.drop(1006); // the reason is asked for without the token
    token = "another";
    unbroken.reconnect({ anew: true });
    await pass();
    expect(FakeWebSocket.last).not.toBe(former);
    expect(FakeWebSocket.last.protocols).toContain("ticket.another");
    FakeWebSocket.last.open();
    await pass(1);
    expect([unbroken.status.phase, FakeWebSocket.made.length]).toEqual(["live", 2]);
  });

  test("a token that ends is renewed in time, and the connection goes on", async () => {
    let token = "first";
    const { fetch } = fakeFetch(TICKET);
    const unbroken = await connected({ fetch, token: async () => token });
    FakeWebSocket.last.receive({ type: "hello", protocol: "unbroken.v1", silence_seconds: 4000, expires_seconds: 400 });
    token = "second";
    await pass(299);
    expect(FakeWebSocket.last.sentOf("auth")).toEqual([]);
    await pass(2);
    const [sent] = FakeWebSocket.last.sentOf("auth");
    expect(sent).toMatchObject({ token: "second" });
    FakeWebSocket.last.receive({ type: "authorized", id: sent.id, expires_seconds: 4000 });
    await pass(1000);
    expect(FakeWebSocket.last.sentOf("auth").length).toBe(1);
    expect(unbroken.status.phase).toBe("live");
    expect(FakeWebSocket.made.length).toBe(1);
  });

  test("a page that slept through the end comes back with another token, once", async () => {
    let number = 0;
    const { fetch } = fakeFetch(TICKET);
    const unbroken = await connected({ fetch, token: () => `t${(number += 1)}` });
    FakeWebSocket.last.drop(4401);
    await pass(1);
    expect(FakeWebSocket.made.length).toBe(2);
    FakeWebSocket.last.open();
    FakeWebSocket.last.drop(4401);
    await pass(100);
    expect(FakeWebSocket.made.length).toBe(2);
    expect(unbroken.status).toMatchObject({ phase: "refused", code: "unauthorized" });
  });

  test("what another request has shown since is another token too", async () => {
    let token = "first";
    const { fetch } = fakeFetch({ ...TICKET, "GET /app/v1/streams": () => ({ status: 200, body: { streams: [], next: null } }) });
    const unbroken = await connected({ fetch, token: () => token });
    token = "second";
    await unbroken.list();
    FakeWebSocket.last.drop(4401);
    await pass(1);
    expect(FakeWebSocket.made.length).toBe(2);
  });

  test("a refused handshake without a token learns the reason from the ticket endpoint", async () => {
    const { fetch } = fakeFetch({ "POST /app/v1/tickets": () => ({ status: 401, body: { code: "unauthorized" } }) });
    const unbroken = client({ fetch });
    await pass();
    FakeWebSocket.last.drop(1006);
    await pass(60);
    expect(unbroken.status).toMatchObject({ phase: "refused", code: "unauthorized" });
    expect(FakeWebSocket.made.length).toBe(1);
  });

  test("a server that asks for time gets it", async () => {
    const { fetch } = fakeFetch({ "POST /app/v1/tickets": () => ({ status: 503, body: { code: "draining" }, headers: { "Retry-After": "7" } }) });
    client({ fetch });
    await pass();
    FakeWebSocket.last.drop(1006);
    await pass(6.9);
    expect(FakeWebSocket.made.length).toBe(1);
    await pass(0.2);
    expect(FakeWebSocket.made.length).toBe(2);
  });

  test("a socket that opens and says nothing, twice, leads to SSE", async () => {
    const { fetch, calls } = fakeFetch({ ...TICKET, "GET /app/v1/streams": () => ({ status: 200, body: { streams: [], next: null } }) });
    const unbroken = client({ fetch });
    for (let round = 0; round < 2; round += 1) {
      await pass();
      FakeWebSocket.last.open();
      FakeWebSocket.last.drop(1006);
      await pass(0.6);
    }
    expect(FakeWebSocket.made.length).toBe(2);
    expect(calls.map((call) => call.key)).toContain("GET /app/v1/streams");
    expect(unbroken.status).toMatchObject({ phase: "live", transport: "sse" });
  });

  test("a connection that worked is not held against WebSockets", async () => {
    const unbroken = await connected();
    for (let round = 0; round < 4; round += 1) {
      FakeWebSocket.last.drop(1006);
      for (let step = 0; step < 400 && unbroken.status.phase === "waiting"; step += 1) await pass(0.1);
      FakeWebSocket.last.open();
      FakeWebSocket.last.receive({ type: "hello", silence_seconds: 40 });
    }
    expect(FakeWebSocket.made.length).toBe(5);
    expect(unbroken.status.transport).toBe("websocket");
  });

  test("an unreachable server is tried for ever, never refused", async () => {
    const unbroken = client({ fetch: fakeFetch({}).fetch });
    for (let made = 1; made <= 12; made += 1) {
      await pass();
      expect(FakeWebSocket.made.length).toBe(made);
      FakeWebSocket.last.drop(1006);
      for (let step = 0; step < 400 && FakeWebSocket.made.length === made; step += 1) await pass(0.1);
      expect(unbroken.status.failures).toBe(made);
    }
    expect(FakeWebSocket.made.length).toBe(13);
  });

  test("online, visible and shown again come back at once", async () => {
    const platform = new EventTarget();
    const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
    vi.stubGlobal("addEventListener", platform.addEventListener.bind(platform));
    vi.stubGlobal("removeEventListener", platform.removeEventListener.bind(platform));
    vi.stubGlobal("document", document);
    const unbroken = client({ fetch: fakeFetch({}).fetch });
    let made = 1;
    for (const wake of [() => platform.dispatchEvent(new Event("online")), () => platform.dispatchEvent(new Event("pageshow")), () => document.dispatchEvent(new Event("visibilitychange"))]) {
      await pass();
      FakeWebSocket.last.drop(1006);
      await pass(0.01);
      expect(FakeWebSocket.made.length).toBe(made);
      wake();
      await pass();
      made += 1;
      expect(FakeWebSocket.made.length).toBe(made);
    }
    FakeWebSocket.last.drop(1006);
    await pass(0.01);
    document.visibilityState = "hidden";
    document.dispatchEvent(new Event("visibilitychange"));
    expect(FakeWebSocket.made.length).toBe(made);
    unbroken.close();
    platform.dispatchEvent(new Event("online"));
    await pass(60);
    expect(FakeWebSocket.made.length).toBe(made);
  });

  test("a page that was frozen makes one new connection at once, whatever became of the old one", async () => {
    const document = Object.assign(new EventTarget(), { visibilityState: "hidden" });
    vi.stubGlobal("addEventListener", () => {});
    vi.stubGlobal("removeEventListener", () => {});
    vi.stubGlobal("document", document);
    const unbroken = await connected();
    const old = FakeWebSocket.last;
    const before = FakeWebSocket.made.length;
    document.dispatchEvent(new Event("resume"));
    await pass();
    expect(FakeWebSocket.made.length).toBe(before + 1);
    old.drop(1006); // as Chromium does then
    document.dispatchEvent(new Event("resume")); // frozen again, in the handshake
    await pass();
    expect(FakeWebSocket.made.length).toBe(before + 2);
    FakeWebSocket.last.open();
    await pass(5);
    expect(FakeWebSocket.made.length).toBe(before + 2);
    unbroken.close();
    document.dispatchEvent(new Event("resume"));
    await pass(60);
    expect(FakeWebSocket.made.length).toBe(before + 2);
  });

  test("notices and states are told", async () => {
    const unbroken = await connected();
    /** @type {string[]} */
    const told = [];
    unbroken.on("notice", (notice) => told.push(notice.code));
    const stop = unbroken.on("status", (status) => told.push(status.phase));
    FakeWebSocket.last.receive({ type: "notice", code: "degraded" });
    FakeWebSocket.last.drop(1012);
    stop();
    await pass(1);
    expect(told).toEqual(["degraded", "waiting"]);
  });
});

test("a name that a URL would fold into another one is refused before anything is sent", async () => {
  const { encodeName } = await import("../../src/unbroken/web/client/api.js");
  for (const name of ["x/../victim", "..", "a//b", "./a", ""]) expect(() => encodeName(name)).toThrow("segments");
  expect(encodeName("a b/..c/é")).toBe("a%20b/..c/%C3%A9");
});
