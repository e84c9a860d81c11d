/**
 * Owns the proof that the browser client does what the language-neutral vectors say.
 *
 * Run by vitest. It never knows a rule itself: tests/vectors/README.md says how the files are run.
 */

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";

import { backoff } from "../../src/unbroken/web/client/backoff.js";
import { chain, fromHex, genesis, toHex } from "../../src/unbroken/web/client/chain.js";
import { Salts } from "../../src/unbroken/web/client/salts.js";
import { comesBack, formatCursor, parseCursor } from "../../src/unbroken/web/client/cursor.js";
import { Session } from "../../src/unbroken/web/client/session.js";

/** @param {string} name */
const load = (name) => JSON.parse(readFileSync(new URL(`../vectors/${name}`, import.meta.url), "utf8"));

/** Events that are this client's own, and fields beyond those of the files. */
const OWN_EVENTS = new Set(["connected", "disconnected", "hello", "result"]);
/** @type {Record<string, string[]>} */
const FIELDS = {
  subscribed: ["stream", "cursor"],
  messages: ["stream", "epoch", "first", "count"],
  state: ["stream", "state"],
  ended: ["stream", "state"],
  failed: ["id", "stream", "code"],
  notice: ["code"],
};

/** @param {any} output */
function visible(output) {
  if (output.event === "refused") return output.close_code === undefined ? output : { event: "refused", close_code: output.close_code };
  const fields = FIELDS[output.event];
  if (fields === undefined) return output;
  return Object.fromEntries([["event", output.event], ...fields.filter((name) => output[name] !== undefined).map((name) => [name, output[name]])]);
}

/** Replace bound names by numbers. @param {any} value @param {Map<string, number>} ids @returns {any} */
function bound(value, ids) {
  if (Array.isArray(value)) return value.map((item) => bound(item, ids));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => [name, name === "id" && typeof item === "string" && item.startsWith("$") ? ids.get(item) : bound(item, ids)]),
  );
}

/** @param {Session} session @param {any} step @param {any} frame */
function feed(session, step, frame) {
  const now = step.at;
  switch (step.do) {
    case "start":
      return session.start();
    case "stop":
      return session.stop();
    case "follow":
      return session.follow(step.stream, step.after);
    case "unfollow":
      return session.unfollow(step.stream);
    case "append":
      return session.request({ type: "append", stream: step.stream, messages: step.messages, producer: step.producer }).out;
    case "renew":
      return session.renew(step.token);
    case "opened":
      return session.opened(now);
    case "connect_failed":
      return session.connectFailed(now, { code: step.code, retryAfter: step.retry_after });
    case "receive":
      return session.receive(now, frame);
    case "closed":
      return session.closed(now, step.code);
    case "tick":
      return session.tick(now);
    case "wake":
      return session.wake(now);
    default:
      throw new Error(`unknown step ${step.do}`);
  }
}

describe("session.json", () => {
  const { transcripts } = load("session.json");
  test("is not empty", () => expect(transcripts.length).toBeGreaterThan(50));
  for (const transcript of transcripts) test(transcript.name, () => {
    const session = new Session({ random: () => transcript.random });
    /** @type {Map<string, number>} */
    const ids = new Map();
    for (const [index, step] of transcript.steps.entries()) {
      const got = feed(session, step, bound(step.frame, ids))
        .filter((/** @type {any} */ output) => !OWN_EVENTS.has(output.event))
        .map(visible);
      const where = `step ${index}: ${JSON.stringify(step).slice(0, 200)}`;
      expect(got.length, `${where}\n got ${JSON.stringify(got)}`).toBe(step.expect.length);
      step.expect.forEach((/** @type {any} */ wanted, /** @type {number} */ i) => {
        const name = wanted.frame?.id;
        if (typeof name === "string" && !ids.has(name)) ids.set(name, got[i].frame?.id);
        const exact = bound(wanted, ids);
        if (exact.action === "wait") {
          expect(got[i].action, where).toBe("wait");
          expect(got[i].seconds, where).toBeCloseTo(exact.seconds, 9);
        } else expect(got[i], where).toEqual(exact);
      });
    }
  });
});

test.each(/** @type {any[][]} */ (load("backoff.json").cases.map((/** @type {any} */ c) => [JSON.stringify(c), c])))("backoff %s", (_name, { n, random, retry_after, delay }) => {
  expect(backoff(n, random, retry_after)).toBeCloseTo(delay, 9);
});

test.each(/** @type {any[][]} */ (load("cursor.json").cases.map((/** @type {any} */ c) => [JSON.stringify(c), c])))("cursor %s", (_name, { text, valid, epoch, seq }) => {
  expect(parseCursor(text)).toEqual(valid ? { epoch, seq } : null);
  if (valid) expect(formatCursor({ epoch, seq })).toBe(text);
});

test.each(/** @type {any[][]} */ (load("close_codes.json").cases.map((/** @type {any} */ c) => [JSON.stringify(c), c])))("close code %s", (_name, { code, comes_back }) => {
  expect(comesBack(code)).toBe(comes_back);
});

test.each(/** @type {any[][]} */ (load("salts.json").cases.map((/** @type {any} */ c) => [c.name, c])))("salts: %s", async (_name, row) => {
  const salts = new Salts(row.salts);
  for (const [seq, salt] of Object.entries(row.of)) expect(toHex(await salts.salt(Number(seq)))).toBe(salt);
});

test.each(/** @type {any[][]} */ (load("chain.json").cases.map((/** @type {any} */ c) => [JSON.stringify(c), c])))("chain %s", async (_name, row) => {
  const salts = new Salts(row.salts);
  let head = await genesis(row.tenant, row.name, row.epoch);
  expect(toHex(head)).toBe(row.genesis);
  expect(fromHex(row.genesis)).toEqual(head);
  for (const [index, message] of row.messages.entries()) {
    head = await chain(head, row.first + index, [message], salts);
    expect(toHex(head)).toBe(row.heads[index]);
  }
});
