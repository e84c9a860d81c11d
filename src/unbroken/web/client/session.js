/**
 * Owns every decision of a client of `unbroken.v1`: what to send, when to come back, what is new (PROTOCOL.md 4.4).
 *
 * Called by unbroken.js, which carries frames and timers, and by the conformance vectors. It never does I/O: time and
 * randomness are handed in, and each method returns what is to be done and what has happened, in order.
 */

import { backoff, STABLE_SECONDS } from "./backoff.js";
import { comesBack, FINAL_CLOSE_CODES } from "./cursor.js";
import { Renewal } from "./renewal.js";
import { GAPS_MAX, Subscription } from "./subscription.js";

/** @import { Frame, Output, StreamView } from "./types.js" */

/** How long a server may be silent before it has said so itself. */
export const SILENCE_SECONDS = 40;
const FINAL_CODES = new Set(Object.values(FINAL_CLOSE_CODES));

/** @typedef {{id: number, frame: Frame, waiting: boolean}} Request a frame that is kept until it is answered */

export class Session {
  /** @type {"idle" | "connecting" | "open" | "waiting" | "refused"} */
  phase = "idle";
  /** Failures in a row; 0 while all is well. */
  failures = 0;
  /** @type {Map<string, Subscription>} in the order in which they were followed */
  subscriptions = new Map();
  /** @type {Map<number, Request>} in the order in which they were made */
  #requests = new Map();
  #lastId = 0;
  #openedAt = 0;
  #heardAt = 0;
  #silence = SILENCE_SECONDS;
  #connectAt = 0;
  #retryAfter = 0;
  /** @type {number | null} when requests that met a retryable error are sent again */
  #resendAt = null;
  #resends = 0;
  #renewal = new Renewal();
  /** @type {Output[]} */
  #out = [];
  /** @type {() => number} */
  #random;

  /** @param {{random: () => number}} options */
  constructor({ random }) {
    this.#random = random;
  }

