/**
 * Owns the reading of terminal output: colours become style names, every other control sequence disappears.
 *
 * Called by the text view, one reader for each kind of output, because a sequence may be split between messages. It never
 * lets a control character other than tab and line feed through, nor one that turns the direction of writing.
 */

import { visible } from "./direction.js";

/** @typedef {{text: string, style: string}} Segment */

const ESCAPE = "\x1b";
/** CSI, then the strings OSC, DCS, SOS, PM and APC up to BEL or ST, then two-byte sequences. */
const SEQUENCE = /\x1b(?:\[([0-?]*)[ -/]*([@-~])|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\`-~])|\x9b([0-?]*)[ -/]*([@-~])/y;
const SPECIAL = /[\x1b\x9b\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200f\u202a-\u202e\u2066-\u2069]/;
const CONTROLS = /[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;
/** An unfinished sequence longer than this is not one. */
const PENDING_MAX = 4096;

export class AnsiReader {
  #rest = "";
  #colour = "";
  #bold = false;
  #dim = false;

  /** @param {string} text @returns {Segment[]} never with empty text */
  read(text) {
    const all = this.#rest + text;
    this.#rest = "";
    if (!SPECIAL.test(all)) return all === "" ? [] : [{ text: all, style: this.#style() }];
    /** @type {Segment[]} */
    const segments = [];
    let plain = "";
    const flush = () => {
      const clean = visible(plain.replace(/\r\n?/g, "\n").replace(CONTROLS, ""));
      if (clean !== "") segments.push({ text: clean, style: this.#style() });
      plain = "";
    };
    let at = 0;
    while (at < all.length) {
      const next = nextEscape(all, at);
      plain += all.slice(at, next);
      at = next;
      if (at >= all.length) break;
      SEQUENCE.lastIndex = at;
      const match = SEQUENCE.exec(all);
      if (match !== null) {
        const codes = match[1] ?? match[3];
        if ((match[2] ?? match[4]) === "m") {
          flush();
          this.#colours(codes ?? "");
        }
        at = SEQUENCE.lastIndex;
      } else if (all.length - at < PENDING_MAX && unfinished(all.slice(at))) {
        this.#rest = all.slice(at);
        break;
      } else at += 1;
    }
    // A carriage return at the very end may be the first half of a line end.
    if (this.#rest === "" && plain.endsWith("\r")) {
      plain = plain.slice(0, -1);
      this.#rest = "\r";
    }
    flush();
    return segments;
  }

  #style() {
    return [this.#colour, this.#bold ? "bold" : "", this.#dim ? "dim" : ""].filter(Boolean).join(" ");
  }

  /** @param {string} codes */
  #colours(codes) {
    const numbers = codes.split(/[;:]/).map((code) => Number(code) || 0);
    for (let index = 0; index < numbers.length; index += 1) {
      const code = numbers[index] ?? 0;
      if (code === 0) {
        this.#colour = "";
        this.#bold = this.#dim = false;
      } else if (code === 1) this.#bold = true;
      else if (code === 2) this.#dim = true;
      else if (code === 22) this.#bold = this.#dim = false;
      else if (code >= 30 && code <= 37) this.#colour = `ansi-${code - 30}`;
      else if (code >= 90 && code <= 97) this.#colour = `ansi-${code - 90}`;
      else if (code === 39) this.#colour = "";
      else if (code === 38 || code === 48) index += numbers[index + 1] === 5 ? 2 : 4; // palettes and RGB are not shown
    }
  }
}

/** @param {string} text @param {number} from */
function nextEscape(text, from) {
  for (let at = from; at < text.length; at += 1) if (text[at] === ESCAPE || text[at] === "\x9b") return at;
  return text.length;
}

/** Whether `text`, which begins with an escape, could still become a sequence. @param {string} text */
function unfinished(text) {
  return /^(?:\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?|\x9b[0-?]*[ -/]*)$/.test(text);
}

/** Text without any control sequence. @param {string} text */
export function plainText(text) {
  return new AnsiReader()
    .read(text)
    .map((segment) => segment.text)
    .join("");
}
