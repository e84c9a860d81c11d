/**
 * Owns how messages become nodes in each of the four views, grouped in blocks that the browser may leave unpainted.
 *
 * Called by log.js. It never re-renders what is finished: a block that is full is not touched again.
 */

import { AnsiReader } from "./ansi.js";
import { visible } from "./direction.js";
import { clock, number } from "./format.js";
import { render } from "./html.js";
import { nodesOf, tokensOf } from "./markdown.js";

/** @import { Entry } from "./model.js" */
/** @import { Message } from "../client/types.js" */

const BLOCK_MESSAGES = 32;
const BLOCK_CHARACTERS = 2048;
/** A line longer than this is broken between two blocks. */
const LINE_CHARACTERS_MAX = 16_384;
const PAYLOAD_CHARACTERS = 4096;
/** An unfinished Markdown block longer than this is shown as it is. */
const TAIL_CHARACTERS_MAX = 65_536;

/**
 * @typedef {object} Block
 * @property {HTMLElement} element
 * @property {number} first seq of its first message
 * @property {number} last
 * @property {number} count
 * @property {number} size in characters
 *
 * @typedef {object} Writer puts messages at the end of a place
 * @property {(entry: Entry) => void} write
 * @property {() => void} finish what is unfinished is done; the next message begins a new block
 * @property {Block[]} blocks
 */

/** @param {string} tag @param {string} [name] @param {string} [text] */
function element(tag, name = "", text = "") {
  const made = document.createElement(tag);
  if (name !== "") made.className = name;
  if (text !== "") made.textContent = visible(text);
  return made;
}

/** The name of a kind for a style sheet: only the known ones have a look of their own. @param {string | undefined} kind */
function kindClass(kind) {
  return ["stdout", "stderr", "stdin", "error", "reasoning", "status"].includes(kind ?? "") ? ` kind-${kind}` : "";
}

/** What is not text, in one line. @param {Message} message */
function valueText(message) {
  if (message.data !== undefined) return `[${number(Math.floor((message.data.length * 3) / 4))} bytes]`;
  return visible(JSON.stringify(message.json) ?? "");
}

/** When the server took the message, on the reader's clock. @param {Message} message */
function timeOf({ time }) {
  const made = document.createElement("time");
  made.className = "time";
  if (time === undefined) return made;
  made.dateTime = new Date(time).toISOString();
  made.textContent = clock(time);
  return made;
}

/** Write the times in `content` again, in the reader's present time zone. @param {HTMLElement} content */
export function rewriteTimes(content) {
  for (const time of /** @type {NodeListOf<HTMLTimeElement>} */ (content.querySelectorAll(".row > time[datetime]"))) time.textContent = clock(Date.parse(time.dateTime));
}

class Blocks {
  /** @type {Block[]} */
  blocks = [];

  /** @param {HTMLElement} place @param {string} name */
  constructor(place, name) {
    this.place = place;
    this.name = name;
    /** @type {Block | null} */
    this.open = null;
  }

  /** @param {Entry} entry @param {number} size @returns {Block} */
  room(entry, size) {
    if (this.open === null) {
      this.open = { element: element("div", `block ${this.name}`), first: entry.seq, last: entry.seq, count: 0, size: 0 };
      this.place.append(this.open.element);
      this.blocks.push(this.open);
    }
    this.open.last = entry.seq;
    this.open.count += 1;
    this.open.size += size;
    return this.open;
  }

  finish() {
    this.open = null;
  }
}

/** Flowing text: what a terminal or a reader of prose would see. @implements {Writer} */
class TextWriter extends Blocks {
  /** @type {Map<string, AnsiReader>} */
  #readers = new Map();
  /** @type {{style: string, node: Text} | null} */
  #last = null;

  /** @param {HTMLElement} place */
  constructor(place) {
    super(place, "text");
  }

  /** @param {Entry} entry */
  write(entry) {
    const { message, note } = entry;
    const block = this.room(entry, note === "" ? 0 : entry.size);
    let ends = true;
    if (note !== null) {
      if (note !== "") this.#put(block, `${this.#atLineStart(block) ? "" : "\n"}· ${note}\n`, "note");
    } else if (message.text !== undefined) {
      const kind = message.kind ?? "message";
      let reader = this.#readers.get(kind);
      if (reader === undefined) this.#readers.set(kind, (reader = new AnsiReader()));
      for (const { text, style } of reader.read(message.text)) this.#put(block, text, `${style}${kindClass(kind)}`.trim());
      ends = message.text.endsWith("\n");
    } else this.#put(block, `${this.#atLineStart(block) ? "" : "\n"}${valueText(message)}\n`, "value");
    const full = block.size >= BLOCK_CHARACTERS || block.count >= BLOCK_MESSAGES * 8;
    if ((full && ends) || block.size >= LINE_CHARACTERS_MAX) this.finish();
  }

  finish() {
    super.finish();
    this.#last = null;
  }

