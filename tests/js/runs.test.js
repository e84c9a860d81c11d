/**
 * Owns the proof of what a card knows of a run, how its messages are said in a line, and how a schema becomes a form.
 *
 * Run by vitest. What needs a document is proven in a real browser, in tests/e2e.
 */

import { describe, expect, test } from "vitest";

import { FILES_MAX, LINES_MAX, QUESTIONS_MAX, RunCard } from "../../src/unbroken/web/view/card.js";
import { resultText } from "../../src/unbroken/web/view/fold.js";
import { NOTE_CHARACTERS_MAX, noteOf } from "../../src/unbroken/web/view/notes.js";
import { fieldAt, fieldsOf, valueOf } from "../../src/unbroken/web/view/schema.js";
import { view } from "./fakes.js";

/** @param {Record<string, unknown>} [more] @param {[string, any][]} [told] messages as kind and body; a body that is text is one */
function card(more = {}, told = []) {
  const made = new RunCard(view("r", { run: { type: "task", name: "count" }, created: 1000, ...more }));
  for (const [kind, body] of told) made.take(typeof body === "string" ? { kind, text: body } : { kind, json: body });
  return made;
}

describe("the card of a run", () => {
  test("the newest progress counts, and only a total makes it measurable", () => {
    const made = card({}, [["progress", { progress: 1, total: 4, message: "one" }], ["progress", { progress: 2, total: 4 }]]);
    expect(made.progress).toEqual({ done: 2, total: 4, message: "" });
    for (const total of [undefined, null, 0, -1, "4", Number.NaN]) expect(card({}, [["progress", { progress: 2, total }]]).progress?.total).toBeNull();
    expect(card({}, [["progress", { progress: "much" }]]).progress).toBeNull();
    expect(card({}, [["progress", { progress: 1e308, total: 1e308 }]]).progress, "no row is wide enough for its digits").toEqual({ done: Number.MAX_SAFE_INTEGER, total: Number.MAX_SAFE_INTEGER, message: "" });
  });

  test.each([
    ["queued", { state: "open" }, []],
    ["running", { state: "running" }, [["started", { attempt: 1 }]]],
    ["asks", {}, [["input_required", { id: "q", message: "?" }]]],
    ["running", {}, [["input_required", { id: "q" }], ["input", { id: "q", response: 1 }]]],
    ["paused", { state: "paused" }, [["input_required", { id: "q" }]]],
    ["cancelling", { cancel_requested: true }, []],
    ["cancelled", { state: "cancelled", cancel_requested: true }, [["input_required", { id: "q" }]]],
  ])("its state is %s", (expected, more, told) => expect(card(more, /** @type {any} */ (told)).state).toBe(expected));

  test("an answer is heard once, and who gave it is told", () => {
    const made = card({}, [["input_required", { id: "q", message: "Which?", schema: { type: "string" } }], ["input", { id: "q", response: "a", by: "ann" }], ["input", { id: "q", response: "b", by: "bob" }]]);
    expect(made.waiting).toEqual([]);
    expect(made.questions.get("q")).toEqual({ id: "q", message: "Which?", schema: { type: "string" }, answer: { response: "a", by: "ann" } });
  });

  test("a file is known by the stream that has its bytes, and only where a run keeps its files", () => {
    const kept = { name: "report\u001b[31m.csv", media_type: "text/csv", bytes: 12, sha256: "ab", stream: "r/files/ab/report.csv" };
    const made = card({}, [["file", kept], ["file", { ...kept, stream: "other/files/ab/report.csv" }], ["file", { name: 1, stream: null }]]);
    expect(made.files).toEqual([{ name: "report.csv", size: 12, stream: "r/files/ab/report.csv" }]);
    for (let number = 0; number < 2 * FILES_MAX; number += 1) made.take({ kind: "file", json: { ...kept, stream: `r/files/${number}/a` } });
    expect([made.files.length, made.files.at(-1)?.stream]).toEqual([FILES_MAX, `r/files/${2 * FILES_MAX - 1}/a`]);
    expect(noteOf({ kind: "file", json: kept })).toBe("file: report.csv");
  });

  test("what was said before its newest messages comes from its summary, and only that", () => {
    const made = card({ head: 900 });
    const summary = { stream: view("r", { head: 900 }), cursor: "7:900", complete: false, messages: [
      { seq: 2, kind: "started", json: { attempt: 3 } },
      { seq: 500, kind: "checkpoint", cut: true },
      { seq: 690, kind: "progress", json: { progress: 5, total: 10 } },
      { seq: 695, kind: "result", cut: true },
      { seq: 700, kind: "input_required", json: { id: "q", message: "?" } },
      { seq: 701, kind: "log", json: { level: "info", text: "read with the messages" } },
    ] };
    made.begin(summary, 700);
    expect([made.attempt, made.progress?.done, made.result, made.lines.length, made.state]).toEqual([3, 5, null, 0, "asks"]);
    const other = card({ epoch: 8 });
    other.begin(summary, 700);
    other.begin(null, 700);
    expect(other.attempt).toBe(0);
  });

  test("it stays small, however long the run is", () => {
    const made = card();
    for (let number = 0; number < 1000; number += 1) {
      made.take({ kind: "log", json: { level: "info", text: `${number} ${"x".repeat(5000)}` } });
      made.take({ kind: "input_required", json: { id: String(number), message: "m".repeat(100_000) } });
      made.take({ kind: "text", text: "y".repeat(5000) });
    }
    expect(made.lines.length).toBe(LINES_MAX);
    expect(made.linesBefore).toBe(1000 - LINES_MAX);
    expect(made.lines.at(-1)?.text.startsWith("999 ")).toBe(true);
    expect(made.questions.size).toBe(QUESTIONS_MAX);
    expect(made.questions.has("999"), "the newest question can be answered").toBe(true);
    expect(JSON.stringify([made.lines, [...made.questions], made.output]).length).toBeLessThan(200_000);
  });

  test("lines are told apart by their level, and terminal output is made plain", () => {
    const made = card({}, [["log", { level: "warning", text: "hot" }], ["stderr", "\x1b[31mone\x1b[0m\ntwo\n"], ["log", { level: "<b>", text: { a: 1 } }]]);
    expect(made.lines).toEqual([{ kind: "warning", text: "hot" }, { kind: "stderr", text: "one" }, { kind: "stderr", text: "two" }, { kind: "info", text: '{"a":1}' }]);
  });

  test("a value that no text or number can be made of breaks nothing", () => {
    const trap = JSON.parse('{"toString": 1, "valueOf": 1, "constructor": 1, "__proto__": {"toJSON": 1}}');
    const made = card({}, [["started", { attempt: trap }], ["progress", { progress: trap, total: trap, message: trap }], ["log", { level: trap, text: trap }], ["file", { name: "a", stream: "r/files/a", bytes: trap }], ["input_required", { id: "q", message: trap, schema: trap }], ["result", trap], ["failed", trap]]);
    expect([made.attempt, made.progress, made.lines[0]?.kind, made.files[0]?.size]).toEqual([1, null, "info", 0]);
    for (const kind of ["started", "task", "log", "stderr", "file", "retry", "input_required", "input", "result", "failed"]) {
      expect(typeof noteOf({ kind, json: { attempt: trap, taskId: trap, level: trap, text: trap, name: trap, message: trap, response: trap, value: trap, error: trap } })).toBe("string");
    }
    expect(resultText({ content: [{ type: trap, mimeType: trap }] })).toMatch(/^\[\{"toString":1/);
    const field = { type: "string", maxLength: trap, minimum: trap, title: trap, description: trap, default: trap, format: trap };
    for (const schema of [trap, field, { properties: { a: field, b: { enum: [trap], enumNames: [trap] }, c: { type: trap }, d: { type: "number", minimum: trap } }, required: trap }]) expect(fieldsOf(schema).length).toBeGreaterThan(0);
  });

  test("what a tool puts out while it works is output, and parts of its result are not", () => {
    const made = card({}, [["output", "one "], ["progress", { progress: 1 }], ["output", "two"], ["output", { attempt: 1, part: 1, of: 1, text: "{}" }]]);
    expect(made.output).toBe("one two");
    expect(noteOf({ kind: "output", text: "one " }), "it flows").toBeNull();
  });

  test("a bad end says whether it may have run", () => {
    expect(card({ state: "interrupted" }, [["interrupted", { cause: "worker_lost", may_have_run: true }]]).mayHaveRun).toBe(true);
    expect(card({ state: "interrupted", reason: { may_have_run: true } }).mayHaveRun).toBe(true);
    expect(card({ state: "failed" }, [["failed", { error: "x" }]]).mayHaveRun).toBe(false);
    expect(card({ state: "completed", reason: { may_have_run: true } }).mayHaveRun).toBe(false);
  });

  test("time runs from the start to the end", () => {
    expect(card().elapsed(5000)).toBe(4000);
    expect(card({ ended: 3000, state: "completed" }).elapsed(9000)).toBe(2000);
    expect(card().elapsed(500), "a clock that is behind the server's").toBe(0);
  });

  test("another epoch is another run", () => {
    const made = card({}, [["started", { attempt: 3 }], ["progress", { progress: 1 }]]);
    made.update(view("r", { epoch: 8 }));
    expect([made.attempt, made.progress]).toEqual([0, null]);
  });

  test.each([null, 5, "text", [], { id: 5 }, { id: "q", message: { a: 1 }, schema: 7 }].map((body) => [body]))("a body that is %j does no harm", (body) => {
    for (const kind of ["started", "progress", "log", "stderr", "input_required", "input", "result", "failed", "checkpoint"]) card({}, [[kind, body]]);
  });
});

describe("a message of a run in one line", () => {
  test.each([
    [{ kind: "text", text: "hello" }, null],
    [{ kind: "stderr", text: "oh" }, null],
    [{ kind: "rows", json: [1] }, null],
    [{ kind: "progress", json: { progress: 1 } }, ""],
    [{ kind: "checkpoint", json: { state: 1 } }, ""],
    [{ kind: "started", json: { attempt: 1 } }, "started"],
    [{ kind: "started", json: { attempt: 2 } }, "started again, attempt 2"],
    [{ kind: "log", json: { level: "warning", text: "a\nb" } }, "warning: a b"],
    [{ kind: "result", json: { value: { sum: 3 } } }, 'result: {"sum":3}'],
    [{ kind: "result", json: { content: [{ type: "text", text: "no" }], isError: true } }, "result: error: no"],
    [{ kind: "input", json: { id: "q", response: "green" } }, "answered: green"],
    [{ kind: "interrupted", json: { cause: "worker_lost", may_have_run: true } }, "interrupted: cause worker_lost"],
  ])("%j", (message, expected) => expect(noteOf(message)).toBe(expected));
  test("it is bounded", () => expect(noteOf({ kind: "log", json: { level: "info", text: "x".repeat(1e6) } })?.length).toBeLessThan(NOTE_CHARACTERS_MAX + 20));
});

describe("a result as text", () => {
  test.each([
    [{ value: "plain" }, "plain"],
    [{ value: { a: [1] } }, '{\n  "a": [\n    1\n  ]\n}'],
    [{ value: null }, "null"],
    [{ content: [{ type: "text", text: "one" }, { type: "text", text: "two" }], structuredContent: { a: 1 } }, "one\ntwo"],
    [{ content: [{ type: "image", mimeType: "image/png", data: "AAAA" }] }, "[image image/png, 3 bytes]"],
    [{ content: [{ type: "resource_link", uri: "file:///x" }, { type: "resource", resource: { uri: "y", text: "inside" } }, null, 5] }, "[resource_link file:///x]\ninside\n[block]\n[block]"],
    [{ content: [], structuredContent: { a: 1 } }, '{\n  "a": 1\n}'],
  ])("%j", (body, expected) => expect(resultText(body)).toBe(expected));
});

const SCHEMA = {
  type: "object",
  required: ["upto", "mode", "query"],
  $defs: { Mode: { enum: ["fast", "slow"], type: "string", description: "how" }, Loop: { $ref: "#/$defs/Loop" } },
  properties: {
    upto: { type: "integer", minimum: 1, maximum: 9 },
    pause: { type: "number", default: 0.5 },
    query: { type: "string", description: "what" },
    loud: { type: "boolean" },
    mode: { $ref: "#/$defs/Mode" },
    tags: { type: "array", items: { type: "string" } },
    note: { anyOf: [{ type: "string" }, { type: "null" }], default: null },
    more: { type: "object", default: { a: 1 } },
    loop: { $ref: "#/$defs/Loop" },
  },
};

describe("a form made from a schema", () => {
  const fields = fieldsOf(SCHEMA);
  test("each property is a field of its kind", () => {
    expect(fields.map(({ name, kind, required }) => [name, kind, required])).toEqual([
      ["upto", "integer", true],
      ["pause", "number", false],
      ["query", "text", true],
      ["loud", "boolean", false],
      ["mode", "choice", true],
      ["tags", "json", false],
      ["note", "text", false],
      ["more", "json", false],
      ["loop", "text", false],
    ]);
    expect(fields[0]?.hint).toBe("from 1 to 9");
    expect(fields[1]?.initial).toBe("0.5");
    expect(fields[4]?.options.map(({ label }) => label)).toEqual(["fast", "slow"]);
    expect(fields[4]?.description).toBe("how");
  });

  test("what is typed is sent as what it stands for, and what is left empty is left out", () => {
    expect(valueOf(fields, { upto: "3", mode: "1", tags: '["a"]', query: "x", loud: true })).toEqual({ value: { upto: 3, pause: 0.5, mode: "slow", tags: ["a"], query: "x", loud: true, more: { a: 1 } }, errors: {} });
    expect(valueOf(fields, {}).value).toEqual({ pause: 0.5, more: { a: 1 } });
    expect(valueOf(fields, { query: "" }).value).toEqual({ query: "", pause: 0.5, more: { a: 1 } });
  });

  test("only what cannot be sent is refused here", () => {
    const { value, errors } = valueOf(fields, { upto: "many", tags: "[1,", pause: "9007199254740993" });
    expect(Object.keys(errors)).toEqual(["pause", "tags"]);
    expect(value).toEqual({ upto: "many", more: { a: 1 } });
  });

  test("where no server checks, a field that is needed is asked for", () => {
    expect(Object.keys(valueOf(fields, { upto: "x" }, { strict: true }).errors)).toEqual(["upto", "query", "mode"]);
  });

  test("one value is one field", () => {
    for (const [schema, typed, value] of [[{ type: "string" }, "green", "green"], [null, "green", "green"], [{ type: "integer" }, "4", 4], [{ type: "boolean", default: true }, undefined, true], [{ enum: [1, "b"] }, "1", "b"], [{ oneOf: [{ const: 7, title: "seven" }] }, "0", 7]]) {
      const one = fieldsOf(schema);
      expect(one.length).toBe(1);
      expect(valueOf(one, typed === undefined ? {} : { "": /** @type {string} */ (typed) }, { strict: true })).toEqual({ value, errors: {} });
    }
  });

  test("a complaint of the server finds its field", () => {
    expect(fieldAt(fields, "arguments.upto")).toBe("upto");
    expect(fieldAt(fields, "arguments.more.a")).toBe("more");
    expect(fieldAt(fields, "arguments.uptown")).toBeNull();
    expect(fieldAt(fields, undefined)).toBeNull();
  });

  test.each([undefined, 5, [], { type: "object", properties: 5, required: "x" }, { properties: { __proto__: null, a: null } }, { $ref: "#/a/b" }, { anyOf: [null] }].map((schema) => [schema]))("a schema that is %j does no harm", (schema) => {
    valueOf(fieldsOf(schema), {});
  });

  test("a name that is a trap stays a name", () => {
    const trap = fieldsOf(JSON.parse('{"properties": {"__proto__": {"type": "string"}}}'));
    const { value } = valueOf(trap, JSON.parse('{"__proto__": "x"}'));
    expect(JSON.stringify(value)).toBe('{"__proto__":"x"}');
    expect(/** @type {any} */ ({}).x).toBeUndefined();
  });
});
