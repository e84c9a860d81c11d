/**
 * Owns the part of the address behind `#`: which stream is open, in which view.
 *
 * Called by app.js. It never touches the history but through `location`.
 */

export const VIEWS = Object.freeze(["text", "markdown", "list", "raw"]);

/** @typedef {{stream: string | null, view: string | null}} Route */

/** @param {string} hash @returns {Route} */
export function parseRoute(hash) {
  const match = /^#\/stream\/([^?]+)(?:\?(.*))?$/.exec(hash);
  if (match === null) return { stream: null, view: null };
  const view = new URLSearchParams(match[2] ?? "").get("view");
  try {
    const stream = (match[1] ?? "").split("/").map(decodeURIComponent).join("/");
    return { stream, view: view !== null && VIEWS.includes(view) ? view : null };
  } catch {
    return { stream: null, view: null };
  }
}

/** @param {string} stream @param {string | null} [view] */
export function formatRoute(stream, view = null) {
  const path = stream.split("/").map(encodeURIComponent).join("/");
  return `#/stream/${path}${view === null ? "" : `?view=${view}`}`;
}
