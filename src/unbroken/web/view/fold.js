/**
 * Owns what is folded away on a card: a text of any length, drawn only when it is opened, and then only its beginning.
 *
 * Drawn by runcard.js. It never draws more than a bounded part, whatever a run hands over.
 */

import { plainText } from "./ansi.js";
import { number } from "./format.js";
import { Component, html } from "./html.js";
import { cut } from "./notes.js";

const CHARACTERS_FIRST = 4096;
/** What "show all" shows at most; the raw view of the stream holds the whole. */
const CHARACTERS_MAX = 200_000;

/**
 * @typedef {object} Props
 * @property {string} title
 * @property {unknown} value when it is another one, its text is made anew
 * @property {(value: any) => string} textOf
 * @property {string} testid
 * @property {boolean} [opened] at first
 *
 * @typedef {{open: boolean, all: boolean}} State
 */

/** @extends {Component<Props, State>} */
export class Fold extends Component {
  /** @type {{value: unknown, text: string} | null} */
  #made = null;

  /** @param {Props} props */
  constructor(props) {
    super(props);
    /** @type {State} */
    this.state = { open: props.opened ?? false, all: false };
  }

  render() {
    const { title, testid } = this.props;
    const { open } = this.state;
    return html`<details class="fold" open=${open} onToggle=${(/** @type {any} */ event) => this.setState({ open: event.target.open })} data-testid=${testid}>
      <summary>${title}</summary>
      ${open ? this.#body(title) : null}
    </details>`;
  }

  /** @param {string} title */
  #body(title) {
    const text = this.#text();
    const shown = text.slice(0, this.state.all ? CHARACTERS_MAX : CHARACTERS_FIRST);
    return html`<pre tabindex="0" role="region" aria-label=${title}>${shown}</pre>
      ${text.length > shown.length
        ? html`<p class="hint">${this.state.all ? `the first ${number(shown.length)} of ${number(text.length)} characters; the raw view of the stream has all` : html`<button class="more" onClick=${() => this.setState({ all: true })}>show all ${number(text.length)} characters</button>`}</p>`
        : null}`;
  }

  #text() {
    const { value, textOf } = this.props;
    if (this.#made === null || this.#made.value !== value) this.#made = { value, text: plainText(textOf(value)) };
    return this.#made.text;
  }
}

/** A JSON value as text to read. @param {unknown} value */
export function readable(value) {
  return typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? "");
}

/** The body of a `result` message as text to read: a value, or the blocks of an MCP result. @param {Record<string, unknown>} body */
export function resultText(body) {
  if ("value" in body) return readable(body.value);
  const blocks = Array.isArray(body.content) ? body.content.map(blockText).filter(Boolean) : [];
  if (blocks.length > 0) return blocks.join("\n");
  return readable(body.structuredContent ?? body);
}

/** @param {any} block */
function blockText(block) {
  if (typeof block?.text === "string") return block.text;
  const size = typeof block?.data === "string" ? `, ${number(Math.floor((block.data.length * 3) / 4))} bytes` : "";
  if (typeof block?.resource?.text === "string") return block.resource.text;
  const place = block?.uri ?? block?.resource?.uri ?? block?.mimeType;
  return `[${cut(block?.type ?? "block").slice(0, 40)}${typeof place === "string" ? ` ${place.slice(0, 200)}` : ""}${size}]`;
}
