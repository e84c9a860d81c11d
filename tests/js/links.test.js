/**
 * Owns the proof of what the page knows of a stream's share links: which there are, the one that was made, their end.
 *
 * Run by vitest over the real client's HTTP face, with a server that a test scripts. The dialog is proven in tests/e2e.
 */

import { describe, expect, test } from "vitest";

import { Api } from "../../src/unbroken/web/client/api.js";
import { Tokens } from "../../src/unbroken/web/client/tokens.js";
import { Links } from "../../src/unbroken/web/view/links.js";
import { formatLink, isLink, parseRoute, takeToken } from "../../src/unbroken/web/view/route.js";
import { view } from "./fakes.js";

/** @typedef {any} Any */

const SECRET = `ubl_${"s".repeat(43)}`;
const PAGE = "https://streams.example/mounted/?x=1#/stream/build/42?view=raw";
const HOUR = 3_600_000;

/** @param {string} id @param {Any} [more] */
function token(id, more = {}) {
  const { grant = {}, ...facts } = more;
  return { id, kind: "link", label: "", created: 1000, expires: 1000 + HOUR, grants: [{ name: "build/42", verbs: ["read"], epoch: 7, ...grant }], ...facts };
}

/** A server's answers to what the links of `build/42` ask. @param {(method: string, path: string, body: Any) => [number, Any] | Promise<[number, Any]>} answer */
function linksOf(answer) {
  /** @type {[string, string, Any][]} */
  const asked = [];
  const fetch = async (/** @type {URL} */ url, /** @type {Any} */ init) => {
    const body = init.body === undefined ? null : JSON.parse(init.body);
    asked.push([init.method, url.pathname + url.search, body]);
    const [status, json] = await answer(init.method, url.pathname + url.search, body);
    return new Response(json === null ? null : JSON.stringify(json), { status });
  };
  const client = { tokens: new Tokens(new Api("https://streams.example/mounted", { fetch: /** @type {Any} */ (fetch) })) };
  const told = { times: 0 };
  return { asked, told, links: new Links(/** @type {Any} */ (client), view("build/42"), PAGE, () => (told.times += 1)) };
}

/** @param {Any[]} tokens @returns {[number, Any]} */
const listed = (...tokens) => [200, { tokens, next: null }];

describe("the links of a stream", () => {
  test("are those with which it can be read, and no other token", async () => {
    const { links } = linksOf(() =>
      listed(
        token("own"),
        token("any-epoch", { grant: { epoch: undefined } }),
        token("prefix", { grant: { name: "build/", prefix: true, epoch: undefined } }),
        token("two", { grants: [{ name: "other", verbs: ["read"] }, { name: "build/42", verbs: ["read"] }] }),
        token("key", { kind: "key" }),
        token("everything", { kind: "key", grants: null }),
        token("older-stream", { grant: { epoch: 6 } }),
        token("longer-name", { grant: { name: "build/421" } }),
        token("shorter-name", { grant: { name: "build/4" } }),
      ),
    );
    expect(links.links).toBeNull();
    await links.read();
    expect(links.links?.map(({ id, wider }) => [id, wider])).toEqual([["own", false], ["any-epoch", false], ["prefix", true], ["two", true]]);
    expect(links.more).toBe(false);
  });

  test("are read in pages, up to a bound that is told", async () => {
    let page = 0;
    const { links, asked } = linksOf(() => [200, { tokens: [token(`t${(page += 1)}`)], next: page < 3 ? String(page) : null }]);
    await links.read();
    expect(asked.map(([, path]) => path)).toEqual(["/mounted/v1/tokens?limit=500", "/mounted/v1/tokens?limit=500&page=1", "/mounted/v1/tokens?limit=500&page=2"]);
    expect([links.links?.length, links.more]).toEqual([3, false]);
    const endless = linksOf(() => [200, { tokens: [], next: "on" }]);
    await endless.links.read();
    expect([endless.asked.length, endless.links.more]).toEqual([4, true]);
  });

  test("that cannot be read leave the rest usable", async () => {
    const { links } = linksOf((method) => (method === "GET" ? [503, { code: "unavailable", detail: "the store is away" }] : [201, { ...token("new"), token: SECRET }]));
    await links.read();
    expect([links.unread, links.links]).toEqual(["the store is away", null]);
    await links.make(3600, "");
    expect([links.made?.id, links.links?.length, links.error]).toEqual(["new", 1, ""]);
  });
});

