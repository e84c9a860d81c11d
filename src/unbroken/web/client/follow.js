/**
 * Owns one followed stream as an application sees it: an async iterable of messages, or callbacks, and its end.
 *
 * Made by unbroken.js, which feeds it events. It never loses a message to a slow reader: it pauses the stream instead.
 */

import { chain, encodedMessages, fromHex, toHex } from "./chain.js";
import { parseCursor } from "./cursor.js";
import { UnbrokenError } from "./errors.js";
import { Salts } from "./salts.js";

/** @import { Event, Message, PlacedMessage, StreamView } from "./types.js" */

/** Messages held for a reader that is behind, before the stream is paused, and when it goes on. */
export const HELD_MAX = 1000;
export const HELD_LOW = 250;

/**
 * @typedef {object} FollowOptions
 * @property {string} [after] `start` (default), `now`, `last:N`, a cursor `epoch:seq`
 * @property {(batch: {epoch: number, first: number, messages: Message[]}) => void} [onMessages] instead of iterating
 * @property {(event: Event) => void} [onEvent] gaps, trimmed messages, epoch changes, states, the end
 * @property {boolean | Record<number, string>} [verify] check the hash chain of every batch, and compare with heads that you trust
 *   (hex, by their seqs); a break ends the follow with code `verification`. The chain comes over WebSocket alone
 * @property {AbortSignal} [signal] leaves the stream
 *
 * @typedef {{pause: (paused: boolean) => void, leave: () => void}} Controls
 */

export class Follow {
  /** @type {StreamView | null} the latest known state of the stream */
  view = null;
  /** @type {Promise<StreamView>} the terminal state; rejects when the follow fails or is left */
  ended;
  /** @type {PlacedMessage[]} */
  #held = [];
  #paused = false;
  #over = false;
  /** @type {UnbrokenError | null} */
  #error = null;
  /** @type {(() => void) | null} */
  #wake = null;
  /** @type {{resolve: (view: StreamView) => void, reject: (error: Error) => void}} */
  #end;
  /** @type {Promise<unknown>} verified batches keep their order */
  #checks = Promise.resolve();
  #checking = false;
  /** @type {Uint8Array | null} */
  #hash = null;
  #hashEpoch = -1;
  #at = -1; // the message at which the chain is #hash
  #salts = new Salts();
  /** @type {Map<number, string>} heads by their seqs */
  #trusted = new Map();

  /**
   * @param {string} stream
   * @param {FollowOptions} options
   * @param {Controls} controls
   */
  constructor(stream, options, controls) {
    this.stream = stream;
    this.options = options;
    this.controls = controls;
    /** @type {((view: StreamView) => void) | undefined} */
    let resolve;
    /** @type {((error: Error) => void) | undefined} */
    let reject;
    if (typeof options.verify === "object") this.#trusted = new Map(Object.entries(options.verify).map(([seq, head]) => [Number(seq), head]));
    this.ended = new Promise((yes, no) => {
      resolve = yes;
      reject = no;
    });
    this.ended.catch(() => {}); // whoever wants to know awaits it
    this.#end = { resolve: /** @type {any} */ (resolve), reject: /** @type {any} */ (reject) };
    options.signal?.addEventListener("abort", () => this.leave(), { once: true });
  }

  /** Stop watching. The producer goes on: leaving is not cancelling. */
  leave() {
    if (this.#over) return;
    this.controls.leave();
    this.#finish(null, new UnbrokenError("left", "the stream was left"));
  }

  /**
   * Take an event of the session; called by the client alone.
   *
   * @param {Event} event
   * @param {string | null} text the frame as it arrived, where there is one
   */
  take(event, text) {
    if (this.options.verify || this.#checking) {
      this.#checking = true;
      this.#checks = this.#checks.then(async () => {
        if (!this.#over && (await this.#holds(event, text))) this.#handle(event);
      });
    } else this.#handle(event);
  }

