/**
 * Owns what becomes of characters that turn the direction of writing: they are shown by name, and turn nothing.
 *
 * Called wherever text becomes part of the document: by the binding in html.js, by the reader of terminal output, and by
 * blocks.js. Text that is written from right to left needs none of them: the browser knows its letters.
 */

const NAMES = /** @type {Record<string, string>} */ ({
  "\u202a": "LRE",
  "\u202b": "RLE",
  "\u202c": "PDF",
  "\u202d": "LRO",
  "\u202e": "RLO",
  "\u2066": "LRI",
  "\u2067": "RLI",
  "\u2068": "FSI",
  "\u2069": "PDI",
});
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;

/** `text` with the name of each such character in its place. @param {string} text */
export function visible(text) {
  return text.replace(TURNING, (character) => `⟦${NAMES[character]}⟧`);
}
