/**
 * Owns the reading of a `text/event-stream`, piece by piece, as the WHATWG standard says it.
 *
 * Called by http_transport.js, because `EventSource` cannot send an Authorization header. It never opens a connection.
 */

/** @typedef {{id: string, event: string, data: string} | {comment: string}} SseItem */

export class SseParser {
  #rest = "";
  #started = false;
  #afterCarriageReturn = false;
  #id = "";
  #event = "";
  /** @type {string[]} */
  #data = [];

  /**
   * @param {string} text the next piece, split anywhere
   * @returns {SseItem[]} what it completed, in order
   */
  feed(text) {
    if (!this.#started && text.length > 0) {
      this.#started = true;
      if (text.startsWith("\uFEFF")) text = text.slice(1);
    }
    if (this.#afterCarriageReturn && text.length > 0) {
      this.#afterCarriageReturn = false;
      if (text.startsWith("\n")) text = text.slice(1);
    }
    this.#afterCarriageReturn = text.endsWith("\r");
    const lines = (this.#rest + text).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() ?? "";
    /** @type {SseItem[]} */
    const items = [];
    for (const line of lines) {
      const item = this.#line(line);
      if (item !== null) items.push(item);
    }
    return items;
  }

  /** @param {string} line @returns {SseItem | null} */
  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return { comment: line.slice(1).trimStart() };
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    return null;
  }

  /** @returns {SseItem | null} */
  #dispatch() {
    const item = this.#data.length > 0 ? { id: this.#id, event: this.#event || "message", data: this.#data.join("\n") } : null;
    this.#event = "";
    this.#data = [];
    return item;
  }
}
