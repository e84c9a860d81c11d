/**
 * Owns the way from Markdown to nodes: marked's lexer, then an allow-list of elements built here.
 *
 * Called by the Markdown view. It never makes HTML from a string: raw HTML is shown as text, images as links, and a link
 * goes to http, https or mailto or is not a link.
 */

import { Lexer, Tokenizer } from "../vendor/marked.esm.js";
import { h } from "./html.js";
import { hiddenPlace, joinNeighbours } from "./places.js";
import { distinct } from "./unseen.js";

/** @import { Token } from "../vendor/marked.esm.js" */

const SCHEMES = new Set(["http:", "https:", "mailto:"]);
const SCHEME = /^[a-z][a-z0-9+.-]*:/i;
const DEPTH_MAX = 40;
/** marked takes time in the cube of the marks of emphasis in a paragraph: it reads it in pieces of about so much, cut between words. */
const PIECE_MARKS = 64;
const PIECE_CHARACTERS = 4096;
/** In a list item marked looks from each line to the end of the paragraph for a line that makes a heading of it all: so far at most. */
const HEADING_CHARACTERS_MAX = 256;
/** Quotes and lists inside each other, written in one line, which take it as long. */
const TOO_NESTED = /^(?:[ \t]*(?:>|[-+*][ \t]|\d{1,9}[.)][ \t])){65}/m;
const ENTITIES = /** @type {Record<string, string>} */ ({ "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'" });

/** Finds underlined headings of a bounded length; a longer one is a paragraph with a line below. */
class BoundedTokenizer extends Tokenizer {
  /** @override @param {string} source */
  lheading(source) {
    const whole = source.length <= HEADING_CHARACTERS_MAX;
    return super.lheading(whole ? source : source.slice(0, source.lastIndexOf("\n", HEADING_CHARACTERS_MAX) + 1));
  }
}

/** Reads what stands in a line or paragraph piece by piece; what would go over a cut stays as it was written. */
class PieceLexer extends Lexer {
  /** @override @param {string} source @param {Token[]} [tokens] @returns {Token[]} */
  inlineTokens(source, tokens = []) {
    for (const piece of piecesOf(source)) super.inlineTokens(piece, tokens);
    return tokens;
  }
}

/** `source` cut between words, or anywhere but in a character where there is no room between any. @param {string} source */
function piecesOf(source) {
  const pieces = [];
  let from = 0;
  let marks = 0;
  for (let at = 0; at < source.length; at += 1) {
    const code = source.charCodeAt(at);
    const share = Math.max((at - from) / PIECE_CHARACTERS, marks / PIECE_MARKS);
    if (share >= 1 && (code === 32 || code === 10 || (share >= 2 && (code < 0xdc00 || code > 0xdfff)))) {
      pieces.push(source.slice(from, at));
      from = at;
      marks = 0;
    }
    if (code === 42 || code === 95 || code === 126) marks += 1; // * _ ~
  }
  pieces.push(source.slice(from));
  return pieces;
}

/** What is nested too deeply to be read is one block of plain text. @param {string} source @returns {Token[]} */
export function tokensOf(source) {
  const plain = [{ type: "code", raw: source, text: source }];
  if (TOO_NESTED.test(source)) return plain;
  try {
    return new PieceLexer({ gfm: true, tokenizer: new BoundedTokenizer() }).lex(source);
  } catch (error) {
    if (!(error instanceof Error)) throw error; // the stack is full: RangeError here, InternalError in Firefox
    return plain;
  }
}

/**
 * @param {Token[] | undefined} tokens
 * @param {number} [depth]
 * @returns {any[]}
 */
export function nodesOf(tokens, depth = 0) {
  if (depth > DEPTH_MAX) return (tokens ?? []).map((token) => token.raw);
  return (tokens ?? []).map((token) => nodeOf(token, depth));
}

/**
 * An address that may be followed, or null.
 *
 * @param {unknown} href
 * @returns {string | null}
 */
export function safeAddress(href) {
  if (typeof href !== "string") return null;
  const text = decoded(href).trim();
  // Browsers drop tabs and line ends inside addresses, and leading controls: whoever hides a scheme with them gets no link.
  if (/[\x00-\x20\x7f-\x9f]/.test(text)) return null;
  // Relative: there is nothing of the writer's here to link to. Making an error of it takes longer than looking.
  if (!SCHEMES.has((SCHEME.exec(text)?.[0] ?? "").toLowerCase())) return null;
  try {
    return new URL(text).href;
  } catch {
    return null;
  }
}

