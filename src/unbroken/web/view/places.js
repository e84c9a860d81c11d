/**
 * Owns when the place that a link leads to is to stand behind it: when a reader takes its text for another address.
 *
 * Called by markdown.js, with the text as it is shown. It knows nothing of nodes, and of tokens only which ones are links.
 */

/** @import { Token } from "../vendor/marked.esm.js" */

/** A scheme, `www.`, something with `@`, or a name with a dot in it and nothing in front. */
const LIKE_ADDRESS = /^(?:[a-z][a-z0-9+.-]*:|www\.|[^\s@]+@[^\s@]+$|[^\s/?#]+\.[^\s/?#.]{2,}(?:[/?#:]|$))/iu;
/** The same for a word among others, where `1.2` and `e.g.` are no addresses. */
const LIKE_ADDRESS_AMONG_WORDS = /^(?:[a-z][a-z0-9+.-]*:\/\/|mailto:|www\.|[^\s@]+@[^\s@]+\.[^\s@]+$|[^\s/?#]+\.\p{L}{2,}(?:[^\p{L}\p{N}_.-]|$))/iu;
/** What takes no room, and what a reader takes for a dot in a name. */
const UNSEEN = /[\p{Cf}\p{Default_Ignorable_Code_Point}]/gu;
const DOTS = /[\u3002\uff61]/g;
const AROUND_WORD = /^[^\p{L}\p{N}]+|[.,;!?'")\]}>\u2026\u00bb\u201c\u201d\u2019]+$/gu;
/** What an address that is put together of several links may have between them. */
const BETWEEN = /^[.:/@_-]*$/;
const BETWEEN_CHARACTERS_MAX = 64;
/** So much of a word is judged: a name has 253 characters at most. */
const WORD_CHARACTERS_MAX = 512;

/** @typedef {{token: Token, from: number, to: number}} Span where the text of a link is */

/**
 * Where a link really leads, when a word of its text looks like an address and the reader may take it for another one: it names
 * another host, or names one in front of an `@`, or the host is written with letters that look like others.
 *
 * @param {string} text as it is shown
 * @param {string} address
 * @returns {string | null}
 */
export function hiddenPlace(text, address) {
  const words = asRead(text).split(/\s+/).map((word) => word.replace(AROUND_WORD, "")).filter(Boolean);
  const like = words.length > 1 ? LIKE_ADDRESS_AMONG_WORDS : LIKE_ADDRESS;
  const addresses = words.filter((word) => like.test(word));
  if (addresses.length === 0) return null;
  const url = new URL(address);
  const place = url.protocol === "mailto:" ? url.pathname : url.host;
  return place.includes("xn--") || !addresses.every((word) => names(word, url)) ? place : null;
}

/**
 * Tell each link that stands right beside another one which words both read together, as its `joined`: two at most.
 *
 * @param {Token[]} tokens of one paragraph, heading or cell
 * @param {(token: Token) => boolean} leads whether a token becomes a link
 * @param {(token: Token) => string} textOf
 */
export function joinNeighbours(tokens, leads, textOf) {
  /** @type {Span[]} */
  let run = [];
  let text = "";
  let between = "";
  const end = () => {
    if (run.length > 1) tellWords(text, run);
    run = [];
    text = between = "";
  };
  const visit = (/** @type {Token} */ token) => {
    if (leads(token)) {
      const from = text.length + between.length;
      text += between + textOf(token);
      between = "";
      run.push({ token, from, to: text.length });
    } else if (token.tokens !== undefined) token.tokens.forEach(visit);
    else if (run.length > 0) {
      between += textOf(token);
      if (between.length > BETWEEN_CHARACTERS_MAX || !BETWEEN.test(asRead(between))) end();
    }
  };
  tokens.forEach(visit);
  end();
}

/** Tell links of the words in `text` that more than one of them has a part in. @param {string} text @param {Span[]} run where its links are in it */
function tellWords(text, run) {
  let first = 0;
  for (const { 0: word, index } of text.matchAll(/\S+/g)) {
    while (run[first] !== undefined && /** @type {Span} */ (run[first]).to <= index) first += 1;
    let behind = first;
    while (run[behind] !== undefined && /** @type {Span} */ (run[behind]).from < index + word.length) behind += 1;
    if (behind - first > 1) for (const { token } of run.slice(first, behind)) token.joined = [...(token.joined ?? []), word.slice(0, WORD_CHARACTERS_MAX)];
  }
}

/** @param {string} text */
function asRead(text) {
  return text.normalize("NFKC").replace(UNSEEN, "").replace(DOTS, ".");
}

/** Whether that names where `url` leads, and nothing else. @param {string} word @param {URL} url */
function names(word, { host, pathname, protocol, username, password }) {
  if (protocol === "mailto:") return word.replace(/^mailto:/i, "") === pathname;
  if (username !== "" || password !== "") return false;
  try {
    const named = new URL(word.includes("://") ? word : `https://${word}`);
    return named.host === host && named.username === "" && named.password === "";
  } catch {
    return false;
  }
}
