/**
 * Owns what the page knows of the share links of one stream: those there are, the one just made, and their end.
 *
 * Made by share.js. The secret of a new link is in `made` as long as this is, and nowhere else.
 */

import { UnbrokenError } from "../client/unbroken.js";
import { formatLink } from "./route.js";

/** @import { Client } from "../client/unbroken.js" */
/** @import { Grant, StreamView, TokenView } from "../client/types.js" */

/** How long a link may be asked to last; the server has the last word. */
export const LASTS = Object.freeze([
  { words: "an hour", seconds: 3600 },
  { words: "a day", seconds: 86_400 },
  { words: "a week", seconds: 604_800 },
  { words: "30 days", seconds: 2_592_000 },
]);
export const DAY = 86_400;

const PAGE_TOKENS = 500;
/** How much of the listing is read: what a server keeps for one owner by default, twice. */
const PAGES_MAX = 4;

/**
 * @typedef {{id: string, label: string, created: number, expires: number | null, wider: boolean}} Link `wider`: it opens more than this stream
 * @typedef {{id: string, address: string, expires: number | null, early: boolean}} MadeLink `early`: it ends before the time that was asked for
 */

export class Links {
  /** @type {Link[] | null} newest first; null until they are read */
  links = null;
  /** Whether the listing went on behind what was read. */
  more = false;
  /** @type {MadeLink | null} */
  made = null;
  making = false;
  /** @type {ReadonlySet<string>} the ids of those that are being ended */
  ending = new Set();
  /** What was done, to be said. */
  said = "";
  /** Why the last wish was not fulfilled. */
  error = "";
  /** Why the links there are cannot be shown. */
  unread = "";
  /** @type {Set<string>} the ids of those that were ended here */
  #ended = new Set();

  /**
   * @param {Client} client
   * @param {StreamView} view of the stream
   * @param {string} page the page's own address
   * @param {() => void} changed is told of every change
   */
  constructor(client, view, page, changed) {
    this.client = client;
    this.stream = view.stream;
    this.epoch = view.epoch;
    this.page = page;
    this.changed = changed;
  }

  async read() {
    try {
      /** @type {Link[]} */
      const links = [];
      let next = null;
      for (let page = 0; page < PAGES_MAX; page += 1) {
        const answer = await this.client.tokens.list({ limit: PAGE_TOKENS, page: next ?? undefined });
        for (const token of answer.tokens) if (opens(token, this.stream, this.epoch)) links.push(linkOf(token));
        next = answer.next ?? null;
        if (next === null) break;
      }
      const made = (this.links ?? []).filter(({ id }) => links.every((link) => link.id !== id)); // while this was read
      this.links = [...made, ...links].filter(({ id }) => !this.#ended.has(id));
      this.more = next !== null;
      this.unread = "";
    } catch (error) {
      this.unread = wordsOf(error);
    }
    this.changed();
  }

  /** One link, however often it is asked for while it is made. @param {number} seconds @param {string} label */
  async make(seconds, label) {
    if (this.making) return;
    this.#begin();
    this.making = true;
    this.changed();
    try {
      const token = await this.client.tokens.share(this.stream, { epoch: this.epoch, expiresIn: seconds, label });
      const early = token.expires !== null && token.expires < token.created + seconds * 1000;
      this.made = { id: token.id, address: formatLink(this.page, this.stream, token.token), expires: token.expires, early };
      this.links = [linkOf(token), ...(this.links ?? [])];
    } catch (error) {
      this.error = `No link was made: ${wordsOf(error)}.`;
    }
    this.making = false;
    this.changed();
  }

  /** End a link; one that is gone already is as good as ended. @param {string} id */
  async revoke(id) {
    if (this.ending.has(id)) return;
    this.#begin();
    this.ending = new Set([...this.ending, id]);
    this.changed();
    try {
      await this.client.tokens.revoke(id).catch((error) => {
        if (!(error instanceof UnbrokenError && error.code === "not_found")) throw error;
      });
      this.#ended.add(id);
      this.links = (this.links ?? []).filter((link) => link.id !== id);
      if (this.made?.id === id) this.made = null;
      this.said = "Revoked. Whoever has that link can read no more.";
    } catch (error) {
      this.error = `The link was not revoked: ${wordsOf(error)}.`;
    }
    this.ending = new Set([...this.ending].filter((one) => one !== id));
    this.changed();
  }

  /** @param {string} said */
  say(said) {
    this.#begin();
    this.said = said;
    this.changed();
  }

  #begin() {
    this.said = this.error = "";
  }
}

/** Whether a token is a link with which this stream can be read. @param {TokenView} token @param {string} stream @param {number} epoch */
function opens({ kind, grants }, stream, epoch) {
  return kind === "link" && (grants ?? []).some((grant) => covers(grant, stream, epoch));
}

/** @param {Grant} grant @param {string} stream @param {number} epoch */
function covers(grant, stream, epoch) {
  const named = grant.prefix ? stream.startsWith(grant.name) : stream === grant.name;
  return named && (grant.epoch ?? epoch) === epoch;
}

/** What is kept of a token: never its secret. @param {TokenView} token @returns {Link} */
function linkOf({ id, label, created, expires, grants }) {
  return { id, label, created, expires, wider: (grants ?? []).length > 1 || grants?.[0]?.prefix === true };
}

/** @param {unknown} error */
function wordsOf(error) {
  return (error instanceof Error ? error.message : String(error)).replace(/\.$/, "");
}
