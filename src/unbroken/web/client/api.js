/**
 * Owns the HTTP face as plain functions: where a path is, which credentials go with it, how an answer is read.
 *
 * Called by unbroken.js, http_transport.js and the page. It never retries: that is the caller's decision.
 */

import { errorOf, UnbrokenError } from "./errors.js";

/** @typedef {string | null | undefined | (() => string | null | undefined | Promise<string | null | undefined>)} TokenSource */

export class Api {
  /**
   * @param {string} base where the application is mounted
   * @param {{token?: TokenSource, fetch?: typeof fetch}} [options]
   */
  constructor(base, options = {}) {
    const here = globalThis.location?.href;
    const root = new URL(base, here);
    if (!root.pathname.endsWith("/")) root.pathname += "/";
    root.search = root.hash = "";
    this.root = root;
    /** @type {TokenSource} */
    this.token = options.token;
    this.fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
  }

  /** @returns {Promise<string | null>} */
  async credentials() {
    const token = typeof this.token === "function" ? await this.token() : this.token;
    return token || null;
  }

  /** @param {string} path relative, percent-encoded @param {Record<string, string | number | undefined>} [query] */
  url(path, query = {}) {
    const url = new URL(path, this.root);
    for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== "") url.searchParams.set(name, String(value));
    return url;
  }

  /** The WebSocket's address. */
  get socketUrl() {
    const url = this.url("v1/ws");
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    return url;
  }

  /**
   * Any answer, whatever its status; throws `UnbrokenError` with code `unreachable` when there is none.
   *
   * @param {string} method
   * @param {URL} url
   * @param {{body?: unknown, headers?: Record<string, string>, signal?: AbortSignal}} [options]
   * @returns {Promise<Response>}
   */
  async request(method, url, { body, headers = {}, signal } = {}) {
    const token = await this.credentials();
    /** @type {RequestInit} */
    const init = { method, headers: { ...headers }, cache: "no-store" };
    const sent = /** @type {Record<string, string>} */ (init.headers);
    if (token !== null) sent.Authorization = `Bearer ${token}`;
    if (body !== undefined) {
      sent["Content-Type"] = "application/json";
      init.body = JSON.stringify(body);
    }
    if (signal !== undefined) init.signal = signal;
    try {
      return await this.fetch(url, init);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new UnbrokenError("unreachable", "the server cannot be reached", { retryable: true });
    }
  }

  /**
   * The JSON of a good answer; any other is thrown as `UnbrokenError`.
   *
   * @param {string} method
   * @param {string} path
   * @param {{query?: Record<string, string | number | undefined>, body?: unknown, signal?: AbortSignal}} [options]
   * @returns {Promise<any>}
   */
  async json(method, path, { query, body, signal } = {}) {
    const response = await this.request(method, this.url(path, query), { body, signal });
    if (!response.ok) throw await errorOf(response);
    return response.status === 204 ? null : response.json();
  }

  /** The body of a good answer to a GET as it is, whole; fails as `json`. @param {string} path @returns {Promise<Blob>} */
  async blob(path) {
    const response = await this.request("GET", this.url(path));
    if (!response.ok) throw await errorOf(response);
    try {
      return await response.blob();
    } catch {
      throw new UnbrokenError("unreachable", "the answer broke off", { retryable: true });
    }
  }
}

/**
 * A stream's name as the rest of a path. URLs fold dot segments away, so a name that has one would reach another stream.
 * @param {string} name
 */
export function encodeName(name) {
  if (name.split("/").some((segment) => segment === "" || segment === "." || segment === "..")) {
    throw new UnbrokenError("invalid", "a name has no empty, '.' or '..' segments");
  }
  return name.split("/").map(encodeURIComponent).join("/");
}
