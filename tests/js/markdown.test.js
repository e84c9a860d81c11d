/**
 * Owns the proof that hostile Markdown becomes text and harmless nodes only.
 *
 * Run by vitest on virtual nodes; a real browser under the shipped policy sees the same page in tests/e2e.
 */

import { describe, expect, test } from "vitest";

import { nodesOf, safeAddress, tokensOf } from "../../src/unbroken/web/view/markdown.js";

const ELEMENTS = new Set(["h1", "h2", "h3", "h4", "h5", "h6", "p", "blockquote", "pre", "code", "hr", "ul", "ol", "li", "input", "div", "table", "thead", "tbody", "tr", "th", "td", "strong", "em", "del", "br", "a"]);
const ATTRIBUTES = new Set(["href", "rel", "target", "title", "class", "start", "type", "checked", "disabled", "children"]);

const ATTACKS = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "<svg onload=alert(1)>",
  "<svg><script>alert(1)</script></svg>",
  '<a href="javascript:alert(1)">x</a>',
  "<iframe src=javascript:alert(1)></iframe>",
  "<math><mtext></mtext><script>alert(1)</script></math>",
  "<details open ontoggle=alert(1)>",
  "<style>*{background:url(//evil)}</style>",
  "<base href=//evil/>",
  "<!--><img src=x onerror=alert(1)>-->",
  "<form action=javascript:alert(1)><button>x</button></form>",
  "<object data=javascript:alert(1)></object>",
  "<p style=position:fixed onmouseover=alert(1)>x</p>",
  "[x](javascript:alert(1))",
  "[x](JaVaScRiPt:alert(1))",
  "[x](java&#115;cript:alert(1))",
  "[x](javascript&colon;alert(1))",
  "[x](<java\tscript:alert(1)>)",
  "[x](\x01javascript:alert(1))",
  "[x](data:text/html,<script>alert(1)</script>)",
  "[x](vbscript:msgbox(1))",
  "[x](blob:https://example.com/1)",
  "[x](file:///etc/passwd)",
  "[x](//evil.example/)",
  "![x](javascript:alert(1))",
  '![x](x "onerror=alert(1)")',
  '![x](https://example.com/"onerror="alert(1))',
  "<javascript:alert(1)>",
  "[x]: javascript:alert(1)\n\n[x]",
  "[x][y]\n\n[y]: data:text/html;base64,PHNjcmlwdD4=",
  "| a |\n|---|\n| <img src=x onerror=alert(1)> |",
  "- [ ] <script>alert(1)</script>",
  "```html\n<script>alert(1)</script>\n```",
  "# <img src=x onerror=alert(1)>",
  "**<b onclick=alert(1)>x</b>**",
];

/** @param {any} node @param {(element: any) => void} visit */
function walk(node, visit) {
  if (Array.isArray(node)) for (const one of node) walk(one, visit);
  else if (node !== null && typeof node === "object") {
    visit(node);
    walk(node.props.children, visit);
  }
}

/** @param {any} node @returns {string} */
function textOf(node) {
  if (Array.isArray(node)) return node.map(textOf).join("");
  if (node === null || node === undefined || typeof node === "boolean") return "";
  return typeof node === "object" ? textOf(node.props.children) : String(node);
}

describe("hostile Markdown", () => {
  test("there are enough strings", () => expect(ATTACKS.length).toBeGreaterThanOrEqual(30));
  test.each(ATTACKS)("%j", (source) => {
    walk(nodesOf(tokensOf(source)), (element) => {
      expect(ELEMENTS).toContain(element.type);
      for (const name of Object.keys(element.props)) expect(ATTRIBUTES).toContain(name);
      expect(element.ref ?? null).toBeNull();
      if (element.type === "a") expect(element.props.href).toMatch(/^(https?:\/\/|mailto:)/);
    });
  });
  test.each(["<script>alert(1)</script>", "<img src=x onerror=alert(1)>"])("%j is shown as it was written", (source) => {
    expect(textOf(nodesOf(tokensOf(source)))).toContain(source);
  });
  test("nesting without end is shown as text", () => {
    const source = `${"> ".repeat(500)}x`;
    let depth = 0;
    walk(nodesOf(tokensOf(source)), (element) => (depth += element.type === "blockquote" ? 1 : 0));
    expect(depth).toBeLessThan(60);
  });
});

