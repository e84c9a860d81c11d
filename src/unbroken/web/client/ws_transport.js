/**
 * Owns one WebSocket: its handshake with a ticket, its frames in and out, its end told exactly once.
 *
 * Called by unbroken.js. It never decides whether to come back.
 */

import { UnbrokenError } from "./errors.js";

/** @import { Api } from "./api.js" */
/** @import { Frame } from "./types.js" */

export const SUBPROTOCOL = "unbroken.v1";
/** What a dead path would keep us waiting for otherwise. */
const HANDSHAKE_SECONDS_MAX = 15;

/**
 * @typedef {object} Listener
 * @property {() => void} opened
 * @property {(frame: Frame, text: string | null) => void} frame
 * @property {(code: number) => void} closed after `opened`
 * @property {(error: UnbrokenError) => void} failed instead of `opened`
 *
 * @typedef {object} Transport
 * @property {"websocket" | "sse"} name
 * @property {string | null} token what the connection was opened with, or renewed
 * @property {(frame: Frame) => void} send
 * @property {() => void} close silent: nothing is told to the listener any more
 */

/** @implements {Transport} */
export class WebSocketTransport {
  /** @readonly */
  name = "websocket";
  /** @type {string | null} */
  token = null;
  /** @type {WebSocket | null} */
  #socket = null;
  #done = false;
  #open = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {Api} api
   * @param {typeof WebSocket} Socket
   * @param {Listener} listener
   */
  constructor(api, Socket, listener) {
    this.api = api;
    this.Socket = Socket;
    this.listener = listener;
    this.#timer = setTimeout(() => this.#fail(new UnbrokenError("unreachable", "the handshake took too long")), HANDSHAKE_SECONDS_MAX * 1000);
    void this.#begin();
  }

  /** @param {Frame} frame */
  send(frame) {
    if (this.#open && this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(frame));
  }

  close() {
    this.#finish();
    // A socket whose peer is gone takes long to close; nobody waits for it.
    this.#socket?.close(1000);
  }

  async #begin() {
    try {
      const protocols = [SUBPROTOCOL];
      this.token = await this.api.credentials();
      if (this.token !== null) {
        const ticket = await this.#ticket();
        if (ticket !== null) protocols.push(`ticket.${ticket}`);
      }
      if (!this.#done) this.#listen(new this.Socket(this.api.socketUrl.href, protocols));
    } catch (error) {
      this.#fail(error instanceof UnbrokenError ? error : new UnbrokenError("unreachable", String(error)));
    }
  }

  /** A ticket, or null where the server has none to give. @returns {Promise<string | null>} */
  async #ticket() {
    try {
      return (await this.api.json("POST", "v1/tickets")).ticket;
    } catch (error) {
      if (error instanceof UnbrokenError && (error.status === 404 || error.status === 405)) return null;
      throw error;
    }
  }

  /** @param {WebSocket} socket */
  #listen(socket) {
    this.#socket = socket;
    socket.onopen = () => {
      if (this.#done) return socket.close(1000);
      clearTimeout(this.#timer);
      this.#open = true;
      return this.listener.opened();
    };
    socket.onmessage = ({ data }) => {
      if (!this.#done && typeof data === "string") this.#frame(data);
    };
    socket.onclose = ({ code }) => {
      if (this.#done) return;
      if (!this.#open) {
        void this.#diagnose();
        return;
      }
      this.#finish();
      this.listener.closed(code);
    };
    socket.onerror = () => {}; // `onclose` follows always and says more
  }

  /** @param {string} text */
  #frame(text) {
    /** @type {Frame} */
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      this.close();
      this.listener.closed(1007);
      return;
    }
    this.listener.frame(frame, text);
  }

  /** A refused handshake shows only 1006: the answer of the ticket endpoint says why. */
  async #diagnose() {
    let error = new UnbrokenError("unreachable", "the WebSocket could not be opened", { retryable: true });
    try {
      await this.api.json("POST", "v1/tickets");
      error = new UnbrokenError("blocked", "HTTP works, but no WebSocket could be opened", { retryable: true });
    } catch (reason) {
      if (reason instanceof UnbrokenError) error = reason.status === 404 || reason.status === 405 ? new UnbrokenError("blocked") : reason;
    }
    this.#fail(error);
  }

  /** @param {UnbrokenError} error */
  #fail(error) {
    if (this.#done) return;
    this.close();
    this.listener.failed(error);
  }

  #finish() {
    this.#done = true;
    clearTimeout(this.#timer);
  }
}
