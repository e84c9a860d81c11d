/**
 * Owns the proof that the vendored files are the packages' own, and that the page keeps to its policy.
 *
 * Run by vitest. It never runs the page: tests/e2e does.
 */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";

const WEB = new URL("../../src/unbroken/web/", import.meta.url);
/** @param {string | URL} path */
const read = (path) => readFileSync(path);
const COPIES = /** @type {[string, string][]} */ ([
  ["preact.mjs", "preact/dist/preact.mjs"],
  ["htm.mjs", "htm/dist/htm.mjs"],
  ["marked.esm.js", "marked/lib/marked.esm.js"],
  ["LICENSE.preact", "preact/LICENSE"],
  ["LICENSE.htm", "htm/LICENSE"],
  ["LICENSE.marked", "marked/LICENSE"],
]);

test.each(COPIES)("%s is %s", (name, origin) => {
  expect(read(new URL(`vendor/${name}`, WEB)).equals(read(new URL(`node_modules/${origin}`, import.meta.url)))).toBe(true);
});

test("VENDORED.md says the right sums", () => {
  const text = read(new URL("vendor/VENDORED.md", WEB)).toString();
  const rows = [...text.matchAll(/^\| `([^`]+)` .* `([0-9a-f]{64})` \|$/gm)];
  expect(rows.length).toBe(3);
  for (const [, name, sum] of rows) expect(createHash("sha256").update(read(new URL(`vendor/${name}`, WEB))).digest("hex")).toBe(sum);
});

describe("our own files", () => {
  const names = ["", "view/", "client/"].flatMap((folder) => readdirSync(new URL(folder, WEB)).filter((name) => name.endsWith(".js")).map((name) => folder + name));
  test("are all here", () => expect(names.length).toBeGreaterThan(20));
  test.each(names)("%s makes no HTML from strings and keeps to relative addresses", (name) => {
    const source = read(new URL(name, WEB)).toString();
    expect(source).not.toMatch(/innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|document\.write|\beval\(|new Function|srcdoc/);
    expect(source).not.toMatch(/from "(?!\.{1,2}\/)|import\("(?!\.{1,2}\/)/);
    expect(source).not.toMatch(/["'`]\/(v1|static)\b/);
  });
  test("index.html has no inline script or style and relative addresses only", () => {
    const source = read(new URL("index.html", WEB)).toString();
    expect(source).not.toMatch(/<style|style=|\son\w+=|<script(?![^>]*\ssrc=)/);
    for (const [, address] of source.matchAll(/(?:href|src)="([^"]*)"/g)) expect(address).toMatch(/^(static|v1)\//);
  });
});