  /** @param {Block} block */
  #atLineStart(block) {
    return this.#last === null || block.element.lastChild === null || this.#last.node.data.endsWith("\n");
  }

  /** @param {Block} block @param {string} text @param {string} style */
  #put(block, text, style) {
    if (this.#last !== null && this.#last.style === style) {
      this.#last.node.appendData(text);
      return;
    }
    const node = document.createTextNode(text);
    const span = element("span", style);
    span.append(node);
    block.element.append(span);
    this.#last = { style, node };
  }
}

/** One row for each message, with its place and time. @implements {Writer} */
class RowWriter extends Blocks {
  /** @param {HTMLElement} place @param {boolean} raw */
  constructor(place, raw) {
    super(place, raw ? "rows raw" : "rows");
    this.raw = raw;
  }

  /** @param {Entry} entry */
  write(entry) {
    const block = this.room(entry, entry.size);
    const row = element("div", `row${kindClass(entry.message.kind)}`);
    row.dataset.seq = String(entry.seq);
    row.dataset.testid = "message";
    row.append(element("span", "seq", number(entry.seq)));
    if (this.raw) row.append(bounded(JSON.stringify(entry.message)));
    else {
      const { message, note } = entry;
      row.append(timeOf(message), element("span", "kind", message.kind ?? "message"));
      if (note !== null) row.append(bounded(note || JSON.stringify(message.json)));
      else row.append(bounded(message.text ?? (message.data === undefined ? JSON.stringify(message.json, null, 1) : valueText(message))));
    }
    block.element.append(row);
    if (block.count >= BLOCK_MESSAGES) this.finish();
  }
}

/** A payload: the beginning, and the rest on demand. @param {string} text */
function bounded(text) {
  const clean = new AnsiReader().read(text).map((segment) => segment.text).join("");
  if (clean.length <= PAYLOAD_CHARACTERS) return element("span", "payload", clean);
  const shown = element("span", "payload", clean.slice(0, PAYLOAD_CHARACTERS));
  const more = element("button", "more", `show all ${number(clean.length)} characters`);
  more.addEventListener("click", () => shown.replaceChildren(clean), { once: true });
  shown.append("… ", more);
  return shown;
}

/** Markdown: finished blocks are frozen, only the tail is read again. @implements {Writer} */
class MarkdownWriter extends Blocks {
  #source = "";
  /** @type {HTMLElement | null} */
  #tail = null;
  #reader = new AnsiReader();

  /** @param {HTMLElement} place */
  constructor(place) {
    super(place, "markdown");
  }

  /** @param {Entry} entry */
  write(entry) {
    const { message, note } = entry;
    if (note === "") {
      this.room(entry, 0);
      return;
    }
    if (message.text === undefined) {
      this.finish();
      const block = this.room(entry, entry.size);
      block.element.append(note === null ? element("pre", "value", valueText(message)) : element("p", "note", `· ${note}`));
      return;
    }
    this.room(entry, entry.size);
    for (const { text } of this.#reader.read(message.text)) this.#source += text;
  }

  /** Draw what was written; called once for each frame. */
  draw() {
    const block = this.open;
    if (block === null || this.#source === "") return;
    this.#tail ??= block.element.appendChild(element("div", "tail"));
    if (this.#source.length > TAIL_CHARACTERS_MAX) {
      this.#tail.replaceWith(element("pre", "", this.#source));
      this.#tail = null;
      this.#source = "";
      return;
    }
    const tokens = tokensOf(this.#source);
    // A blank line may still turn out to stand inside the block before it, as in a loose list.
    let growing = tokens.length - 1;
    while (growing > 0 && tokens[growing]?.type === "space") growing -= 1;
    const tail = tokens.splice(Math.max(growing, 0));
    if (tokens.length > 0) this.#freeze(tokens, block);
    this.#source = tail.map((token) => token.raw).join("");
    render(nodesOf(tail), /** @type {HTMLElement} */ (this.#tail));
  }

  finish() {
    this.draw();
    this.#source = "";
    this.#tail = null;
    super.finish();
  }

  /** Put finished tokens in front of the tail, and go on in a new block when this one is full. @param {import("../vendor/marked.esm.js").Token[]} tokens @param {Block} block */
  #freeze(tokens, block) {
    const tail = /** @type {HTMLElement} */ (this.#tail);
    const frozen = element("div");
    render(nodesOf(tokens), frozen);
    tail.before(...frozen.childNodes);
    if (block.element.childElementCount <= BLOCK_MESSAGES) return;
    super.finish();
    const next = this.#continue(block);
    next.element.append(tail);
  }

  /** @param {Block} block @returns {Block} a new one that begins with the message that `block` ends with */
  #continue(block) {
    const next = { element: element("div", `block ${this.name}`), first: block.last, last: block.last, count: 1, size: 0 };
    this.place.append(next.element);
    this.blocks.push(next);
    this.open = next;
    return next;
  }
}

/** @param {string} view @param {HTMLElement} place @returns {Writer & {draw?: () => void}} */
export function writerFor(view, place) {
  if (view === "markdown") return new MarkdownWriter(place);
  return view === "text" ? new TextWriter(place) : new RowWriter(place, view === "raw");
}
