/**
 * Owns the shapes: one for each state, so that colour is never the only sign.
 *
 * Called by the views. Every shape is decoration beside its word and hidden from screen readers.
 */

import { h } from "./html.js";

/** @type {Record<string, string>} paths in a 16 by 16 box, drawn with a line */
const LINES = {
  open: "M8 3a5 5 0 1 0 0 10A5 5 0 0 0 8 3",
  paused: "M5.5 3.5v9M10.5 3.5v9",
  completed: "M3 8.5l3.5 3.5L13 4.5",
  failed: "M4 4l8 8M12 4l-8 8",
  cancelled: "M8 3a5 5 0 1 0 0 10A5 5 0 0 0 8 3M4.5 11.5l7-7",
  timed_out: "M8 3a5 5 0 1 0 0 10A5 5 0 0 0 8 3M8 5.5V8l2 1.5",
  interrupted: "M8 2.8L14 13H2zM8 6.8v2.8M8 11.4v.1",
  connecting: "M8 2.5v3M8 10.5v3M2.5 8h3M10.5 8h3",
  "catching-up": "M3 4l4 4-4 4M8.5 4l4 4-4 4",
  reconnecting: "M13 8a5 5 0 1 1-1.6-3.7M13 2.5v2.6h-2.6",
  offline: "M2.5 6.5a8 8 0 0 1 11 0M5 9.3a4.5 4.5 0 0 1 6 0M8 12.4v.1M3 13L13 3",
  ended: "M4 4h8v8H4z",
  refused: "M5 7V5.5a3 3 0 0 1 6 0V7M4 7h8v6H4z",
  queued: "M8 3a5 5 0 1 0 0 10A5 5 0 0 0 8 3M8 5.5V8l2 1.5",
  asks: "M5.8 6a2.2 2.2 0 1 1 3.3 1.9C8.3 8.4 8 8.8 8 9.6M8 12v.1",
  cancelling: "M8 3a5 5 0 1 0 0 10A5 5 0 0 0 8 3M4.5 11.5l7-7",
  play: "M5.5 3.5v9l6.5-4.5z",
  plus: "M8 3v10M3 8h10",
  menu: "M2.5 4.5h11M2.5 8h11M2.5 11.5h11",
  close: "M4 4l8 8M12 4l-8 8",
  down: "M8 3v10M4 9l4 4 4-4",
  share: "M8 10V2.5M5 5.5l3-3 3 3M4.5 8H3.5v5.5h9V8h-1",
  copy: "M6 6h7v7H6zM10 6V3H3v7h3",
};

/** @type {Record<string, string>} the same, filled */
const FILLED = { running: "M8 3.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9", live: "M8 3.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9" };

/** @param {string} name @returns {any} */
export function icon(name) {
  const filled = FILLED[name];
  const shape = filled === undefined ? h("path", { d: LINES[name] ?? LINES.open, fill: "none" }) : h("path", { d: filled, class: "filled" });
  return h("svg", { class: `icon icon-${name}`, viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" }, shape);
}
