/**
 * Owns the scripted stand-ins for a faulty network: a WebSocket and a fetch that do exactly what a test says.
 *
 * Used by unbroken.test.js for faults only; what works is proven against real servers.
 */

/** @typedef {any} Any */

export class FakeWebSocket {
  /** @type {FakeWebSocket[]} */
  static made = [];
  static reset() {
    FakeWebSocket.made = [];
  }
  static get last() {
    return /** @type {FakeWebSocket} */ (FakeWebSocket.made.at(-1));
  }

  readyState = 0;
  /** @type {Any[]} */
  sent = [];
  /** @type {Any} */ onopen;
  /** @type {Any} */ onmessage;
  /** @type {Any} */ onclose;
  /** @type {Any} */ onerror;

  /** @param {string} url @param {string[]} protocols */
  constructor(url, protocols) {
    this.url = url;
    this.protocols = protocols;
    FakeWebSocket.made.push(this);
  }

  /** @param {string} text */
  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.readyState = 2; // a dead path: the close never completes
  }

  open() {
    this.readyState = 1;
    this.onopen({});
  }

  /** @param {Any} frame */
  receive(frame) {
    this.onmessage({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
  }

  /** @param {number} code */
  drop(code = 1006) {
    this.readyState = 3;
    this.onclose({ code });
  }

  /** @param {string} type */
  sentOf(type) {
    return this.sent.filter((frame) => frame.type === type);
  }
}

/**
 * A fetch that answers each path with what `answers` says: a status with a body, or an error.
 *
 * @param {Record<string, () => {status: number, body?: unknown, headers?: Record<string, string>}>} answers by "METHOD path"
 */
export function fakeFetch(answers) {
  /** @type {{key: string, headers: Record<string, string>}[]} */
  const calls = [];
  const fetch = async (/** @type {URL} */ url, /** @type {Any} */ init = {}) => {
    const key = `${init.method ?? "GET"} ${url.pathname}`;
    calls.push({ key, headers: init.headers ?? {} });
    const answer = answers[key];
    if (answer === undefined) throw new TypeError("fetch failed");
    const { status, body, headers = {} } = answer();
    return new Response(body === undefined ? null : JSON.stringify(body), { status, headers });
  };
  return { fetch: /** @type {Any} */ (fetch), calls };
}

/** @param {string} stream @param {Record<string, unknown>} [more] */
export function view(stream, more = {}) {
  const { epoch = 7, head = 0 } = /** @type {Any} */ (more);
  return { stream, epoch, state: "running", first: 1, head, cursor: `${epoch}:${head}`, kind: "run", content_type: "text/plain", created: 1, updated: 1, bytes: 0, ...more };
}

/** @param {string} stream @param {number} first @param {number} count @param {Record<string, unknown>} [more] */
export function messages(stream, first, count, more = {}) {
  return { type: "messages", stream, epoch: 7, first, hash: "", messages: Array.from({ length: count }, (_, index) => ({ text: `m${first + index}` })), ...more };
}

/** @param {number} id @param {string} stream @param {string} cursor @param {string} [hash] */
export function subscribed(id, stream, cursor, hash = "") {
  return { type: "subscribed", id, cursor, hash, stream: view(stream) };
}
