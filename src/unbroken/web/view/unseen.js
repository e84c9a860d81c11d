/**
 * Owns how a name is shown, so that two names that differ look different: what nobody sees in it is shown by its own name.
 *
 * Called wherever the page shows a name, and for the text of a link. Text that is no name keeps such characters: emoji, Persian and
 * Thai are written with them. A name keeps a joiner where Unicode lets an identifier have one because it is seen there (UAX 31,
 * UTS 39), and what makes an emoji one.
 */

import { byName } from "./direction.js";

/** What takes no room, or none that tells it from a space; marks of direction and all that turns are among it. */
const UNSEEN = /[\p{Default_Ignorable_Code_Point}\u2028\u2029\ufff9-\ufffb]/u;

/** Arabic letters that join the one behind them, those that never join, and the marks between: a ZWNJ parts what would be joined. */
const JOINS = "[\\u0620\\u0626\\u0628\\u062a-\\u062e\\u0633-\\u063f\\u0641-\\u0647\\u0649\\u064a\\u066e\\u066f\\u0678-\\u0687\\u069a-\\u06bf\\u06c1\\u06c2\\u06cc\\u06ce\\u06d0\\u06d1\\u06fa-\\u06fc\\u06ff]";
const ALONE = "[\\u0621\\u0674]";
const MARKS = "[\\u064b-\\u065f\\u0670]*";
/** The signs of India and Sri Lanka that take a letter's vowel, behind which joiners choose the letter's form. */
const VIRAMA = "[\\u094d\\u09cd\\u0a4d\\u0acd\\u0b4d\\u0bcd\\u0c4d\\u0ccd\\u0d4d\\u0dca]";
const SIGN = "(?!\\p{Emoji_Presentation})\\p{Extended_Pictographic}\\ufe0f";
const EMOJI = `(?:${SIGN}|\\p{Extended_Pictographic}\\p{Emoji_Modifier}?)`;
const FLAG = "\\u{1f3f4}\\u{e0067}\\u{e0062}(?:\\u{e0065}\\u{e006e}\\u{e0067}|\\u{e0073}\\u{e0063}\\u{e0074}|\\u{e0077}\\u{e006c}\\u{e0073})\\u{e007f}";
const SEEN = [
  `${JOINS}${MARKS}\\u200c(?=${MARKS}(?!${ALONE})\\p{Script=Arabic})(?=${MARKS}\\p{L})`,
  `${VIRAMA}\\u200c(?=\\p{L})`,
  `${VIRAMA}\\u200d(?!\\p{M})`,
  FLAG,
  `${EMOJI}(?:\\u200d${EMOJI})+`,
  SIGN,
  "[0-9#*]\\ufe0f\\u20e3",
].join("|");
const SEEN_OR_UNSEEN = new RegExp(`(${SEEN})|${UNSEEN.source}`, "gu");

/** `name` with the name of each character that is not seen in its place. @param {string} name */
export function distinct(name) {
  return UNSEEN.test(name) ? name.replace(SEEN_OR_UNSEEN, (found, seen) => (seen === undefined ? byName(found) : found)) : name;
}
