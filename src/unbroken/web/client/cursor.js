/**
 * Owns cursors (`epoch:seq`) and the two small tables of the protocol: terminal states and close codes.
 *
 * Called by everything in this folder and by the page. It never does I/O.
 */

/** @typedef {{epoch: number, seq: number}} Cursor "I have everything of this epoch up to and including seq". */

const CURSOR = /^(0|[1-9][0-9]{0,15}):(0|[1-9][0-9]{0,15})$/;

/** The states that a stream ends in; nothing follows them. */
export const TERMINAL_STATES = Object.freeze(["completed", "failed", "cancelled", "timed_out", "interrupted"]);

/** Close codes after which a client does not come back by itself, with the error code that says why. */
export const FINAL_CLOSE_CODES = Object.freeze(
  /** @type {Record<number, string>} */ ({ 4400: "protocol", 4401: "unauthorized", 4403: "forbidden_origin", 4426: "version" }),
);

/**
 * Read a cursor; null when `text` is none.
 *
 * @param {string} text
 * @returns {Cursor | null}
 */
export function parseCursor(text) {
  const match = CURSOR.exec(text);
  if (match === null) return null;
  const epoch = Number(match[1]);
  const seq = Number(match[2]);
  return Number.isSafeInteger(epoch) && Number.isSafeInteger(seq) ? { epoch, seq } : null;
}

/**
 * @param {Cursor} cursor
 * @returns {string}
 */
export function formatCursor(cursor) {
  return `${cursor.epoch}:${cursor.seq}`;
}

/**
 * @param {string} state
 * @returns {boolean}
 */
export function isTerminal(state) {
  return TERMINAL_STATES.includes(state);
}

/**
 * Whether a client connects again by itself after the other side, or the network, closed with `code`.
 *
 * @param {number} code
 * @returns {boolean}
 */
export function comesBack(code) {
  return !(code in FINAL_CLOSE_CODES);
}