describe("ordinary Markdown", () => {
  test.each([
    ["https://example.com/a?b=c#d", "https://example.com/a?b=c#d"],
    ["http://example.com", "http://example.com/"],
    ["mailto:a@example.com", "mailto:a@example.com"],
    ["relative/path", null],
    ["#fragment", null],
    ["", null],
    [undefined, null],
  ])("the address %j becomes %j", (href, expected) => expect(safeAddress(href)).toBe(expected));
  test("a link opens elsewhere and tells nothing about this page", () => {
    /** @type {any} */
    let link = null;
    walk(nodesOf(tokensOf("[docs](https://example.com/)")), (element) => (link = element.type === "a" ? element : link));
    expect(link.props).toMatchObject({ href: "https://example.com/", target: "_blank", rel: "noopener noreferrer nofollow" });
  });
  test("entities are read once", () => expect(textOf(nodesOf(tokensOf("a < b && `c < d` &amp;lt;")))).toBe("a < b && c < d &lt;"));
  test("entities in code are what was written", () => expect(textOf(nodesOf(tokensOf("`&lt;` is `&amp;lt;`\n\n|`&lt;`|\n|-|")))).toBe("&lt; is &amp;lt;&lt;"));
  test.each(["- [ ] one\n- [x] two", "- [ ] one\n\n- [x] two"])("the boxes of %j stand in front of their text", (source) => {
    const nodes = nodesOf(tokensOf(source));
    /** @type {boolean[]} */
    const checked = [];
    walk(nodes, ({ type, props }) => type === "input" && checked.push(props.checked));
    expect([textOf(nodes), ...checked]).toEqual(["onetwo", false, true]);
    walk(nodes, ({ type, props }) => {
      const [first, ...rest] = [props.children].flat(9);
      if (type === "p" || (type === "li" && first?.type !== "p")) expect([first.type, rest.length]).toEqual(["input", 1]);
    });
  });
  test("a page of HTML is shown line by line, as it was written", () => {
    const source = "<div>\n  <p>x</p>\n</div>\n\nx <b>y</b>";
    /** @type {string[]} */
    const written = [];
    walk(nodesOf(tokensOf(source)), ({ props }) => props.class === "as-written" && written.push(props.children));
    expect(written).toEqual(["<div>\n  <p>x</p>\n</div>"]);
  });
  test("the usual blocks become their elements", () => {
    /** @type {string[]} */
    const seen = [];
    walk(nodesOf(tokensOf("# a\n\n1. b\n2. c\n\n> d\n\n|e|\n|-|\n|f|\n\n```\ng\n```\n\n---\n\n**h** *i* ~~j~~")), (element) => seen.push(element.type));
    for (const name of ["h1", "ol", "li", "blockquote", "table", "th", "td", "pre", "hr", "strong", "em", "del"]) expect(seen).toContain(name);
  });
});

