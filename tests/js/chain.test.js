/**
 * Owns the proof that the client believes no server whose chain does not hold.
 *
 * Run by vitest with a scripted WebSocket and real time. What a chain is, the vectors say.
 */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { chain, genesis, toHex } from "../../src/unbroken/web/client/chain.js";
import { Salts } from "../../src/unbroken/web/client/salts.js";
import { connect } from "../../src/unbroken/web/client/unbroken.js";
import { FakeWebSocket, fakeFetch, subscribed, view } from "./fakes.js";

/** @type {import("../../src/unbroken/web/client/unbroken.js").Client[]} */
let clients = [];
const TICKET = { "POST /app/v1/tickets": () => ({ status: 201, body: { ticket: "t1", expires_in: 30 } }) };

function client() {
  const made = connect("http://test.example/app", { WebSocket: /** @type {any} */ (FakeWebSocket), fetch: fakeFetch(TICKET).fetch, random: () => 0 });
  clients.push(made);
  return made;
}

/** @param {AsyncIterable<any>} follow @param {any[]} into */
async function collect(follow, into) {
  for await (const message of follow) into.push(message.text);
}

beforeEach(() => FakeWebSocket.reset());

afterEach(() => {
  for (const made of clients) made.close();
  clients = [];
});

describe("the hash chain", () => {
  const encoded = /** @type {[string, string, string]} */ (['{"time":1,"text":"a"}', '{"time":1,"text":"b"}', '{"time":1,"text":"c"}']);
  /** @param {string[]} list @param {string} hash @param {number} first */
  const frame = (list, hash, first) => `{"type":"messages","stream":"a","epoch":7,"first":${first},"hash":"${hash}","messages":[${list.join(",\n")}]}`;

  const salts = btoa(String.fromCharCode(0, 0, 0, 0, 0, ...Array(16).keys()));
  /** @param {number} seq the chain behind so many of the messages, as an honest server has it */
  const head = async (seq) => toHex(await chain(await genesis("local", "a", 7), 1, encoded.slice(0, seq), new Salts(salts)));

  /**
   * Follow three messages in two frames and to the end, told by a server that `lie` lets change what it says.
   *
   * @param {boolean | Record<number, string>} verify
   * @param {Record<string, any>} lie
   */
  async function followed(verify, lie) {
    const heads = await Promise.all([0, 1, 2, 3].map(head));
    const unbroken = client();
    await vi.waitFor(() => FakeWebSocket.last.open());
    /** @type {string[]} */
    const got = [];
    const done = collect(unbroken.follow("a", { verify }), got).then(
      () => null,
      (error) => [error.code, error.detail.seq, error.detail.last],
    );
    const list = lie["list"] ?? encoded;
    FakeWebSocket.last.receive({ ...subscribed(1, "a", "7:0", lie["start"] ?? heads[0]), salts });
    FakeWebSocket.last.receive(frame(list.slice(0, 1), lie["one"] ?? heads[1], 1));
    FakeWebSocket.last.receive(frame(list, lie["all"] ?? heads[list.length], 1)); // overlaps: only what is new is handed on and chained
    FakeWebSocket.last.receive({ type: "state", stream: view("a", { head: list.length, state: "completed" }) });
    return { failed: await done, got };
  }

  const lies = /** @type {[string, Record<string, any>, any[] | null, string[]][]} */ ([
    ["an honest server", {}, null, ["a", "b", "c"]],
    ["a changed message", { list: [encoded[0], '{"time":1,"text":"B"}', encoded[2]] }, ["verification", 2, 3], ["a"]],
    ["swapped messages", { list: [encoded[0], encoded[2], encoded[1]] }, ["verification", 2, 3], ["a"]],
    ["another chain", { one: "00".repeat(32) }, ["verification", 1, 1], []],
    ["no chain in the first place", { start: "" }, ["verification", 0, 0], []],
    ["no chain any more", { all: "" }, ["verification", 2, 3], ["a"]],
  ]);

  test.each(lies)("%s is found out", async (_name, lie, failed, got) => {
    expect(await followed(true, lie)).toEqual({ failed, got });
  });

  const wrong = "00".repeat(32);
  test.each(
    /** @type {[string, (heads: string[]) => Record<number, string | undefined>, Record<string, any>, any[] | null][]} */ ([
      ["the same heads", (heads) => ({ 0: heads[0], 2: heads[2], 3: heads[3] }), {}, null],
      ["another head in between", () => ({ 2: wrong }), {}, ["verification", 2, 2]],
      ["another head at the begin", () => ({ 0: wrong }), {}, ["verification", 0, 0]],
      ["a head behind the end", (heads) => ({ 3: heads[3] }), { list: encoded.slice(0, 2) }, ["verification", 3, 3]],
    ]),
  )("a server that lies consistently is held against heads from elsewhere: %s", async (_name, trusted, lie, failed) => {
    const verify = /** @type {Record<number, string>} */ (trusted(await Promise.all([0, 1, 2, 3].map(head))));
    expect((await followed(verify, lie)).failed).toEqual(failed);
  });

  test("whoever comes back with another chain is not believed", async () => {
    const unbroken = client();
    await vi.waitFor(() => FakeWebSocket.last.open());
    const done = collect(unbroken.follow("a", { verify: true }), []).catch((error) => error.code);
    FakeWebSocket.last.receive({ ...subscribed(1, "a", "7:0", await head(0)), salts });
    FakeWebSocket.last.receive(frame(encoded.slice(0, 1), await head(1), 1));
    const before = FakeWebSocket.last;
    before.drop(1012);
    await vi.waitFor(() => expect(FakeWebSocket.last).not.toBe(before));
    await vi.waitFor(() => FakeWebSocket.last.open());
    const asked = FakeWebSocket.last.sentOf("subscribe")[0];
    FakeWebSocket.last.receive({ ...subscribed(asked.id, "a", "7:1", "00".repeat(32)), salts });
    expect(await done).toBe("verification");
  });
});
