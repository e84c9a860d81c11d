/**
 * Owns the way around a network that lets no WebSocket through: the same frames, carried by SSE and plain requests.
 *
 * Called by unbroken.js in place of a WebSocket. It never tracks what was handled: it only translates.
 */

import { encodeName } from "./api.js";
import { formatCursor, isTerminal, parseCursor } from "./cursor.js";
import { errorOf, UnbrokenError } from "./errors.js";
import { SseParser } from "./sse.js";

/** @import { Api } from "./api.js" */
/** @import { Cursor } from "./cursor.js" */
/** @import { SseItem } from "./sse.js" */
/** @import { Frame, StreamView } from "./types.js" */
/** @import { Listener, Transport } from "./ws_transport.js" */

const SILENCE_SECONDS = 40;
/** Between two requests when the server ends the first at once. */
const PAUSE_MILLISECONDS = 1000;

/** @implements {Transport} */
export class HttpTransport {
  /** @readonly */
  name = "sse";
  /** @type {string | null} */
  token = null;
  #done = false;
  #all = new AbortController();
  /** @type {Map<string, AbortController>} */
  #readers = new Map();
  /** The streams whose response has said that the store is away. @type {Set<string>} */
  #degraded = new Set();
  /** Appends go one after the other, as on one socket. @type {Promise<void>} */
  #queue = Promise.resolve();

  /**
   * @param {Api} api
   * @param {Listener} listener
   */
  constructor(api, listener) {
    this.api = api;
    this.listener = listener;
    void this.#begin();
  }