  /** Messages with `seq` and `epoch`, until the terminal state; leaving the loop leaves the stream. */
  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        while (this.#held.length > 0) {
          yield /** @type {PlacedMessage} */ (this.#held.shift());
          if (this.#paused && this.#held.length <= HELD_LOW) this.#pause(false);
        }
        if (this.#over) {
          if (this.#error !== null && this.#error.code !== "left") throw this.#error;
          return;
        }
        await /** @type {Promise<void>} */ (new Promise((resolve) => (this.#wake = resolve)));
      }
    } finally {
      this.leave();
    }
  }

  /** @param {Event} event */
  #handle(event) {
    if (this.#over) return;
    if (event.event === "messages") this.#messages(event);
    if ("view" in event) this.view = event.view;
    this.options.onEvent?.(event);
    if (event.event === "ended") this.#finish(event.view, null);
    else if (event.event === "failed") this.#finish(null, new UnbrokenError(event.code, event.message, { detail: event.detail }));
  }

  /** @param {{epoch: number, first: number, messages: Message[]}} event */
  #messages({ epoch, first, messages }) {
    if (this.options.onMessages !== undefined) {
      this.options.onMessages({ epoch, first, messages });
      return;
    }
    messages.forEach((message, index) => this.#held.push({ ...message, seq: first + index, epoch }));
    if (!this.#paused && this.#held.length >= HELD_MAX) this.#pause(true);
    this.#ring();
  }

  /** @param {boolean} paused */
  #pause(paused) {
    this.#paused = paused;
    if (!this.#over) this.controls.pause(paused);
  }

  /** @param {StreamView | null} view @param {UnbrokenError | null} error */
  #finish(view, error) {
    this.#over = true;
    this.#error = error;
    if (view !== null) this.#end.resolve(view);
    else this.#end.reject(error ?? new UnbrokenError("left"));
    this.#ring();
  }

  #ring() {
    this.#wake?.();
    this.#wake = null;
  }

  /** Whether the chain holds up to the end of `event`. @param {Event} event @param {string | null} text */
  async #holds(event, text) {
    if (event.event === "subscribed") {
      const { epoch, seq } = parseCursor(event.cursor) ?? { epoch: -1, seq: -1 };
      if (epoch !== this.#hashEpoch) this.#hash = null;
      this.#hashEpoch = epoch;
      this.#salts = new Salts(event.salts);
      if (event.hash === "") return this.#broken(seq, seq, "the hash chain is not told here: it comes over WebSocket");
      if (this.#hash === null) {
        this.#hash = fromHex(event.hash);
        this.#at = seq;
      }
      const known = this.#trusted.get(seq) ?? (this.#at === seq ? toHex(this.#hash) : event.hash);
      if (known !== event.hash) return this.#broken(seq, seq);
    } else if (event.event === "epoch_changed" || (event.event === "trimmed" && event.missing > 0)) this.#hash = null;
    else if (event.event === "messages") return this.#checked(event, text);
    else if (event.event === "ended") {
      const last = Math.max(0, ...this.#trusted.keys());
      if (last > event.view.head) return this.#broken(event.view.head + 1, last);
    }
    return true;
  }

  /** @param {Extract<Event, {event: "messages"}>} event @param {string | null} text */
  async #checked(event, text) {
    const { first, count } = event;
    const encoded = (text === null ? null : encodedMessages(text))?.slice(-count);
    if (encoded?.length !== count || event.hash === "" || this.#hash === null) return this.#broken(first, first + count - 1);
    let at = 0;
    for (const seq of [...[...this.#trusted.keys()].filter((place) => first <= place && place < first + count).sort((a, b) => a - b), first + count - 1]) {
      this.#hash = await chain(this.#hash, first + at, encoded.slice(at, seq - first + 1), this.#salts);
      at = seq - first + 1;
      if ((this.#trusted.get(seq) ?? toHex(this.#hash)) !== toHex(this.#hash)) return this.#broken(first, seq);
    }
    this.#at = first + count - 1;
    return toHex(this.#hash) === event.hash || this.#broken(first, first + count - 1);
  }

  /** @param {number} seq @param {number} last @param {string} [why] */
  #broken(seq, last, why = `the hash chain does not hold in ${seq === last ? `message ${seq}` : `messages ${seq} to ${last}`}`) {
    this.controls.leave();
    this.#finish(null, new UnbrokenError("verification", why, { detail: { seq, last } }));
    return false;
  }
}