/** @param {Token} token @param {number} depth @returns {any} */
function nodeOf(token, depth) {
  const inner = () => (token.tokens === undefined ? decoded(token.text ?? "") : nodesOf(token.tokens, depth + 1));
  const whole = () => (token.tokens === undefined ? inner() : nodesOf(withJoined(token.tokens), depth + 1));
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "heading":
      return h(`h${Math.min(Math.max(Number(token.depth) || 1, 1), 6)}`, null, whole());
    case "paragraph":
      return h("p", null, whole());
    case "blockquote":
      return h("blockquote", null, inner());
    case "code":
      return h("pre", null, h("code", null, token.text ?? ""));
    case "hr":
      return h("hr", null);
    case "list":
      return list(token, depth);
    case "table":
      return table(token, depth);
    case "text":
      return whole();
    case "escape":
      return decoded(token.text ?? "");
    case "strong":
    case "em":
    case "del":
      return h(token.type, null, inner());
    case "codespan":
      return h("code", null, token.text ?? "");
    case "br":
      return h("br", null);
    case "link":
      return link(inner(), token);
    case "image":
      return link(["[image: ", decoded(token.text ?? ""), "]"], token);
    case "checkbox":
      return h("input", { type: "checkbox", checked: Boolean(token.checked), disabled: true });
    case "html":
      return token.block ? h("p", { class: "as-written" }, token.raw.trimEnd()) : token.raw;
    default:
      return token.raw ?? "";
  }
}

/** Where a link may lead, found once. @param {Token} token @returns {string | null} */
function addressOf(token) {
  if (token.address === undefined) token.address = safeAddress(token.href);
  return token.address;
}

/** @param {any} children @param {Token} token */
function link(children, token) {
  const address = addressOf(token);
  if (address === null) return token.raw;
  const texts = [shownText(children), ...(token.joined ?? [])];
  const place = texts.map((text) => hiddenPlace(text, address)).find((found) => found !== null) ?? null;
  const made = h("a", { href: address, rel: "noopener noreferrer nofollow", target: "_blank", title: address }, withNothingUnseen(children));
  return place === null ? made : [made, h("span", { class: "link-place" }, ` (${place})`)];
}

/** Tokens of one paragraph, heading or cell, in which links know their neighbours. @param {Token[]} tokens */
function withJoined(tokens) {
  joinNeighbours(tokens, (token) => (token.type === "link" || token.type === "image") && addressOf(token) !== null, wordsOf);
  return tokens;
}

/** The text that a reader sees of an inline token. @param {Token} token @returns {string} */
function wordsOf(token) {
  if (token.type === "br") return "\n";
  if (token.type === "html" || token.type === "codespan") return token.text ?? "";
  return token.tokens === undefined ? decoded(token.text ?? token.raw ?? "") : token.tokens.map(wordsOf).join("");
}

/** The text that a reader sees of nodes. @param {any} node @returns {string} */
function shownText(node) {
  if (Array.isArray(node)) return node.map(shownText).join("");
  if (typeof node === "string") return node;
  return node ? shownText(node.props?.children) : "";
}

/** Nodes just made, their texts as those of names. @param {any} node @returns {any} */
function withNothingUnseen(node) {
  if (Array.isArray(node)) return node.map(withNothingUnseen);
  if (typeof node === "string") return distinct(node);
  if (node?.props) node.props.children = withNothingUnseen(node.props.children);
  return node;
}

/** @param {Token} token @param {number} depth */
function list(token, depth) {
  const items = (token.items ?? []).map((/** @type {Token} */ item) => {
    return h("li", item.task ? { class: "task" } : null, nodesOf(item.tokens, depth + 1));
  });
  return token.ordered ? h("ol", { start: Number(token.start) || 1 }, items) : h("ul", null, items);
}

/** @param {Token} token @param {number} depth */
function table(token, depth) {
  /** @param {string} name @param {Token} cell @param {number} column */
  const cellOf = (name, cell, column) => h(name, { class: `align-${token.align?.[column] ?? "none"}` }, nodesOf(withJoined(cell.tokens ?? []), depth + 1));
  const head = h("tr", null, token.header.map((/** @type {Token} */ cell, /** @type {number} */ column) => cellOf("th", cell, column)));
  const rows = token.rows.map((/** @type {Token[]} */ row) => h("tr", null, row.map((cell, column) => cellOf("td", cell, column))));
  return h("div", { class: "table" }, h("table", null, h("thead", null, head), h("tbody", null, rows)));
}

/** marked escapes text in a few tokens; a text node wants it plain. @param {string} text */
function decoded(text) {
  return text.replace(/&(?:amp|lt|gt|quot|#39);/g, (entity) => ENTITIES[entity] ?? entity);
}