  /** @param {Frame} frame */
  send(frame) {
    if (this.#done) return;
    if (frame.type === "subscribe") this.#subscribe(frame);
    else if (frame.type === "unsubscribe") this.#readers.get(frame.stream)?.abort();
    else if (["append", "create", "cancel", "lease"].includes(frame.type)) this.#queue = this.#queue.then(() => this.#request(frame));
  }

  close() {
    this.#done = true;
    this.#all.abort();
  }

  async #begin() {
    try {
      this.token = await this.api.credentials();
      await this.api.json("GET", "v1/streams", { query: { limit: 1 }, signal: this.#all.signal });
    } catch (error) {
      if (this.#done) return;
      this.close();
      this.listener.failed(error instanceof UnbrokenError ? error : new UnbrokenError("unreachable", String(error)));
      return;
    }
    if (this.#done) return;
    this.listener.opened();
    this.#emit({ type: "hello", protocol: "unbroken.v1", server: "", connection: "", heartbeat_seconds: 15, silence_seconds: SILENCE_SECONDS });
  }

  /** @param {Frame} frame */
  #emit(frame) {
    if (!this.#done) this.listener.frame(frame, null);
  }

  /** @param {number} code */
  #lose(code) {
    if (this.#done) return;
    this.close();
    this.listener.closed(code);
  }

  /** @param {Frame} frame */
  #subscribe(frame) {
    this.#readers.get(frame.stream)?.abort();
    const reader = new AbortController();
    this.#readers.set(frame.stream, reader);
    const signal = AbortSignal.any([reader.signal, this.#all.signal]);
    this.#follow(frame, signal).catch((error) => {
      if (signal.aborted) return;
      const known = error instanceof UnbrokenError ? error : new UnbrokenError("unreachable", String(error));
      if (known.code === "unreachable") this.#lose(1006);
      else if (known.status === 401) this.#lose(4401);
      else this.#emit({ ...errorFrame(known), stream: frame.stream });
    }).finally(() => {
      if (this.#readers.get(frame.stream) === reader) this.#health(frame.stream, { code: "recovered" });
    });
  }

  /** @param {Frame} frame @param {AbortSignal} signal */
  async #follow(frame, signal) {
    const path = encodeName(frame.stream);
    const view = await this.#view(path, signal);
    const cursor = placeIn(view, frame.after);
    this.#emit({ type: "subscribed", id: frame.id, cursor: formatCursor(cursor), hash: "", stream: view });
    while (!signal.aborted) {
      const began = Date.now();
      const url = this.api.url(`v1/messages/${path}`, { live: "sse", after: formatCursor(cursor) });
      const response = await this.api.request("GET", url, { headers: { Accept: "text/event-stream", "Last-Event-ID": formatCursor(cursor) }, signal });
      if (!response.ok) throw await errorOf(response);
      if (response.status === 204) {
        const now = await this.#view(path, signal);
        this.#emit({ type: "state", stream: now });
        if (isTerminal(now.state)) return;
      } else if (await this.#read(response, frame.stream, cursor)) return;
      if (Date.now() - began < PAUSE_MILLISECONDS) await new Promise((resolve) => setTimeout(resolve, PAUSE_MILLISECONDS));
    }
  }

  /** @param {string} path @param {AbortSignal} signal @returns {Promise<StreamView>} */
  #view(path, signal) {
    return this.api.json("GET", `v1/streams/${path}`, { signal });
  }

  /** Whether the stream has ended. @param {Response} response @param {string} stream @param {Cursor} cursor moved along */
  async #read(response, stream, cursor) {
    const parser = new SseParser();
    let unsure = true; // whether the store is well: a response that begins says so if it is not
    const decoder = new TextDecoder();
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    for (;;) {
      const { done, value } = await reader.read().catch(() => {
        throw new UnbrokenError("unreachable");
      });
      if (done) return false;
      const items = parser.feed(decoder.decode(value, { stream: true }));
      if (items.length === 0) this.#emit({ type: "heartbeat" });
      if (unsure && items.some((item) => "event" in item)) {
        unsure = false;
        if (!items.some((item) => "event" in item && item.event === "notice")) this.#health(stream, { code: "recovered" });
      }
      if (this.#items(items, stream, cursor)) return true;
    }
  }

  /** Each response tells; whoever listens is told once for all of them. @param {string} stream @param {{code: string, message?: string}} notice */
  #health(stream, notice) {
    const before = this.#degraded.size;
    if (notice.code === "degraded") this.#degraded.add(stream);
    else this.#degraded.delete(stream);
    if ((before === 0) !== (this.#degraded.size === 0)) this.#emit({ type: "notice", ...notice });
  }

  /** @param {SseItem[]} items @param {string} stream @param {Cursor} cursor */
  #items(items, stream, cursor) {
    /** @type {Frame | null} */
    let batch = null;
    const flush = () => {
      if (batch !== null) this.#emit(batch);
      batch = null;
    };
    for (const item of items) {
      if ("comment" in item) this.#emit({ type: "heartbeat" });
      else if (item.event === "message") {
        const place = parseCursor(item.id);
        if (place === null) continue;
        const { seq, ...message } = JSON.parse(item.data);
        if (batch === null || batch.first + batch.messages.length !== seq) {
          flush();
          batch = { type: "messages", stream, epoch: place.epoch, first: seq, hash: "", messages: [] };
        }
        batch.messages.push(message);
        cursor.epoch = place.epoch;
        cursor.seq = seq;
      } else {
        flush();
        if (!["notice", "state", "error"].includes(item.event)) continue; // a later version's
        const told = JSON.parse(item.data);
        if (item.event === "notice") {
          this.#health(stream, told);
          continue;
        }
        if (item.event === "error" && told.code === "unauthorized") {
          this.#lose(4401);
          return true;
        }
        this.#emit(item.event === "state" ? { type: "state", stream: told } : { ...told, type: "error", stream });
        if (item.event === "error" || isTerminal(told.state)) return true;
      }
    }
    flush();
    return false;
  }

  /** @param {Frame} frame */
  async #request(frame) {
    const { type, id, stream, ...rest } = frame;
    const path = encodeName(stream);
    const way = { append: ["POST", "messages"], create: ["PUT", "streams"], cancel: ["POST", "cancel"], lease: ["POST", "lease"] }[/** @type {"append"} */ (type)];
    try {
      const response = await this.api.request(String(way[0]), this.api.url(`v1/${way[1]}/${path}`), { body: rest, signal: this.#all.signal });
      if (!response.ok) throw await errorOf(response);
      const answer = await response.json();
      if (type === "append") this.#emit({ type: "acks", acks: [{ id, first: answer.first, last: answer.last, duplicate: answer.duplicate ?? false }] });
      else this.#emit({ type: "result", id, stream: answer, created: response.status === 201 });
    } catch (error) {
      if (this.#done) return;
      if (error instanceof UnbrokenError && error.code !== "unreachable") this.#emit({ ...errorFrame(error), id, stream });
      else this.#lose(1006);
    }
  }
}

/** @param {UnbrokenError} error @returns {Frame} */
function errorFrame(error) {
  const detail = error.retryAfter > 0 ? { ...error.detail, retry_after_seconds: error.retryAfter } : error.detail;
  return { type: "error", code: error.code, message: error.message, retryable: error.retryable, detail };
}

/**
 * The cursor that `after` means in the stream as it is now.
 *
 * @param {StreamView} view
 * @param {string} after
 * @returns {Cursor}
 */
function placeIn(view, after) {
  const cursor = parseCursor(after);
  if (cursor !== null) return cursor;
  const { epoch, first, head } = view;
  if (after === "now") return { epoch, seq: head };
  if (after.startsWith("last:")) return { epoch, seq: Math.max(first - 1, head - Number(after.slice(5))) };
  return { epoch, seq: after === "start" ? first - 1 : Number(after) };
}