describe("what pretends to lead elsewhere", () => {
  test.each([
    ["[https://bank.example/](https://evil.example/x)", "https://bank.example/ (evil.example)"],
    ["[bank.example](https://evil.example/)", "bank.example (evil.example)"],
    ["[https://bank.example/?evil.example](https://evil.example/)", "https://bank.example/?evil.example (evil.example)"],
    ["[www.bank.example](mailto:x@evil.example)", "www.bank.example (x@evil.example)"],
    ["[a@bank.example](mailto:a@evil.example)", "a@bank.example (a@evil.example)"],
    ["[https://\u0430pple.example](https://\u0430pple.example/)", "https://\u0430pple.example (xn--pple-43d.example)"],
    ["[**https://bank.example/**](https://evil.example/)", "https://bank.example/ (evil.example)"],
    ["[`bank.example`](https://evil.example/)", "bank.example (evil.example)"],
    ["[\u200bhttps://bank.example/](https://evil.example/)", "⟦ZWSP⟧https://bank.example/ (evil.example)"],
    ["[bank\u2060.\u00adexample](https://evil.example/)", "bank⟦WJ⟧.⟦SHY⟧example (evil.example)"],
    ["[bank\u3002example](https://evil.example/)", "bank\u3002example (evil.example)"],
    ["[bank\uff0eexample](https://evil.example/)", "bank\uff0eexample (evil.example)"],
    ["[→ (https://bank.example/)](https://evil.example/)", "→ (https://bank.example/) (evil.example)"],
    ["[Log in at bank.example, please](https://evil.example/)", "Log in at bank.example, please (evil.example)"],
    ["[evil.example or bank.example](https://evil.example/)", "evil.example or bank.example (evil.example)"],
    ["[https:// bank.example](https://evil.example/)", "https:// bank.example (evil.example)"],
    ["[https://bank.](https://evil.example/)[example](https://evil.example/)", "https://bank. (evil.example)example (evil.example)"],
    ["[bank](https://evil.example/)[.example](https://other.example/)", "bank (evil.example).example (other.example)"],
    ["**[bank](https://evil.example/)**.\u200b[`example`/login](https://evil.example/)", "bank (evil.example).\u200bexample/login (evil.example)"],
    ["# [Log in at bank.](https://evil.example/)[example now](https://evil.example/)", "Log in at bank. (evil.example)example now (evil.example)"],
    ["|[bank.](https://evil.example/)[example](https://evil.example/)|\n|-|", "bank. (evil.example)example (evil.example)"],
    ["- <https://bank>.[example](https://evil.example/)", "https://bank (bank).example (evil.example)"],
    ["[a@](mailto:a@evil.example)[bank.example](mailto:a@evil.example)", "a@ (a@evil.example)bank.example (a@evil.example)"],
    ["[**ba\u200bnk**](https://evil.example/)", "ba⟦ZWSP⟧nk"],
    ["[https://bank.example](https://bank.example@evil.example/)", "https://bank.example (evil.example)"],
    ["<https://bank.example@evil.example/>", "https://bank.example@evil.example/ (evil.example)"],
    ["[https://bank.example:x@evil.example](https://evil.example/)", "https://bank.example:x@evil.example (evil.example)"],
    ["[write to help@bank.example](mailto:help@evil.example)", "write to help@bank.example (help@evil.example)"],
  ])("%s says so", (source, expected) => expect(textOf(nodesOf(tokensOf(source)))).toBe(expected));
  test.each([
    ["[here](https://example.com/)", "here"],
    ["[https://example.com/a](https://example.com/b)", "https://example.com/a"],
    ["[example.com](https://example.com/)", "example.com"],
    ["[a@example.com](mailto:a@example.com)", "a@example.com"],
    ["https://example.com/", "https://example.com/"],
    ["[chapter 1.2](https://example.com/)", "chapter 1.2"],
    ["[the docs, e.g. at example.com](https://example.com/)", "the docs, e.g. at example.com"],
    ["[Note: what is **new**](https://example.com/)", "Note: what is new"],
    ["[`https://example.com/`](https://example.com/)", "https://example.com/"],
    ["[example.](https://example.com/)[com](https://example.com/x)", "example.com"],
    ["[bank](https://a.example/) [.example](https://b.example/)", "bank .example"],
    ["[bank](https://a.example/), [the other](https://b.example/). [example](https://a.example/)", "bank, the other. example"],
    ["[1](https://a.example/)[2](https://b.example/)[Reuters](https://b.example/)", "12Reuters"],
    ["[**a@example.com**](mailto:a@example.com)", "a@example.com"],
  ])("%s needs no word more", (source, expected) => expect(textOf(nodesOf(tokensOf(source)))).toBe(expected));
});

