/**
 * Owns the proof that the SSE reader does what the WHATWG standard says, however the text is cut.
 *
 * Run by vitest. It never opens a connection.
 */

import { expect, test } from "vitest";

import { SseParser } from "../../src/unbroken/web/client/sse.js";

/** @param {string} data @param {string} [id] @param {string} [event] */
const item = (data, id = "", event = "message") => ({ id, event, data });

test.each([
  ["data: a\n\n", [item("a")]],
  ["data:a\n\n", [item("a")]],
  ["data:  a\n\n", [item(" a")]],
  ["data: a\ndata: b\n\n", [item("a\nb")]],
  ["data\n\n", [item("")]],
  ["id: 7:1\nevent: state\ndata: a\n\ndata: b\n\n", [item("a", "7:1", "state"), item("b", "7:1")]],
  ["event: x\n\ndata: a\n\n", [item("a")]],
  ["id: a\0b\ndata: a\n\n", [item("a")]],
  [": heartbeat\n\n", [{ comment: "heartbeat" }]],
  ["retry: 1000\n\n", []],
  ["unknown: x\ndata: a\n\n", [item("a")]],
  ["data: a\r\ndata: b\r\n\r\n", [item("a\nb")]],
  ["data: a\r\rdata: b\r\n\r\n", [item("a"), item("b")]],
  ["\uFEFFdata: a\n\n", [item("a")]],
  ["data: unfinished\n", []],
])("%j", (text, expected) => {
  expect(new SseParser().feed(text)).toEqual(expected);
  for (let cut = 0; cut <= text.length; cut += 1) {
    const parser = new SseParser();
    const found = [...parser.feed(text.slice(0, cut)), ...parser.feed(text.slice(cut))];
    expect(found, `cut at ${cut}`).toEqual(expected);
  }
});
