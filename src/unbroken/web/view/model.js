/**
 * Owns one open stream as the page holds it: a bounded, dense window of its messages, and the rules drawn between them.
 *
 * Made by app.js for the stream in the address, drawn by log.js. It never touches the document: it hands over what to draw
 * once for each animation frame.
 */

import { formatCursor, isTerminal, UnbrokenError } from "../client/unbroken.js";
import { RunCard, summaryUpTo } from "./card.js";
import { counted, number } from "./format.js";
import { noteOf } from "./notes.js";
import { recall, remember, Resume } from "./resume.js";

/** @import { Client, Follow } from "../client/unbroken.js" */
/** @import { Kept } from "./kept.js" */
/** @import { Event, Message, StreamView } from "../client/types.js" */

/** What is read of a long stream at first, and for each step upwards. */
export const PAGE_MESSAGES = 500;
/** How far back a reload goes to meet what was shown before it. */
const REJOIN_MESSAGES = 3000;
/** What the window holds; the far end is dropped and read again when wanted. */
const WINDOW_MESSAGES = 5000;
const WINDOW_CHARACTERS = 2_000_000;
/** What is left of it then: a little less, so that no single frame has much to remove. */
const WINDOW_KEPT = 0.95;
const REMEMBER_MILLISECONDS = 1000;
const RETRY_MILLISECONDS = 1000;

/**
 * @typedef {{kind: "resume" | "gap" | "trimmed" | "epoch", words: string, loud: boolean}} Mark
 * @typedef {{seq: number, epoch: number, message: Message, size: number, note: string | null}} Entry `note` is how a run's message is said in a line
 * @typedef {Entry | {mark: Mark}} Item
 *
 * @typedef {object} Drawing what log.js does
 * @property {(items: Item[]) => void} reset
 * @property {(items: Item[]) => void} append
 * @property {(items: Item[]) => void} prepend
 * @property {(seq: number) => void} dropBelow everything in front of message `seq` may go; the drawing says how much went
 * @property {(mark: Mark) => void} remark
 */

export class StreamModel {
  /** @type {"loading" | "following" | "ended" | "failed" | "missing"} */
  phase = "loading";
  /** @type {StreamView | null} */
  view = null;
  /** @type {RunCard | null} what is known of the run, when the stream is one */
  card = null;
  /** @type {UnbrokenError | null} */
  error = null;
  /** @type {Item[]} what is drawn */
  items = [];
  /** Seq of the last message drawn, and of the last received. */
  shown = 0;
  received = 0;
  /** Seq of the first message of the window; 0 when it is empty. */
  oldest = 0;
  target = 0;
  paused = false;
  loadingOlder = false;
  /** @type {Drawing | null} */
  drawing = null;
  /** @type {Item[]} what the next frame draws */
  #pending = [];
  #skipped = false;
  #characters = 0;
  #left = 0;
  /** @type {Follow | null} */
  #follow = null;
  /** @type {Resume | null} */
  #resume = null;
  /** @type {Mark | null} */
  #resumeMark = null;
  #epoch = 0;
  /** When the connection was lost, and the last message received before. */
  #lostAt = 0;
  #lostFrom = 0;
  /** When the browser stopped the page; 0 while it runs. */
  #frozenAt = 0;
  #rememberedAt = Number.NEGATIVE_INFINITY;
  #frame = 0;
  #gone = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;

  /**
   * @param {Client} client
   * @param {string} name
   * @param {{changed: () => void, storage: Kept}} host
   */
  constructor(client, name, host) {
    this.client = client;
    this.name = name;
    this.host = host;
  }

  /** Messages that have come and are not read yet, for the "new" button. */
  get unread() {
    return this.#left === 0 ? 0 : Math.max(this.received - this.#left, 0);
  }

  /** Messages between here and the head when the subscription stood. */
  get behind() {
    return this.phase === "following" ? Math.max(this.target - this.received, 0) : 0;
  }

  get hasOlder() {
    return this.view !== null && this.oldest > this.view.first;
  }