test("a link is judged by a bounded text, however many stand beside each other", () => {
  for (const source of ["[abcdefghijklmnop.b](https://evil.example/)", "[abcdefghijklmnop.b\u00a0d.ef](https://evil.example/)"]) {
    const tokens = tokensOf(source.repeat(1000));
    nodesOf(tokens);
    const found = tokens[0]?.tokens?.filter(({ type }) => type === "link").map(({ joined }) => (joined ?? []).join("").length) ?? [];
    expect(found.length).toBeGreaterThan(500); // a piece may end in a link
    expect(Math.max(...found)).toBeLessThanOrEqual(1024);
    expect(found.filter((length) => length > 0).length).toBeGreaterThan(500);
  }
});

/** Each takes marked by itself many seconds, and each picture of a text that grows reads it again. */
const SLOW = ["a_", "1.**", "a ** b **", "]|**a", "<***~~)", "- - ", "1. ", "http://a?!.,"];

describe("what takes a parser long", () => {
  test.each(SLOW)("%j again and again is read in bounded time", (unit) => {
    const source = unit.repeat(64_000 / unit.length);
    expect(tokensOf(source).length).toBeGreaterThan(0);
  });
  test.each(["a\n", "a|b\n"])("a list item with %j again and again is read in bounded time", (unit) => {
    expect(textOf(nodesOf(tokensOf(`- ${unit.repeat(64_000 / unit.length)}`))).length).toBeGreaterThan(10_000);
  });
  test("the address of a link is read once, and only where there may be one", () => {
    const { URL } = globalThis;
    /** @type {string[]} */
    const read = [];
    globalThis.URL = class extends URL {
      /** @param {string | globalThis.URL} address */
      constructor(address) {
        super(address);
        read.push(String(address));
      }
    };
    try {
      nodesOf(tokensOf("[a](https://a.example/) [b](c) [](x/https:) ![d](ftp://e.example/) [](javascript:f)"));
    } finally {
      globalThis.URL = URL;
    }
    expect(read).toEqual(["https://a.example/"]);
  });
  test("an underlined heading is one in a bounded length, however much stands behind it", () => {
    const typesOf = (/** @type {string} */ source) => tokensOf(source).map(({ type }) => type);
    for (const source of ["a\n=", "a\nb\n---\n", `a\nb\n---\n${"c\n".repeat(1000)}`]) expect(typesOf(source)[0]).toBe("heading");
    expect(typesOf(`${"x".repeat(300)}\n---\n`)).toEqual(["paragraph", "hr"]);
    expect(typesOf(`${"x".repeat(200)}\n${"y".repeat(51)}\n---abc\n`)).toEqual(["paragraph"]);
  });
  test("a long paragraph is read piece by piece, between words, and none of it is lost", () => {
    const source = `${"**bold** 😀 ".repeat(5000)}*${"word ".repeat(2000)}*`;
    const nodes = nodesOf(tokensOf(source));
    let bold = 0;
    walk(nodes, (element) => {
      bold += element.type === "strong" ? 1 : 0;
      expect(element.type).not.toBe("em");
    });
    expect(bold).toBe(5000);
    expect(textOf(nodes)).toBe(source.replaceAll("**", ""));
  });
  test("a line with quotes and lists inside each other is plain text", () => {
    const source = "before\n\n" + "> - 1. ".repeat(30) + "x";
    expect(textOf(nodesOf(tokensOf(source)))).toBe(source);
    expect(textOf(nodesOf(tokensOf(`${"> - ".repeat(9)}x\n\n${"-".repeat(200)}`)))).toBe("x");
  });
});

test("what is nested too deeply is plain text", () => {
  const source = `${"> ".repeat(8000)}x`;
  expect(textOf(nodesOf(tokensOf(source)))).toBe(source);
});
