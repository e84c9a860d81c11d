/**
 * Owns the public client for browsers and Node: `connect(url)`, and streams that go on across any loss of connection.
 *
 * Called by applications and by the built-in page. It only carries: every decision about the protocol is session.js's.
 */

import { Api, encodeName } from "./api.js";
import { STABLE_SECONDS } from "./backoff.js";
import { UnbrokenError } from "./errors.js";
import { Follow } from "./follow.js";
import { HttpTransport } from "./http_transport.js";
import { randomId } from "./random.js";
import { Runs } from "./runs.js";
import { Session } from "./session.js";
import { Tokens } from "./tokens.js";
import { listenToPlatform, sleepProofClock } from "./wake.js";
import { WebSocketTransport } from "./ws_transport.js";

/** @import { FollowOptions } from "./follow.js" */
/** @import { TokenSource } from "./api.js" */
/** @import { Appended, Event, Frame, Output, Payload, StreamView } from "./types.js" */
/** @import { Transport } from "./ws_transport.js" */

export { UnbrokenError } from "./errors.js";
export { Follow } from "./follow.js";
export { randomId } from "./random.js";
export { formatCursor, isTerminal, parseCursor, TERMINAL_STATES } from "./cursor.js";

/** WebSockets that could not be opened, or said nothing, in a row before SSE is tried. */
const WEBSOCKET_FAILURES_MAX = 2;
/** Appends kept until they are acknowledged. */
export const PENDING_MAX = 10_000;

/**
 * @typedef {object} Options
 * @property {TokenSource} [token] sent as `Authorization: Bearer`; WebSockets carry a ticket made with it. A function gives the present one: it is
 *   asked for each connection and request, before the credential of a live connection ends, and once more when one was refused
 * @property {typeof WebSocket} [WebSocket] where the platform has none
 * @property {typeof fetch} [fetch]
 * @property {boolean} [fallback] whether SSE is used where no WebSocket can be opened (default true)
 * @property {() => number} [random]
 *
 * @typedef {object} Status
 * @property {"connecting" | "live" | "waiting" | "offline" | "refused" | "closed"} phase
 * @property {number} failures in a row
 * @property {number | null} retryAt milliseconds since 1970 of the next attempt, for display
 * @property {string | null} code why: of a refusal, or of the last failure
 * @property {"websocket" | "sse" | null} transport
 */

/**
 * Connect to a server. Returns at once; the connection is made, and made again, in the background.
 *
 * @param {string} [url] where the application is mounted
 * @param {Options} [options]
 * @returns {Client}
 */
export function connect(url = ".", options = {}) {
  return new Client(url, options);
}

export class Client {
  /** @type {Status} */
  status = { phase: "connecting", failures: 0, retryAt: null, code: null, transport: null };
  #session;
  #now = sleepProofClock();
  /** @type {Transport | null} */
  #transport = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #timerAt = Number.POSITIVE_INFINITY;
  #blocked = 0;
  /** What the latest connection was opened with, or renewed. @type {string | null} */
  #shown = null;
  #secondChanceAt = Number.NEGATIVE_INFINITY;
  #closed = false;
  #deaf;
  /** @type {Map<string, Follow>} */
  #follows = new Map();
  /** @type {Map<number, {resolve: (value: any) => void, reject: (error: Error) => void, stream: string}>} */
  #answers = new Map();
  /** @type {Map<string, {id: string, seq: number}>} */
  #producers = new Map();
  /** @type {Map<string, Set<(value: any) => void>>} */
  #listeners = new Map();

