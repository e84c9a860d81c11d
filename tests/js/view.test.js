/**
 * Owns the proof of the page's pure parts: terminal output, the resume rule's sums, the badge, the address.
 *
 * Run by vitest. What needs a document is proven in a real browser, in tests/e2e.
 */

import { describe, expect, test } from "vitest";

import { AnsiReader, plainText } from "../../src/unbroken/web/view/ansi.js";
import { badgeOf } from "../../src/unbroken/web/view/badge.js";
import { ago, bytes, duration, reasonWords } from "../../src/unbroken/web/view/format.js";
import { recall, remember, Resume } from "../../src/unbroken/web/view/resume.js";
import { distinct } from "../../src/unbroken/web/view/unseen.js";
import { formatNew, formatRoute, formatSession, parseNew, parseRoute, parseSession, takeToken } from "../../src/unbroken/web/view/route.js";

describe("terminal output", () => {
  test.each([
    ["plain", "plain"],
    ["\x1b[31mred\x1b[0m", "red"],
    ["a\x1b[2Kb\x1b[1;1Hc", "abc"],
    ["\x1b]0;title\x07x", "x"],
    ["\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"],
    ["\x1bP1;2|payload\x1b\\x", "x"],
    ["\x9b31mx", "x"],
    ["a\r\nb\rc", "a\nb\nc"],
    ["bell\x07 null\x00 back\x08", "bell null back"],
    ["\x1b(Bx\x1b7y", "xy"],
    ["tab\tline\n", "tab\tline\n"],
    ["grüße 日本 🙂", "grüße 日本 🙂"],
    ["(\u05e9\u05dc!)\u200f, \u061c\u0645\u0631", "(\u05e9\u05dc!)\u200f, \u061c\u0645\u0631"],
    ["transfer \u200f100 > 200 now", "transfer ⟦RLM⟧100 > 200 now"],
    ["deny \u061c127.0.0.1 - 10.0.0.1", "deny ⟦ALM⟧127.0.0.1 - 10.0.0.1"],
    ["\u05e9\u05dc and \u200f1 > 2 \u05e9", "\u05e9\u05dc and ⟦RLM⟧1 > 2 \u05e9"],
    ["invoice\u202efdp.exe \u2066x\u2069", "invoice⟦RLO⟧fdp.exe ⟦LRI⟧x⟦PDI⟧"],
    ["עברית \u200fو", "עברית \u200fو"],
  ])("%j reads %j", (source, expected) => expect(plainText(source)).toBe(expected));
  test("a colour begins and ends a segment", () => {
    expect(new AnsiReader().read("a\x1b[1;31mb\x1b[0mc")).toEqual([
      { text: "a", style: "" },
      { text: "b", style: "ansi-1 bold" },
      { text: "c", style: "" },
    ]);
  });
  test("a colour lasts over messages", () => {
    const reader = new AnsiReader();
    reader.read("\x1b[32m");
    expect(reader.read("green")).toEqual([{ text: "green", style: "ansi-2" }]);
  });
  test("palette colours are passed over whole", () => {
    expect(new AnsiReader().read("\x1b[38;5;31mx\x1b[38;2;1;31;2my")).toEqual([{ text: "x", style: "" }, { text: "y", style: "" }]);
  });
  test("a sequence may be split anywhere", () => {
    const source = "a\x1b[31mb\x1b]0;title\x07c\r\nd\x1b(Be\x1b[0m";
    for (let cut = 0; cut <= source.length; cut += 1) {
      const reader = new AnsiReader();
      const text = [...reader.read(source.slice(0, cut)), ...reader.read(source.slice(cut))].map((segment) => segment.text).join("");
      expect(text, `cut at ${cut}`).toBe("abc\nde");
    }
  });
  test("a sequence that never ends is given up", () => {
    const reader = new AnsiReader();
    reader.read(`\x1b]${"x".repeat(5000)}`);
    expect(reader.read("\x07after").map((segment) => segment.text).join("")).toContain("after");
  });
});

