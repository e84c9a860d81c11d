/**
 * Owns what this tab keeps over a reload.
 *
 * Called by app.js. Storage that is full or forbidden costs what would have been kept, nothing else.
 */

/** @typedef {Pick<Storage, "getItem" | "setItem">} Kept */

/** @type {Kept} the tab's own storage, which forgets where the browser keeps nothing */
export const kept = Object.freeze({
  getItem(/** @type {string} */ name) {
    try {
      return sessionStorage.getItem(name);
    } catch {
      return null; // reading `sessionStorage` fails by itself where all site data is blocked
    }
  },
  setItem(/** @type {string} */ name, /** @type {string} */ value) {
    try {
      sessionStorage.setItem(name, value);
    } catch {
      // forgotten
    }
  },
});