  /**
   * @param {string} url
   * @param {Options} options
   */
  constructor(url, options) {
    this.api = new Api(url, options);
    this.runs = new Runs(this.api);
    this.tokens = new Tokens(this.api);
    this.options = options;
    this.#session = new Session({ random: options.random ?? Math.random });
    this.#deaf = listenToPlatform({
      look: () => this.#run(this.#session.wake(this.#now())),
      lost: () => this.#tell({}),
      thawed: () => this.#run(this.#session.thawed(this.#now())),
    });
    this.#run(this.#session.start());
  }

  /**
   * Be told of `status` (a `Status`), `notice` (`{code, message}`) and `event` (every event of the session).
   *
   * @param {"status" | "notice" | "event"} name
   * @param {(value: any) => void} listener
   * @returns {() => void} stops it
   */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  /**
   * Follow a stream: what is retained behind `after`, then what comes, each message once and in order, until the
   * terminal state. Iterate over the result, or hand in callbacks. One follow for each stream and client.
   *
   * @param {string} stream
   * @param {FollowOptions} [options]
   * @returns {Follow}
   */
  follow(stream, options = {}) {
    if (this.#follows.has(stream)) throw new UnbrokenError("already_followed", `${stream} is followed already`);
    const follow = new Follow(stream, options, {
      pause: (paused) => this.#run(this.#session.pause(stream, paused)),
      leave: () => {
        this.#follows.delete(stream);
        this.#run(this.#session.unfollow(stream));
      },
    });
    this.#follows.set(stream, follow);
    this.#run(this.#session.follow(stream, options.after ?? "start"));
    return follow;
  }

  /**
   * Append messages; resolves when they are durable. Sent again after a lost connection, and takes effect once.
   *
   * @param {string} stream
   * @param {string | Payload | (string | Payload)[]} messages
   * @param {{expectedHead?: number, close?: {state?: string, reason?: Record<string, unknown>}}} [options]
   * @returns {Promise<Appended>}
   */
  append(stream, messages, { expectedHead, close } = {}) {
    const list = (Array.isArray(messages) ? messages : [messages]).map((one) => (typeof one === "string" ? { text: one } : one));
    let producer = this.#producers.get(stream);
    if (producer === undefined) {
      producer = { id: `js-${randomId()}`, seq: 0 };
      this.#producers.set(stream, producer);
    }
    /** @type {Frame} */
    const frame = { type: "append", stream, messages: list, producer: { id: producer.id, epoch: 0, seq: producer.seq } };
    if (expectedHead !== undefined) frame.expected_head = expectedHead;
    if (close !== undefined) frame.close = close;
    const answer = this.#request(frame);
    producer.seq += 1;
    return answer;
  }

  /**
   * Create a stream, or find that it exists with the same configuration.
   *
   * @param {string} stream
   * @param {Record<string, unknown>} [options] `kind`, `content_type`, `session`, `metadata`, `ttl_seconds`
   * @returns {Promise<{view: StreamView, created: boolean}>}
   */
  create(stream, options = {}) {
    return this.#request({ ...options, type: "create", stream });
  }

  /** Ask the producer to stop; idempotent. @param {string} stream @returns {Promise<{view: StreamView}>} */
  cancel(stream) {
    return this.#request({ type: "cancel", stream });
  }

  /** @param {string} stream @returns {Promise<StreamView>} */
  state(stream) {
    return this.api.json("GET", `v1/streams/${encodeName(stream)}`);
  }

  /** @param {Record<string, string | number | undefined>} [query] @returns {Promise<{streams: StreamView[], next: string | null}>} */
  list(query = {}) {
    return this.api.json("GET", "v1/streams", { query });
  }

  /**
   * A bounded read without following.
   *
   * @param {string} stream
   * @param {{after?: string, limit?: number, signal?: AbortSignal}} [options]
   * @returns {Promise<{stream: StreamView, first: number, last: number, cursor: string, messages: import("./types.js").Message[], up_to_date: boolean}>}
   */
  read(stream, { after = "start", limit, signal } = {}) {
    return this.api.json("GET", `v1/messages/${encodeName(stream)}`, { query: { after, limit }, signal });
  }

  /**
   * Try again at once, also after a refusal. With `anew` also in the place of a connection that stands or is being made: it is
   * another one's where the token is another one's by now.
   *
   * @param {{anew?: boolean}} [options]
   */
  reconnect({ anew = false } = {}) {
    if (this.#closed) return;
    const { phase } = this.#session;
    this.#run(this.#session.start());
    if (anew && (phase === "open" || phase === "connecting")) this.#run(this.#session.thawed(this.#now()));
    else this.#run(this.#session.wake(this.#now()));
  }

  /** Leave every stream and close the connection. Producers go on. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#deaf();
    for (const follow of [...this.#follows.values()]) follow.leave();
    this.#run(this.#session.stop());
    clearTimeout(this.#timer);
    const error = new UnbrokenError("closed", "the client was closed; whether this took effect is unknown");
    for (const { reject } of this.#answers.values()) reject(error);
    this.#answers.clear();
    this.#tell({ phase: "closed" });
  }

  /** @param {Frame} frame @returns {Promise<any>} */
  #request(frame) {
    if (this.#closed) return Promise.reject(new UnbrokenError("closed", "the client is closed"));
    if (this.#session.pending >= PENDING_MAX) return Promise.reject(new UnbrokenError("overloaded", "too many requests wait for an answer"));
    return new Promise((resolve, reject) => {
      const { id, out } = this.#session.request(frame);
      this.#answers.set(id, { resolve, reject, stream: frame.stream });
      this.#run(out);
    });
  }

  /** @param {Output[]} outputs @param {string | null} [text] the frame that caused them */
  #run(outputs, text = null) {
    for (const output of outputs) {
      if ("action" in output) this.#act(output);
      else this.#happened(output, text);
    }
    this.#arm();
  }

  /** @param {import("./types.js").Action} action */
  #act(action) {
    if (action.action === "send") this.#transport?.send(action.frame);
    else if (action.action === "connect") this.#open();
    else if (action.action === "close") this.#drop();
    else if (action.action === "renew") void this.#renew();
    else this.#tell({ phase: "waiting", failures: this.#session.failures, retryAt: Date.now() + action.seconds * 1000 });
  }

  #open() {
    this.#drop();
    const useSse = this.options.fallback !== false && this.#blocked >= WEBSOCKET_FAILURES_MAX;
    const Socket = this.options.WebSocket ?? globalThis.WebSocket;
    this.#tell({ phase: "connecting", retryAt: null });
    /** Whether what a transport says is still of interest. */
    const present = () => this.#transport === transport;
    /** Whether its end is of interest; then there is no transport any more. */
    const over = () => {
      if (!present()) return false;
      this.#transport = null;
      this.#shown = transport.token;
      return true;
    };
    let heard = false;
    /** @type {import("./ws_transport.js").Listener} */
    const listener = {
      opened: () => present() && this.#run(this.#session.opened(this.#now())),
      frame: (frame, text) => {
        if (!present()) return;
        heard = true;
        this.#run(this.#session.receive(this.#now(), frame), text);
      },
      closed: (code) => {
        if (!over()) return;
        // A socket that opens and says nothing is no better than one that does not open.
        if (!heard) this.#blocked += 1;
        else this.#blocked = transport.name === "sse" ? WEBSOCKET_FAILURES_MAX - 1 : 0;
        this.#run(this.#session.closed(this.#now(), code));
      },
      failed: (error) => {
        if (!over()) return;
        this.#blocked = error.code === "blocked" ? this.#blocked + 1 : 0;
        this.#tell({ code: error.code });
        this.#run(this.#session.connectFailed(this.#now(), { code: error.code, retryAfter: error.retryAfter }));
      },
    };
    const transport = useSse || Socket === undefined ? new HttpTransport(this.api, listener) : new WebSocketTransport(this.api, Socket, listener);
    this.#transport = transport;
  }

  /** Hand on a newer token, where the application gives one; a failure is tried again while there is time. */
  async #renew() {
    if (typeof this.api.token !== "function") return;
    const token = await this.api.credentials().catch(() => null);
    if (token === null) return;
    if (this.#transport !== null) this.#transport.token = token;
    this.#run(this.#session.renew(token));
  }

  /** A refused token is worth another connection where there is another one by now; once, and not in a row. @param {string} code */
  async #refused(code) {
    const fresh = code === "unauthorized" && typeof this.api.token === "function" && this.#now() - this.#secondChanceAt >= STABLE_SECONDS;
    const shown = this.#shown;
    if (fresh && (await this.api.credentials().catch(() => shown)) !== shown && !this.#closed && this.#session.phase === "refused") {
      this.#secondChanceAt = this.#now();
      this.#run(this.#session.start());
    } else if (this.#session.phase === "refused") this.#tell({ phase: "refused", code });
  }

  #drop() {
    const transport = this.#transport;
    this.#transport = null;
    transport?.close();
  }

  /** @param {Event} event @param {string | null} text */
  #happened(event, text) {
    if (event.event === "connected") {
      this.#tell({ phase: "live", failures: 0, retryAt: null, code: null, transport: this.#transport?.name ?? null });
    } else if (event.event === "refused") void this.#refused(event.code ?? String(event.close_code));
    else if (event.event === "acked") this.#answer(event.id, { first: event.first, last: event.last, duplicate: event.duplicate });
    else if (event.event === "result") this.#answer(event.id, { view: event.view, created: event.created });
    else if (event.event === "failed" && event.id !== undefined) this.#failed(event.id, event);
    else if (event.event === "notice") this.#notify("notice", event);
    else if ("stream" in event && event.stream !== undefined) {
      const follow = this.#follows.get(event.stream);
      if (event.event === "ended" || event.event === "failed") this.#follows.delete(event.stream);
      follow?.take(event, text);
    }
    this.#notify("event", event);
  }

  /** @param {number} id @param {unknown} value */
  #answer(id, value) {
    this.#answers.get(id)?.resolve(value);
    this.#answers.delete(id);
  }

  /** @param {number} id @param {Extract<Event, {event: "failed"}>} event */
  #failed(id, event) {
    const answer = this.#answers.get(id);
    if (answer === undefined) return;
    // The numbers of what was refused are not used up: the next append starts as a new producer.
    this.#producers.delete(answer.stream);
    this.#answers.delete(id);
    answer.reject(new UnbrokenError(event.code, event.message, { detail: event.detail }));
  }

  /** @param {Partial<Status>} change */
  #tell(change) {
    const status = { ...this.status, ...change };
    const offline = globalThis.navigator?.onLine === false;
    if (status.phase === "waiting" && offline) status.phase = "offline";
    else if (status.phase === "offline" && !offline) status.phase = "waiting";
    this.status = status;
    this.#notify("status", status);
  }

  /** @param {string} name @param {unknown} value */
  #notify(name, value) {
    for (const listener of this.#listeners.get(name) ?? []) listener(value);
  }

  /** Keep one timer, never later than the session's next deadline. */
  #arm() {
    const deadline = this.#closed ? null : this.#session.deadline;
    if (deadline === null || deadline >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = deadline;
    this.#timer = setTimeout(
      () => {
        this.#timerAt = Number.POSITIVE_INFINITY;
        this.#run(this.#session.tick(this.#now()));
      },
      Math.max(deadline - this.#now(), 0) * 1000 + 1,
    );
  }
}
