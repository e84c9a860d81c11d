/**
 * Owns what becomes of characters that turn the direction of writing: they are shown by name, and turn nothing; and those names.
 *
 * Called wherever text becomes part of the document: by the binding in html.js, by the reader of terminal output, and by
 * blocks.js; unseen.js asks for names. Text that is written from right to left needs none of them: the browser knows its letters. Its marks (RLM,
 * ALM) stay beside such letters, and are shown elsewhere: nobody sees them, and `100 > 200` behind one reads as `200 < 100`.
 */

const NAMES = /** @type {Record<string, string>} */ ({
  "\u00ad": "SHY",
  "\u034f": "CGJ",
  "\u061c": "ALM",
  "\u200b": "ZWSP",
  "\u200c": "ZWNJ",
  "\u200d": "ZWJ",
  "\u200e": "LRM",
  "\u200f": "RLM",
  "\u202a": "LRE",
  "\u202b": "RLE",
  "\u202c": "PDF",
  "\u202d": "LRO",
  "\u202e": "RLO",
  "\u2060": "WJ",
  "\u2066": "LRI",
  "\u2067": "RLI",
  "\u2068": "FSI",
  "\u2069": "PDI",
  "\ufeff": "BOM",
});
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;

const MARK = /[\u061c\u200f]/;
const MARK_OR_LETTER = /[\u061c\u200f]|\p{L}/gu;
const RIGHT_TO_LEFT = /^[\u0590-\u061b\u061d-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]$/u;

/** `text` with the name of each such character in its place. @param {string} text */
export function visible(text) {
  const named = text.replace(TURNING, byName);
  return MARK.test(named) ? withMarks(named) : named;
}

/** Marks stay where the last letter in front is written from right to left, or the next one stands right behind. @param {string} text */
function withMarks(text) {
  let beside = false;
  return text.replace(MARK_OR_LETTER, (character, at) => {
    if (!MARK.test(character)) {
      beside = RIGHT_TO_LEFT.test(character);
      return character;
    }
    return beside || RIGHT_TO_LEFT.test(String.fromCodePoint(text.codePointAt(at + 1) ?? 0)) ? character : byName(character);
  });
}

/** A character that is not seen, as it is shown. @param {string} character */
export function byName(character) {
  return `⟦${NAMES[character] ?? `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`}⟧`;
}
