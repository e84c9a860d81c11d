/**
 * Owns the rules for one followed stream: what is new, what overlaps, where messages are missing (PROTOCOL.md 4.4, 1 to 3).
 *
 * Called by session.js, which sends what these functions ask for. It never does I/O and never reads a clock.
 */

import { formatCursor, isTerminal, parseCursor } from "./cursor.js";

/** @import { Cursor } from "./cursor.js" */
/** @import { Frame, Output, StreamView } from "./types.js" */

/** Gaps in a row without one new message, after which the connection itself is not to be trusted. */
export const GAPS_MAX = 3;

export class Subscription {
  /**
   * @param {string} stream
   * @param {string} after where the application wants to begin
   */
  constructor(stream, after) {
    this.stream = stream;
    this.after = after;
    /** @type {Cursor | null} the place of the last message handled, once it is known */
    this.cursor = parseCursor(after);
    /** @type {number | null} the id of the latest subscribe that has no answer yet */
    this.pending = null;
    this.paused = false;
    /** Wants to be sent again when the wait after a retryable error is over. */
    this.waiting = false;
    this.gaps = 0;
  }

  /** Where to subscribe: after the last message handled, or as the application said. */
  get place() {
    return this.cursor === null ? this.after : formatCursor(this.cursor);
  }

  /**
   * The answer to a subscribe; one that was replaced meanwhile is ignored.
   *
   * @param {Frame} frame
   * @returns {Output[]}
   */
  subscribed(frame) {
    if (frame.id !== this.pending) return [];
    this.pending = null;
    /** @type {Output[]} */
    const out = [];
    const told = parseCursor(String(frame.cursor));
    if (told === null) return [];
    if (this.cursor === null) this.cursor = told;
    else if (this.cursor.epoch !== told.epoch) {
      this.cursor = told;
      out.push({ event: "epoch_changed", stream: this.stream, epoch: told.epoch });
    }
    out.push({ event: "subscribed", stream: this.stream, cursor: String(frame.cursor), hash: String(frame.hash ?? ""), salts: String(frame.salts ?? ""), view: frame.stream });
    return out;
  }

  /**
   * A batch: hands on what is new and dense. `resubscribe` is true when messages are missing and must be asked for.
   *
   * @param {Frame} frame
   * @returns {{out: Output[], resubscribe: boolean}}
   */
  messages(frame) {
    const { stream, cursor } = this;
    const first = Number(frame.first);
    const count = frame.messages.length;
    /** @param {"overlap" | "gap" | "epoch" | "unknown"} why @param {number} n @returns {Output} */
    const dropped = (why, n) => ({ event: "dropped", stream, count: n, why });
    if (cursor === null) return { out: [dropped("unknown", count)], resubscribe: false };
    if (frame.epoch !== cursor.epoch) return { out: [dropped("epoch", count)], resubscribe: false };
    const expected = cursor.seq + 1;
    if (first > expected) {
      const { out, resubscribe } = this.#missing(first);
      return { out: [dropped("gap", count), ...out], resubscribe };
    }
    const held = Math.min(expected - first, count);
    /** @type {Output[]} */
    const out = held > 0 ? [dropped("overlap", held)] : [];
    if (held < count) {
      this.cursor = { epoch: cursor.epoch, seq: first + count - 1 };
      this.gaps = 0;
      const messages = held > 0 ? frame.messages.slice(held) : frame.messages;
      out.push({ event: "messages", stream, epoch: cursor.epoch, first: first + held, count: count - held, messages, hash: String(frame.hash ?? "") });
    }
    return { out, resubscribe: false };
  }

  /**
   * A state: a terminal one ends the subscription, unless messages in front of it are missing.
   *
   * @param {StreamView} view
   * @returns {{out: Output[], resubscribe: boolean, ended: boolean}}
   */
  state(view) {
    const { stream, cursor } = this;
    if (cursor === null || view.epoch !== cursor.epoch) return { out: [], resubscribe: false, ended: false };
    if (!isTerminal(view.state)) return { out: [{ event: "state", stream, state: view.state, view }], resubscribe: false, ended: false };
    if (view.head > cursor.seq) return { ...this.#missing(view.head + 1), ended: false };
    return { out: [{ event: "ended", stream, state: view.state, view }], resubscribe: false, ended: true };
  }

  /**
   * What was held belongs to an earlier incarnation of the name.
   *
   * @param {number} epoch
   * @returns {Output[]}
   */
  epochChanged(epoch) {
    this.cursor = null;
    this.after = "start";
    return [{ event: "epoch_changed", stream: this.stream, epoch }];
  }

  /**
   * Messages in front of `first` can no longer be had.
   *
   * @param {number} first
   * @returns {Output[]}
   */
  trimmed(first) {
    const held = this.cursor === null ? Number(this.after) || 0 : this.cursor.seq;
    if (this.cursor === null) this.after = String(first - 1);
    else this.cursor = { epoch: this.cursor.epoch, seq: first - 1 };
    return [{ event: "trimmed", stream: this.stream, missing: Math.max(first - 1 - held, 0), first }];
  }

  /**
   * @param {number} first
   * @returns {{out: Output[], resubscribe: boolean}}
   */
  #missing(first) {
    if (this.pending !== null || this.cursor === null) return { out: [], resubscribe: false };
    this.gaps += 1;
    return { out: [{ event: "gap", stream: this.stream, expected: this.cursor.seq + 1, first }], resubscribe: true };
  }
}
