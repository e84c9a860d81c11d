/**
 * Owns an open session as the page holds it: a card for each of its newest runs, all fed over the client's one connection.
 *
 * Made by app.js for the session in the address, drawn by sessions.js. It is bounded in cards, and asks for a drawing at
 * most once for each frame.
 */

import { formatCursor, isTerminal } from "../client/unbroken.js";
import { RunCard, summaryUpTo } from "./card.js";
import { distinct } from "./unseen.js";

/** @import { Client, Follow } from "../client/unbroken.js" */
/** @import { Event, StreamView } from "../client/types.js" */

export const CARDS_MAX = 48;
const LIST_STREAMS = 200;
/** What is read of each run at first. */
const LAST_MESSAGES = 200;
/** Over SSE each stream takes one of the six connections that browsers allow: the others are read now and then. */
const SSE_FOLLOWS_MAX = 3;

/** @typedef {{card: RunCard, follow: Follow | null, seq: number}} Held `seq` is that of the last message folded in */

export class SessionModel {
  /** @type {"loading" | "shown"} */
  phase = "loading";
  error = "";
  /** @type {StreamView[]} what has no card: streams that are no runs, and older runs */
  others = [];
  more = false;
  /** @type {Map<string, Held>} by stream, newest first */
  #held = new Map();
  #frame = 0;
  #reading = false;
  #gone = false;

  /**
   * @param {Client} client
   * @param {string} name
   * @param {{changed: () => void, said: (words: string) => void}} host
   */
  constructor(client, name, host) {
    this.client = client;
    this.name = name;
    this.host = host;
  }

  /** @returns {RunCard[]} newest first */
  get cards() {
    return [...this.#held.values()].map(({ card }) => card);
  }

  /** Read what the session holds; called again now and then, since nobody tells of new runs. */
  async refresh() {
    if (this.#reading || this.#gone) return;
    this.#reading = true;
    try {
      const { streams, next } = await this.client.list({ session: this.name, limit: LIST_STREAMS });
      if (!this.#gone) await this.#take(streams, next !== null);
      this.error = "";
    } catch (error) {
      this.error = error instanceof Error ? error.message : String(error);
    } finally {
      this.#reading = false;
    }
    if (!this.#gone) this.#changed();
  }

  /** The connection stands; when it is SSE, most runs are left at once, and read by the next `refresh`. */
  async connected() {
    await null; // told in the midst of connecting: what is followed is subscribed to only after this
    if (this.client.status.transport !== "sse") return;
    for (const held of [...this.#held.values()].filter(({ follow }) => follow !== null).slice(SSE_FOLLOWS_MAX)) {
      held.follow?.leave();
      held.follow = null;
    }
  }

  /** Leave every run: they go on. */
  close() {
    this.#gone = true;
    cancelAnimationFrame(this.#frame);
    for (const { follow } of this.#held.values()) follow?.leave();
    this.#held.clear();
  }

  /** Take what an answer has told of a run. @param {StreamView} view */
  know(view) {
    const held = this.#held.get(view.stream);
    if (held !== undefined && !isTerminal(held.card.view.state)) held.card.update(view);
    this.#changed();
  }

  /** @param {StreamView[]} streams newest first @param {boolean} more */
  async #take(streams, more) {
    const runs = streams.filter((view) => view.run).slice(0, CARDS_MAX);
    const fresh = runs.filter((view) => known(this.#held.get(view.stream), view) === null);
    const begun = new Map(await Promise.all(fresh.map(async (view) => /** @type {const} */ ([view.stream, await this.#begin(view)]))));
    if (this.#gone) return;
    const wanted = new Set(runs.map((view) => view.stream));
    for (const [stream, held] of this.#held) {
      if (wanted.has(stream)) continue;
      held.follow?.leave();
      this.#held.delete(stream);
    }
    const before = this.#held;
    this.#held = new Map(runs.map((view) => [view.stream, begun.get(view.stream) ?? known(before.get(view.stream), view) ?? unread(view)]));
    this.others = streams.filter((view) => !wanted.has(view.stream));
    this.more = more;
    this.phase = "shown";
    const overSse = this.client.status.transport === "sse";
    let live = 0;
    for (const view of runs) {
      const held = /** @type {Held} */ (this.#held.get(view.stream));
      if (isTerminal(held.card.view.state) && held.seq >= held.card.view.head) continue;
      live += 1;
      if (overSse && live > SSE_FOLLOWS_MAX) await this.#read(held, view);
      else if (held.follow === null) this.#follow(held);
    }
  }

  /** A run that is new here: what it said before its newest messages is in its summary. @param {StreamView} view @returns {Promise<Held>} */
  async #begin(view) {
    const held = unread(view);
    held.card.begin(await summaryUpTo(this.client, view, held.seq), held.seq);
    return held;
  }

  /** @param {Held} held */
  #follow(held) {
    const { stream, epoch } = held.card.view;
    held.follow = this.client.follow(stream, {
      after: formatCursor({ epoch, seq: held.seq }),
      onMessages: ({ first, messages }) => {
        const asked = held.card.waiting.length;
        for (const message of messages) held.card.take(message);
        held.seq = first + messages.length - 1;
        if (held.card.waiting.length > asked) this.host.said(`${distinct(held.card.view.run?.name ?? stream)} waits for an answer`);
        this.#changed();
      },
      onEvent: (event) => this.#event(held, event),
    });
  }

  /** @param {Held} held @param {Event} event */
  #event(held, event) {
    const { card } = held;
    if (event.event === "subscribed" || event.event === "state" || event.event === "ended") card.update(event.view);
    if (event.event === "epoch_changed") held.seq = 0;
    if (event.event === "ended" || event.event === "failed") held.follow = null;
    if (event.event === "ended") this.host.said(`${distinct(card.view.run?.name ?? card.view.stream)} ${card.view.state.replace("_", " ")}`);
    else if (event.event === "failed") this.#held.delete(card.view.stream);
    this.#changed();
  }

  /** What a run that is not followed has written since. @param {Held} held @param {StreamView} view */
  async #read(held, view) {
    held.follow?.leave();
    held.follow = null;
    if (view.head > held.seq) {
      const after = Math.max(held.seq, view.head - LAST_MESSAGES);
      const page = await this.client.read(view.stream, { after: formatCursor({ epoch: view.epoch, seq: after }), limit: LAST_MESSAGES });
      for (const message of page.messages) held.card.take(message);
      if (page.messages.length > 0) held.seq = page.first + page.messages.length - 1;
    }
    held.card.update(view);
  }

  #changed() {
    if (this.#frame !== 0 || this.#gone) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.host.changed();
    });
  }
}

/** @param {StreamView} view @returns {Held} */
function unread(view) {
  return { card: new RunCard(view), follow: null, seq: Math.max(view.head - LAST_MESSAGES, view.first - 1) };
}

/** What is held of a stream, unless that was another stream of the same name. @param {Held | undefined} held @param {StreamView} view */
function known(held, view) {
  return held !== undefined && (held.follow !== null || held.card.view.epoch === view.epoch) ? held : null;
}
