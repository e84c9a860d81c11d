/**
 * Owns how bytes become a file in the reader's downloads.
 *
 * Called by app.js. The bytes are never shown: what is in them is anybody's.
 */

import { distinct } from "./unseen.js";

const KEPT_MILLISECONDS = 60_000;

/** @param {Blob} content @param {string} name */
export function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/octet-stream" }));
  link.download = distinct(name); // a name that turns, or hides something, hides what kind of file it is
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MILLISECONDS);
}