  /** The time at which `tick` has something to do, or null. @returns {number | null} */
  get deadline() {
    if (this.phase === "waiting") return this.#connectAt;
    if (this.phase !== "open") return null;
    const silent = this.#heardAt + this.#silence;
    return Math.min(silent, this.#resendAt ?? silent, this.#renewal.at ?? silent);
  }

  /** Appends and other requests without an answer. */
  get pending() {
    return this.#requests.size;
  }

  /** The application wants a connection; also the way back after a refusal. @returns {Output[]} */
  start() {
    if (this.phase === "idle" || this.phase === "refused") this.#connect();
    return this.#take();
  }

  /** The application leaves for good. @returns {Output[]} */
  stop() {
    if (this.phase === "open" || this.phase === "connecting") this.#out.push({ action: "close" });
    this.phase = "idle";
    return this.#take();
  }

  /**
   * @param {string} stream
   * @param {string} after
   * @returns {Output[]}
   */
  follow(stream, after) {
    const subscription = new Subscription(stream, after);
    this.subscriptions.delete(stream);
    this.subscriptions.set(stream, subscription);
    if (this.phase === "open") this.#subscribe(subscription);
    return this.#take();
  }

  /** @param {string} stream @returns {Output[]} */
  unfollow(stream) {
    if (this.subscriptions.delete(stream) && this.phase === "open") this.#send({ type: "unsubscribe", stream });
    return this.#take();
  }

  /**
   * Stop or restart the flow of one stream: nothing is lost, it waits in the server.
   *
   * @param {string} stream
   * @param {boolean} paused
   * @returns {Output[]}
   */
  pause(stream, paused) {
    const subscription = this.subscriptions.get(stream);
    if (subscription !== undefined && subscription.paused !== paused) {
      subscription.paused = paused;
      if (this.phase === "open") this.#send({ type: paused ? "pause" : "resume", stream });
    }
    return this.#take();
  }

  /**
   * Keep a request until it is answered, across connections. Only what has one effect however often it is sent may go
   * in here: appends with a producer, create, cancel, lease.
   *
   * @param {Frame} frame without `id`
   * @returns {{id: number, out: Output[]}}
   */
  request(frame) {
    const id = this.#nextId();
    const request = { id, frame: { ...frame, id }, waiting: false };
    this.#requests.set(id, request);
    if (this.phase === "open") this.#send(request.frame);
    return { id, out: this.#take() };
  }

  /** A newer credential, as the action `renew` has asked for. @param {string} token @returns {Output[]} */
  renew(token) {
    if (this.phase === "open") {
      this.#renewal.id = this.#nextId();
      this.#send({ type: "auth", id: this.#renewal.id, token });
    }
    return this.#take();
  }

  /** The handshake is done. @param {number} now @returns {Output[]} */
  opened(now) {
    this.phase = "open";
    this.#openedAt = this.#heardAt = now;
    this.#silence = SILENCE_SECONDS;
    this.#retryAfter = 0;
    this.#resendAt = null;
    this.#renewal.forget();
    this.#out.push({ event: "connected" });
    for (const subscription of this.subscriptions.values()) {
      subscription.gaps = 0;
      this.#subscribe(subscription);
    }
    for (const request of this.#requests.values()) {
      request.waiting = false;
      this.#send(request.frame);
    }
    return this.#take();
  }

  /**
   * There was no handshake. A `code` that a later attempt cannot cure refuses the client until `start`.
   *
   * @param {number} now
   * @param {{code?: string, retryAfter?: number}} [why]
   * @returns {Output[]}
   */
  connectFailed(now, why = {}) {
    if (this.phase !== "connecting") return this.#take();
    if (why.code !== undefined && FINAL_CODES.has(why.code)) {
      this.phase = "refused";
      this.#out.push({ event: "refused", code: why.code });
    } else this.#lost(now, why.retryAfter ?? 0);
    return this.#take();
  }

  /**
   * The present connection is gone, not by our own wish.
   *
   * @param {number} now
   * @param {number} code
   * @returns {Output[]}
   */
  closed(now, code) {
    if (this.phase !== "open" && this.phase !== "connecting") return this.#take();
    if (comesBack(code)) this.#lost(now, 0);
    else {
      this.phase = "refused";
      this.#out.push({ event: "refused", close_code: code, code: FINAL_CLOSE_CODES[code] });
    }
    return this.#take();
  }

  /** Time has passed. @param {number} now @returns {Output[]} */
  tick(now) {
    if (this.phase === "waiting" && now >= this.#connectAt) this.#connect();
    else if (this.phase === "open" && now >= this.#heardAt + this.#silence) this.#abandon(now);
    else if (this.phase === "open") {
      if (this.#resendAt !== null && now >= this.#resendAt) this.#resend();
      if (this.#renewal.due(now)) this.#out.push({ action: "renew" });
    }
    return this.#take();
  }

  /** The platform says that it is online, or visible, again. @param {number} now @returns {Output[]} */
  wake(now) {
    if (this.phase === "waiting") this.#connect();
    return [...this.#take(), ...this.tick(now)];
  }

  /**
   * The platform had stopped everything, and goes on. What it has done to the connection meanwhile cannot be known: Chromium
   * closes a WebSocket, and leaves a streamed answer that never brings anything again. So there is a new one, at once.
   *
   * @param {number} now
   * @returns {Output[]}
   */
  thawed(now) {
    if (this.phase === "open" || this.phase === "connecting") this.#abandon(now);
    return this.wake(now);
  }

  /**
   * A frame has arrived on the present connection.
   *
   * @param {number} now
   * @param {Frame} frame
   * @returns {Output[]}
   */
  receive(now, frame) {
    if (this.phase !== "open") return this.#take();
    this.#heardAt = now;
    switch (frame.type) {
      case "hello":
        this.#silence = Number(frame.silence_seconds) || SILENCE_SECONDS;
        this.#renewal.learn(now, frame.expires_seconds);
        this.#out.push({ event: "hello", frame });
        break;
      case "authorized":
        if (frame.id === this.#renewal.id) this.#renewal.learn(now, frame.expires_seconds);
        break;
      case "heartbeat":
        this.#send({ type: "heartbeat" });
        break;
      case "subscribed":
        this.#out.push(...(this.subscriptions.get(frame.stream.stream)?.subscribed(frame) ?? []));
        break;
      case "messages":
        this.#messages(now, frame);
        break;
      case "state":
        this.#state(now, frame.stream);
        break;
      case "acks":
        for (const { id, first, last, duplicate = false } of frame.acks) {
          if (this.#answered(id)) this.#out.push({ event: "acked", id, first, last, duplicate });
        }
        break;
      case "result":
        if (this.#answered(frame.id)) this.#out.push({ event: "result", id: frame.id, view: frame.stream, created: frame.created ?? false });
        break;
      case "error":
        this.#error(now, frame);
        break;
      case "notice":
        this.#out.push({ event: "notice", code: frame.code, message: frame.message ?? "" });
        break;
      case "goodbye":
        this.#retryAfter = Number(frame.retry_after_seconds) || 0;
        break;
      default: // a later version's frame
    }
    return this.#take();
  }

  /** @param {number} now @param {Frame} frame */
  #messages(now, frame) {
    const subscription = this.subscriptions.get(frame.stream);
    if (subscription === undefined) return;
    const { out, resubscribe } = subscription.messages(frame);
    this.#out.push(...out);
    if (resubscribe) this.#again(now, subscription);
  }

  /** @param {number} now @param {StreamView} view */
  #state(now, view) {
    const subscription = this.subscriptions.get(view.stream);
    if (subscription === undefined) return;
    const { out, resubscribe, ended } = subscription.state(view);
    this.#out.push(...out);
    if (ended) this.subscriptions.delete(view.stream);
    if (resubscribe) this.#again(now, subscription);
  }

  /** @param {number} now @param {Frame} frame */
  #error(now, frame) {
    const request = this.#requests.get(frame.id);
    if (request !== undefined) return this.#requestFailed(now, request, frame);
    const subscription = this.#subscriptionOf(frame);
    if (subscription === undefined) return undefined;
    const detail = frame.detail ?? {};
    if (frame.code === "epoch_mismatch") this.#out.push(...subscription.epochChanged(Number(detail.epoch)));
    else if (frame.code === "trimmed") this.#out.push(...subscription.trimmed(Number(detail.first)));
    else if (frame.retryable) {
      subscription.pending = null;
      subscription.waiting = true;
      return this.#resendLater(now, detail);
    } else {
      this.subscriptions.delete(subscription.stream);
      this.#out.push({ event: "failed", stream: subscription.stream, code: frame.code, message: frame.message ?? "", detail });
      return undefined;
    }
    return this.#subscribe(subscription);
  }

  /** @param {Frame} frame @returns {Subscription | undefined} */
  #subscriptionOf(frame) {
    if (frame.id === undefined || frame.id === null) return this.subscriptions.get(frame.stream);
    for (const subscription of this.subscriptions.values()) if (subscription.pending === frame.id) return subscription;
    return undefined;
  }

  /** @param {number} now @param {Request} request @param {Frame} frame */
  #requestFailed(now, request, frame) {
    const detail = frame.detail ?? {};
    if (frame.retryable || (frame.code === "producer_gap" && this.#followsAnother(request))) {
      request.waiting = true;
      this.#resendLater(now, detail);
    } else {
      this.#requests.delete(request.id);
      this.#out.push({ event: "failed", id: request.id, code: frame.code, message: frame.message ?? "", detail });
    }
  }

  /** Whether an earlier append of the same producer is still on its way. @param {Request} request */
  #followsAnother(request) {
    for (const other of this.#requests.values()) {
      if (other === request) return false;
      if (other.frame.stream === request.frame.stream && other.frame.producer?.id === request.frame.producer?.id) return true;
    }
    return false;
  }

  /** @param {number} id @returns {boolean} */
  #answered(id) {
    if (!this.#requests.delete(id)) return false;
    this.#resends = 0;
    return true;
  }

  /** @param {number} now @param {Record<string, any>} detail */
  #resendLater(now, detail) {
    if (this.#resendAt !== null) return;
    this.#resendAt = now + backoff(this.#resends, this.#random(), Number(detail.retry_after_seconds) || 0);
    this.#resends += 1;
  }

  #resend() {
    this.#resendAt = null;
    for (const subscription of this.subscriptions.values()) if (subscription.waiting) this.#subscribe(subscription);
    for (const request of this.#requests.values()) {
      if (!request.waiting) continue;
      request.waiting = false;
      this.#send(request.frame);
    }
  }

  /** Ask again for what is missing; a connection that only ever leaves gaps is given up. @param {number} now @param {Subscription} subscription */
  #again(now, subscription) {
    if (subscription.gaps > GAPS_MAX) this.#abandon(now);
    else this.#subscribe(subscription);
  }

  /** @param {Subscription} subscription */
  #subscribe(subscription) {
    subscription.waiting = false;
    subscription.pending = this.#nextId();
    this.#send({ type: "subscribe", id: subscription.pending, stream: subscription.stream, after: subscription.place });
    if (subscription.paused) this.#send({ type: "pause", stream: subscription.stream });
  }

  #connect() {
    this.phase = "connecting";
    this.#out.push({ action: "connect" });
  }

  /** @param {number} now */
  #abandon(now) {
    this.#out.push({ action: "close" });
    this.#lost(now, 0);
  }

  /** @param {number} now @param {number} retryAfter */
  #lost(now, retryAfter) {
    if (this.phase === "open" && now - this.#openedAt >= STABLE_SECONDS) this.failures = 0;
    const seconds = backoff(this.failures, this.#random(), Math.max(retryAfter, this.#retryAfter));
    this.#retryAfter = 0;
    this.failures += 1;
    this.phase = "waiting";
    this.#connectAt = now + seconds;
    for (const subscription of this.subscriptions.values()) subscription.pending = null;
    this.#out.push({ event: "disconnected", failures: this.failures }, { action: "wait", seconds });
  }

  /** @param {Frame} frame */
  #send(frame) {
    this.#out.push({ action: "send", frame });
  }

  #nextId() {
    this.#lastId += 1;
    return this.#lastId;
  }

  #take() {
    const out = this.#out;
    this.#out = [];
    return out;
  }
}