  /** Read the state and follow from near the tail; a server that is away is asked again. */
  async open() {
    try {
      this.know(await this.client.state(this.name));
    } catch (error) {
      if (this.#gone) return;
      this.error = error instanceof UnbrokenError ? error : new UnbrokenError("failed", String(error));
      const missing = this.error.code === "not_found";
      if (!this.error.retryable) this.phase = missing ? "missing" : "failed";
      // a link may be opened before its stream is there: output is delivered later when the server was away
      if (missing || this.error.retryable) this.#retry = setTimeout(() => void this.open(), RETRY_MILLISECONDS);
      this.host.changed();
      return;
    }
    if (this.#gone || this.view === null) return;
    this.error = null;
    const { view } = this;
    const seen = recall(this.host.storage, this.name);
    const known = seen !== null && seen.epoch === view.epoch && seen.seq <= view.head ? seen : null;
    const place = placeOf(view, known?.seq ?? null);
    const summary = await summaryUpTo(this.client, view, place);
    if (this.#gone) return;
    this.card?.begin(summary, place);
    if (seen !== null && seen.epoch !== view.epoch) this.#put({ kind: "epoch", loud: true, words: "this is a new stream of the same name: what was shown before is gone" });
    this.#begin(view, place, known);
    this.host.changed();
  }

  /** Take what is known newer of the stream. @param {StreamView} view */
  know(view) {
    this.view = view;
    if (!view.run) this.card = null;
    else if (this.card === null) this.card = new RunCard(view);
    else this.card.update(view);
  }

  /** Leave: the producer goes on. */
  close() {
    this.#gone = true;
    this.save();
    clearTimeout(this.#retry);
    cancelAnimationFrame(this.#frame);
    this.#follow?.leave();
    this.drawing = null;
  }

  /** Note what was shown, so that a reload can say what it has cost. */
  save() {
    if (this.shown > 0) remember(this.host.storage, this.name, { epoch: this.#epoch, seq: this.shown, at: this.#lostAt || Date.now() });
  }

  /** The connection is gone; the next subscription is a resumption. */
  disconnected() {
    if (this.#lostAt > 0 || this.phase !== "following") return;
    this.#lostAt = this.#frozenAt || Date.now();
    this.#lostFrom = this.received;
  }

  /** The browser stops the page: what is lost until `thawed` was lost now. */
  frozen() {
    this.#frozenAt = Date.now();
    this.save();
  }

  thawed() {
    this.#frozenAt = 0;
  }

  /** @param {Drawing} drawing */
  attach(drawing) {
    this.drawing = drawing;
    drawing.reset(this.items);
    this.#schedule();
  }

  /** The reader has left the tail, or is back. @param {boolean} following */
  tail(following) {
    if (following === (this.#left === 0)) return;
    this.#left = following ? 0 : Math.max(this.shown, 1);
    if (following) this.#schedule();
    this.host.changed();
  }

  /** @param {boolean} paused */
  pause(paused) {
    this.paused = paused;
    if (!paused) this.#schedule();
    this.host.changed();
  }

  /** Draw the newest, whatever was in between. */
  catchUp() {
    this.#left = 0;
    this.paused = false;
    this.#schedule();
    this.host.changed();
  }

  /** One page further up. */
  async loadOlder() {
    if (!this.hasOlder || this.loadingOlder || this.oldest === 0) return;
    this.loadingOlder = true;
    this.host.changed();
    const until = this.oldest - 1;
    let at = Math.max((this.view?.first ?? 1) - 1, until - PAGE_MESSAGES);
    /** @type {Item[]} */
    const found = [];
    try {
      while (at < until) {
        const page = await this.client.read(this.name, { after: formatCursor({ epoch: this.#epoch, seq: at }), limit: until - at });
        if (page.messages.length === 0) break;
        for (const [index, message] of page.messages.entries()) found.push(this.#entry(page.first + index, this.#epoch, message));
        at = page.first + page.messages.length - 1;
      }
      if (!this.#gone && this.oldest === until + 1 && at === until) this.#older(found);
    } catch (error) {
      if (error instanceof UnbrokenError && error.code === "trimmed" && this.view !== null) this.view = { ...this.view, first: Number(error.detail.first) };
    }
    this.loadingOlder = false;
    if (!this.#gone) this.host.changed();
  }

  /** @param {StreamView} view @param {number} place behind which it is followed @param {{seq: number, at: number} | null} known what was shown before a reload */
  #begin(view, place, known) {
    this.#epoch = view.epoch;
    this.target = view.head;
    this.received = this.shown = place;
    this.oldest = 0;
    this.phase = "following";
    // A visit to a stream that had ended before is no resumption.
    if (known !== null && !(hasEnded(view) && known.seq === view.head)) {
      this.#resume = new Resume(known.seq, view.head, Date.now() - known.at);
      this.#resume.above = Math.max(place - Math.max(known.seq, view.first - 1), 0); // what was trimmed is lost
      if (place >= known.seq) this.#placeResume();
    }
    this.#follow = this.client.follow(this.name, {
      after: formatCursor({ epoch: view.epoch, seq: place }),
      onMessages: ({ epoch, first, messages }) => this.#messages(epoch, first, messages),
      onEvent: (event) => this.#event(event),
    });
  }

  /** @param {number} epoch @param {number} first @param {Message[]} messages */
  #messages(epoch, first, messages) {
    for (const [index, message] of messages.entries()) {
      const seq = first + index;
      if (this.#resume !== null && this.#resumeMark === null && seq > this.#resume.from) this.#placeResume();
      this.card?.take(message);
      this.#pending.push(this.#entry(seq, epoch, message));
    }
    this.received = first + messages.length - 1;
    this.#resume?.take(first, messages.length);
    this.#settleResume();
    if (this.#pending.length > WINDOW_MESSAGES) {
      this.#pending.splice(0, this.#pending.length - PAGE_MESSAGES);
      this.#skipped = true;
    }
    this.#schedule();
  }

  /** @param {Event} event */
  #event(event) {
    switch (event.event) {
      case "subscribed":
        this.#subscribed(event.view);
        break;
      case "state":
        this.know(event.view);
        break;
      case "ended":
        this.know(event.view);
        this.phase = "ended";
        this.#settleResume();
        break;
      case "failed":
        this.phase = event.code === "not_found" ? "missing" : "failed";
        this.error = new UnbrokenError(event.code, event.message);
        break;
      case "dropped":
        if (this.#resume !== null && event.why === "overlap") this.#resume.dropped += event.count;
        return;
      case "gap":
        return; // asked for again already; `lost` would show it
      case "trimmed":
        this.#put({ kind: "trimmed", loud: true, words: `${counted(event.missing, "message")} can no longer be had: trimmed before ${number(event.first)}` });
        if (this.view !== null) this.view = { ...this.view, first: event.first };
        this.received = Math.max(this.received, event.first - 1);
        break;
      case "epoch_changed":
        this.#restart(event.epoch);
        break;
      default:
        return;
    }
    this.#schedule();
    this.host.changed();
  }

  /** @param {StreamView} view */
  #subscribed(view) {
    this.know(view);
    this.target = view.head;
    this.#epoch = view.epoch;
    if (this.#lostAt > 0) {
      this.#resume = new Resume(this.#lostFrom, view.head, Date.now() - this.#lostAt);
      this.#resumeMark = null;
      this.#lostAt = 0;
      this.#placeResume();
    } else if (this.#resume !== null && !this.#resume.done) this.#resume.target = Math.max(this.#resume.target, view.head);
    this.#settleResume();
  }

  #placeResume() {
    if (this.#resume === null || this.#resumeMark !== null) return;
    this.#resumeMark = { kind: "resume", words: this.#resume.words, loud: false };
    this.#put(this.#resumeMark);
  }

  #settleResume() {
    const resume = this.#resume;
    if (resume === null) return;
    if (resume.done && this.#resumeMark === null && this.received >= resume.from) this.#placeResume();
    if (this.#resumeMark === null) return;
    this.#resumeMark.words = resume.words;
    this.#resumeMark.loud = resume.lost > 0;
    this.drawing?.remark(this.#resumeMark);
    if (resume.done) {
      this.#resume = null;
      this.#resumeMark = null;
    }
  }

  /** @param {number} epoch */
  #restart(epoch) {
    this.#epoch = epoch;
    this.#pending = [];
    this.items = [];
    this.shown = this.received = this.oldest = this.#characters = 0;
    this.#resume = this.#resumeMark = null;
    this.#lostAt = 0;
    this.drawing?.reset([]);
    this.#put({ kind: "epoch", loud: true, words: "the stream was made anew: what was shown before is gone" });
  }

  /** @param {Mark} mark */
  #put(mark) {
    this.#pending.push({ mark });
    this.#schedule();
  }

  #schedule() {
    if (this.#frame !== 0 || this.#gone) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#flush();
    });
  }

  /** Draw what has come: at most once for each frame, and not at all while nobody looks. */
  #flush() {
    const { drawing } = this;
    if (drawing === null || this.#gone) return;
    const full = this.items.length + this.#pending.length > WINDOW_MESSAGES || this.#characters > WINDOW_CHARACTERS;
    if (this.paused || (full && this.#left !== 0)) {
      this.host.changed();
      return;
    }
    const batch = this.#pending;
    this.#pending = [];
    if (this.#skipped) {
      this.#skipped = false;
      this.items = batch;
      this.#measure();
      drawing.reset(batch);
    } else if (batch.length > 0) {
      for (const item of batch) this.items.push(item);
      for (const item of batch) if ("seq" in item) this.#characters += item.size;
      if (this.oldest === 0) this.oldest = firstSeq(this.items);
      drawing.append(batch);
    }
    this.shown = this.received;
    if (this.#left === 0) this.#trim(drawing);
    if (performance.now() - this.#rememberedAt > REMEMBER_MILLISECONDS) {
      this.#rememberedAt = performance.now();
      this.save();
    }
    this.host.changed();
  }

  /** @param {Drawing} drawing */
  #trim(drawing) {
    if (this.items.length <= WINDOW_MESSAGES && this.#characters <= WINDOW_CHARACTERS) return;
    let count = 0;
    let characters = this.#characters;
    while (this.items.length - count > WINDOW_MESSAGES * WINDOW_KEPT || characters > WINDOW_CHARACTERS * WINDOW_KEPT) {
      const item = this.items[count];
      if (item === undefined) break;
      if ("seq" in item) characters -= item.size;
      count += 1;
    }
    const kept = firstSeq(this.items.slice(count));
    if (kept > 0) drawing.dropBelow(kept);
  }

  /** The drawing has dropped everything in front of message `seq`. @param {number} seq */
  dropped(seq) {
    const index = this.items.findIndex((item) => "seq" in item && item.seq >= seq);
    if (index <= 0) return;
    this.items.splice(0, index);
    this.#measure();
  }

  /** @param {Item[]} found */
  #older(found) {
    this.items.unshift(...found);
    this.#measure();
    this.drawing?.prepend(found);
  }

  /** @param {number} seq @param {number} epoch @param {Message} message @returns {Entry} */
  #entry(seq, epoch, message) {
    const size = message.text?.length ?? message.data?.length ?? (message.json === undefined ? 0 : JSON.stringify(message.json).length);
    return { seq, epoch, message, size: size + 40, note: this.card === null ? null : noteOf(message) };
  }

  #measure() {
    this.oldest = firstSeq(this.items);
    this.#characters = 0;
    for (const item of this.items) if ("seq" in item) this.#characters += item.size;
  }
}

/** Behind which message a stream is followed at first: near its tail, or near where `seen` was. @param {StreamView} view @param {number | null} seen */
function placeOf(view, seen) {
  let place = view.head - PAGE_MESSAGES;
  if (seen !== null) place = Math.max(Math.min(place, seen - PAGE_MESSAGES), view.head - REJOIN_MESSAGES);
  return Math.max(place, view.first - 1);
}

/** @param {Item[]} items */
function firstSeq(items) {
  for (const item of items) if ("seq" in item) return item.seq;
  return 0;
}

/** Whether `view` says that nothing follows. @param {StreamView | null} view */
export function hasEnded(view) {
  return view !== null && isTerminal(view.state);
}