describe("a name", () => {
  test.each([
    ["pay\u200bpal", "pay⟦ZWSP⟧pal"],
    ["pay\u2060pal \ufeffx", "pay⟦WJ⟧pal ⟦BOM⟧x"],
    ["soft\u00adhyphen\u034f", "soft⟦SHY⟧hyphen⟦CGJ⟧"],
    ["pay\u200dpal pay\u200cpal", "pay⟦ZWJ⟧pal pay⟦ZWNJ⟧pal"],
    ["a\u3164\u115fb\u2028", "a⟦U+3164⟧⟦U+115F⟧b⟦U+2028⟧"],
    ["tag\u{e0041}, a\ufe0f, 1\ufe0f", "tag⟦U+E0041⟧, a⟦U+FE0F⟧, 1⟦U+FE0F⟧"],
    ["😀\ufe0f", "😀⟦U+FE0F⟧"],
    ["invoice\u202efdp.exe \u200f1 \u05e9\u200f \u200e", "invoice⟦RLO⟧fdp.exe ⟦RLM⟧1 \u05e9⟦RLM⟧ ⟦LRM⟧"],
    ["\u062f\u0627\u200c\u062f", "\u062f\u0627⟦ZWNJ⟧\u062f"],
    ["\u0634\u200c\u06f1\u0634\u200cx", "\u0634⟦ZWNJ⟧\u06f1\u0634⟦ZWNJ⟧x"],
    ["\u0915\u094d\u200c", "\u0915\u094d⟦ZWNJ⟧"],
  ])("%j shows what is not seen in it: %j", (name, expected) => expect(distinct(name)).toBe(expected));
  test.each([
    "grüße/日本 \u0935\u094d\u0928",
    "👩‍👩‍👧‍👦 🧑🏽‍🚀 🏳️‍🌈 ❤️ 1️⃣ 🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", // Persian: I want
    "\u0915\u094d\u200d\u0937 \u0915\u094d\u200c\u0937", // two ways to write a Hindi cluster
    "\u0dc1\u0dca\u200d\u0dbb\u0dd3", // Sinhala: Sri
    "שלום/עולם",
  ])("%j stays as it is", (name) => expect(distinct(name)).toBe(name));
});

test("text that is no name keeps what it is written with", () => {
  const text = "pay\u200bpal \ufeff soft\u00adhyphen 👩‍👩 \u0e01\u200b\u0e02";
  expect(plainText(text)).toBe(text);
});

describe("the resume rule", () => {
  test("counts what came", () => {
    const resume = new Resume(1234, 1291, 4200);
    resume.take(1235, 30);
    expect(resume.words).toBe("resumed at 1,234 · away 4.2 s · catching up 30 of 57");
    resume.take(1265, 40);
    expect(resume.words).toBe("resumed at 1,234 · away 4.2 s · 57 caught up · 0 lost");
  });
  test("counts what did not come", () => {
    const resume = new Resume(10, 20, 0);
    resume.take(15, 6);
    expect(resume.lost).toBe(4);
    expect(resume.words).toContain("4 lost");
  });
  test("messages from before are not counted as caught up", () => {
    const resume = new Resume(10, 12, 0);
    resume.take(1, 12);
    expect([resume.received, resume.lost, resume.done]).toEqual([2, 0, true]);
  });
  test("messages that are left to be scrolled to are not lost", () => {
    const resume = new Resume(10, 1000, 0);
    resume.above = 490;
    resume.take(501, 500);
    expect(resume.words).toBe("resumed at 10 · away 0.0 s · 500 caught up · 490 more above · 0 lost");
  });
  test("nothing missed is said as such", () => expect(new Resume(5, 5, 100).words).toBe("resumed at 5 · away 0.1 s · 0 caught up · 0 lost"));
  test("duplicates are told", () => {
    const resume = new Resume(5, 5, 100);
    resume.dropped = 1;
    expect(resume.words).toContain("1 duplicate dropped");
  });
  test("the note in the tab survives nonsense", () => {
    /** @type {Map<string, string>} */
    const kept = new Map();
    const storage = /** @type {any} */ ({ getItem: (/** @type {string} */ key) => kept.get(key) ?? null, setItem: (/** @type {string} */ key, /** @type {string} */ value) => kept.set(key, value) });
    expect(recall(storage, "a")).toBeNull();
    remember(storage, "a", { epoch: 1, seq: 2, at: 3 });
    expect(recall(storage, "a")).toEqual({ epoch: 1, seq: 2, at: 3 });
    for (const bad of ["{", "null", "[]", '{"epoch":"1","seq":2,"at":3}']) {
      kept.set("unbroken.seen:a", bad);
      expect(recall(storage, "a")).toBeNull();
    }
  });
});