describe("a new link", () => {
  test("is for this stream of that name and for reading, and is kept as its address alone", async () => {
    const { links, asked } = linksOf((method) => (method === "GET" ? listed(token("old")) : [201, { ...token("new", { label: "for Ann" }), token: SECRET }]));
    await links.read();
    await links.make(3600, "for Ann");
    expect(asked[1]).toEqual(["POST", "/mounted/v1/tokens", { kind: "link", label: "for Ann", grants: [{ name: "build/42", verbs: ["read"], epoch: 7 }], expires_in: 3600 }]);
    expect(links.made).toEqual({ id: "new", address: `https://streams.example/mounted/#/stream/build/42?token=${SECRET}`, expires: 1000 + HOUR, early: false });
    expect(links.links?.map(({ id }) => id)).toEqual(["new", "old"]);
    expect(JSON.stringify([links.links, links.said, links.error])).not.toContain(SECRET);
  });

  test("that ends before the time asked for says so", async () => {
    const { links } = linksOf(() => [201, { ...token("new"), token: SECRET }]);
    await links.make(86_400, "");
    expect(links.made?.early).toBe(true);
  });

  test("is one, however often it is asked for at once", async () => {
    const { links, asked, told } = linksOf(() => [201, { ...token("new"), token: SECRET }]);
    await Promise.all([links.make(3600, ""), links.make(3600, "")]);
    expect([asked.length, links.making, told.times]).toEqual([1, false, 2]);
  });

  test("that is refused says why, and the next wish begins anew", async () => {
    const { links } = linksOf((method) => (method === "POST" ? [403, { code: "forbidden", detail: "that is more than what may be handed on with this credential" }] : [204, null]));
    await links.make(3600, "");
    expect(links.error).toBe("No link was made: that is more than what may be handed on with this credential.");
    expect([links.made, links.links, links.making]).toEqual([null, null, false]);
    await links.revoke("x");
    expect(links.error).toBe("");
  });

  test("is there when the listing comes after it", async () => {
    /** @type {(answer: [number, Any]) => void} */
    let give = () => {};
    const { links } = linksOf((method) => (method === "GET" ? new Promise((resolve) => (give = resolve)) : [201, { ...token("new"), token: SECRET }]));
    const read = links.read();
    await links.make(3600, "");
    give(listed(token("old")));
    await read;
    expect(links.links?.map(({ id }) => id)).toEqual(["new", "old"]);
  });
});

describe("a revoked link", () => {
  test.each([[204, null], [404, { code: "not_found", detail: "no token" }]])("is gone, and so is its address (%i)", async (status, body) => {
    const { links, asked } = linksOf((method) => (method === "GET" ? listed(token("old/1")) : method === "POST" ? [201, { ...token("new"), token: SECRET }] : [status, body]));
    await links.read();
    await links.make(3600, "");
    await links.revoke("new");
    expect([links.made, links.links?.map(({ id }) => id), links.ending.size]).toEqual([null, ["old/1"], 0]);
    expect(links.said).toContain("Revoked");
    await links.revoke("old/1");
    expect(asked.at(-1)?.[1]).toBe("/mounted/v1/tokens/old%2F1");
    expect(links.links).toEqual([]);
  });

  test("does not come back with a listing that was asked for before", async () => {
    /** @type {(answer: [number, Any]) => void} */
    let give = () => {};
    const { links } = linksOf((method) => (method === "GET" ? new Promise((resolve) => (give = resolve)) : [204, null]));
    const read = links.read();
    await links.revoke("old");
    give(listed(token("old")));
    await read;
    expect(links.links).toEqual([]);
  });

  test("that could not be revoked is still there, with the reason", async () => {
    const { links } = linksOf((method) => (method === "GET" ? listed(token("old")) : [503, { code: "unavailable", detail: "the store is away" }]));
    await links.read();
    await links.revoke("old");
    expect([links.error, links.said, links.links?.length, links.ending.size]).toEqual(["The link was not revoked: the store is away.", "", 1, 0]);
  });
});

describe("the address of a link", () => {
  test.each(["a", "build/42", "größe/日本", "a b?c#d%", "x&token=y"])("opens %j, with the token behind the #", (name) => {
    const address = formatLink(PAGE, name, SECRET);
    const url = new URL(address);
    expect([url.origin, url.pathname, url.search]).toEqual(["https://streams.example", "/mounted/", ""]);
    expect(address.slice(0, address.indexOf("#"))).not.toContain("ubl_");
    const taken = takeToken(url.hash);
    expect(taken?.token).toBe(SECRET);
    expect(parseRoute(taken?.hash ?? "").stream).toBe(name);
  });

  test.each([[SECRET, true], [`ubk_${"s".repeat(43)}`, false], [`${SECRET}x`, false], ["", false], [null, false]])("the token %j is one of a link: %j", (given, expected) => expect(isLink(given)).toBe(expected));
});
