/**
 * Owns which key does what; everything is off while the reader types.
 *
 * Called by app.js for each key. It never keeps anything.
 */

import { formatNew } from "./route.js";

/** @import { App } from "./app.js" */

/** @param {KeyboardEvent} event @param {App} app */
export function onKey(event, app) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.matches?.("input, textarea, select, [contenteditable]")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  if (document.querySelector("dialog[open]") !== null) return;
  const action = actionOf(event.key, app);
  if (action === null) return;
  event.preventDefault();
  action();
}

/** @param {string} key @param {App} app @returns {(() => void) | null} */
function actionOf(key, app) {
  switch (key) {
    case "?":
      return () => app.open("help");
    case "n":
      return app.guest ? null : () => (location.hash = formatNew());
    case "j":
      return () => app.move(1);
    case "k":
      return () => app.move(-1);
    case "[":
      return () => app.moveToRule(-1);
    case "]":
      return () => app.moveToRule(1);
    case "G":
    case "End":
      return () => app.follow();
    case "p":
      return () => app.pause();
    case "c":
      return () => void app.copy();
    case "t":
      return () => app.nextView();
    case "/":
      return () => /** @type {HTMLElement | null} */ (document.querySelector(".filter"))?.focus();
    case "Escape":
      return () => app.closeDrawer();
    default:
      return null;
  }
}