describe("the badge", () => {
  const status = { phase: "live", failures: 0, retryAt: null, code: null, transport: "websocket" };
  /** @param {Partial<typeof status> | Record<string, unknown>} change @param {{phase: string, left: number} | null} [stream] */
  const badge = (change, stream = null) => badgeOf(/** @type {any} */ ({ ...status, ...change }), stream, 1000);
  test.each([
    [{ phase: "connecting" }, null, "connecting", ""],
    [{ phase: "connecting", failures: 2 }, null, "reconnecting", "try 2"],
    [{ phase: "waiting", failures: 3, retryAt: 3400 }, null, "reconnecting", "in 3 s, try 3"],
    [{ phase: "offline" }, null, "offline", "comes back by itself"],
    [{ phase: "refused", code: "unauthorized" }, null, "refused", "the token is missing or wrong"],
    [{}, null, "live", ""],
    [{ transport: "sse" }, null, "live", "over SSE"],
    [{}, { phase: "following", left: 1200 }, "catching-up", "1,200 left"],
    [{}, { phase: "following", left: 0 }, "live", ""],
    [{}, { phase: "ended", left: 0 }, "ended", ""],
    [{}, { phase: "failed", left: 0 }, "failed", ""],
  ])("%j with %j is %s", (change, stream, state, detail) => {
    expect(badge(change, stream)).toMatchObject({ state, detail });
  });
});

describe("the address", () => {
  test.each(["a", "build/42", "größe/日本", "a b?c#d%", "x&view=raw"])("%j survives", (name) => {
    expect(parseRoute(formatRoute(name))).toEqual({ stream: name, view: null });
    expect(parseRoute(formatRoute(name, "raw"))).toEqual({ stream: name, view: "raw" });
  });
  test.each(["", "#", "#/", "#/stream/", "#/other/x", "#/stream/%E0%A4%A"])("%j opens nothing", (hash) => expect(parseRoute(hash).stream).toBeNull());
  test.each(["a", "demo/tools", "größe/日本", "a b?c#d%"])("the session %j survives", (name) => {
    expect(parseSession(formatSession(name))).toBe(name);
    expect(parseRoute(formatSession(name)).stream).toBeNull();
  });
  test("what is chosen to be run survives", () => {
    const chosen = { type: "tool", name: "a&b=c", server: "größe #1", session: "x/y?z" };
    expect(parseNew(formatNew(chosen))).toEqual(chosen);
    expect(parseNew(formatNew())).toEqual({ type: "", name: "", server: "", session: "" });
    for (const hash of ["", "#/newer", "#/stream/new", "#/session/new"]) expect(parseNew(hash)).toBeNull();
    for (const hash of ["#/session/", "#/session/%E0%A4%A", "#/new", "#/stream/a"]) expect(parseSession(hash)).toBeNull();
  });
  test("an unknown view is none", () => expect(parseRoute("#/stream/a?view=evil").view).toBeNull());
});

describe("words", () => {
  test.each([[0, "0.0 s"], [4200, "4.2 s"], [61_000, "1 min 1 s"], [7_260_000, "2 h 1 min"], [-5, "0.0 s"]])("%d ms lasts %s", (value, words) => expect(duration(value)).toBe(words));
  test.each([[0, "0 B"], [999, "999 B"], [1500, "1.5 KB"], [2_000_000, "2.0 MB"], [3e9, "3.0 GB"]])("%d is %s", (value, words) => expect(bytes(value)).toBe(words));
  test.each([[0, "now"], [30_000, "30 s ago"], [120_000, "2 min ago"], [-9, "now"]])("%d is %s", (value, words) => expect(ago(1e6 - value, 1e6)).toBe(words));
  test("a reason is told in words", () => expect(reasonWords({ exit_code: 2, by: null, detail: { a: 1 } })).toBe('exit code 2 · detail {"a":1}'));
});

describe("the token of a share link", () => {
  const secret = `ubl_${"aB3-_".repeat(8)}xyz`;

  test.each([
    [`#/stream/a/b%20c?token=${secret}`, { token: secret, hash: "#/stream/a/b%20c" }],
    [`#/stream/a?view=raw&token=${secret}`, { token: secret, hash: "#/stream/a?view=raw" }],
    [`#/stream/a?token=${secret}&view=raw`, { token: secret, hash: "#/stream/a?view=raw" }],
    [`#?token=${secret}`, { token: secret, hash: "#" }],
    ["#/stream/a?token=ubk_" + "x".repeat(43), { token: null, hash: "#/stream/a" }],
    ["#/stream/a?token=", { token: null, hash: "#/stream/a" }],
    [`#/stream/a?token=${secret}x`, { token: null, hash: "#/stream/a" }],
    ["#/stream/a?view=raw", null],
    ["#/stream/a%3Ftoken=x", null],
    ["", null],
  ])("%s", (hash, expected) => {
    expect(takeToken(hash)).toEqual(expected);
  });
});
