/**
 * Owns the dialog in which a stream is shared: how long a link lasts, the link, and those there are with their end.
 *
 * Drawn by app.js. It never writes a link anywhere but into its field and, when asked, the clipboard.
 */

import { moment } from "./format.js";
import { Component, html } from "./html.js";
import { icon } from "./icons.js";
import { DAY, LASTS, Links } from "./links.js";
import { Modal } from "./modal.js";
import { distinct } from "./unseen.js";

/** @import { Client } from "../client/unbroken.js" */
/** @import { StreamView } from "../client/types.js" */
/** @import { Link } from "./links.js" */

/** How many links are listed. */
const SHOWN_MAX = 100;

/**
 * @typedef {object} Props
 * @property {Client} client
 * @property {StreamView} view
 * @property {number} now
 * @property {() => void} onClose
 */

/** @extends {Component<Props, {}>} */
export class Share extends Component {
  #links;
  #gone = false;
  /** @type {HTMLInputElement | null} */
  #field = null;
  /** @type {HTMLElement | null} */
  #heading = null;

  /** @param {Props} props */
  constructor(props) {
    super(props);
    this.#links = new Links(props.client, props.view, location.href, () => this.#gone || this.setState({}));
  }

  componentDidMount() {
    void this.#links.read();
  }

  componentWillUnmount() {
    this.#gone = true;
  }

  render() {
    const { view, onClose } = this.props;
    const { made, said, error } = this.#links;
    return html`<${Modal} label="Share" testid="share-dialog" onClose=${onClose}>
      <h2>Share this stream</h2>
      <p>With a link, anybody can read <b class="share-name">${distinct(view.stream)}</b> as it is written, without an account. They can neither stop it nor write to it, and see nothing else.</p>
      ${this.#form()}
      <p class="wrong" role="alert" data-testid="share-error">${error}</p>
      ${made === null ? null : this.#made(made)}
      <p class="share-said" role="status" data-testid="share-said">${said}</p>
      ${this.#list()}
      <div class="buttons"><button onClick=${onClose} data-testid="share-close">Close</button></div>
    <//>`;
  }

  #form() {
    const { making } = this.#links;
    const submit = (/** @type {any} */ event) => {
      event.preventDefault();
      const { lasts, label } = event.target.elements;
      void this.#make(Number(lasts.value), label);
    };
    return html`<form class="share-form" onSubmit=${submit} action="." method="post">
      <div class="field">
        <label for="share-lasts">The link lasts</label>
        <select id="share-lasts" name="lasts" data-testid="share-lasts">${LASTS.map(({ words, seconds }) => html`<option key=${seconds} value=${seconds} selected=${seconds === DAY}>${words}</option>`)}</select>
      </div>
      <div class="field">
        <label for="share-label">For whom, or for what <span class="optional">optional</span></label>
        <input id="share-label" name="label" type="text" maxlength="100" autocomplete="off" spellcheck=${false} data-testid="share-label" />
      </div>
      <button class="solid" disabled=${making} data-testid="share-make">${making ? "Making it …" : "Make a link"}</button>
    </form>`;
  }

  /** @param {import("./links.js").MadeLink} made */
  #made({ address, expires, early }) {
    return html`<div class="share-made">
      <label for="share-link">The link</label>
      <div class="share-row">
        <input id="share-link" type="text" readonly value=${address} ref=${(/** @type {HTMLInputElement | null} */ element) => (this.#field = element)} onFocus=${(/** @type {any} */ event) => event.target.select()} aria-describedby="share-words" autocomplete="off" spellcheck=${false} data-testid="share-link" />
        <button onClick=${() => void this.#copy(address)} data-testid="share-copy">${icon("copy")} Copy</button>
      </div>
      <p id="share-words" data-testid="share-words">Whoever has it can read this stream ${until(expires)}, or until you revoke it. It is shown only this once.${early ? " It ends that early because your own access does." : ""}</p>
    </div>`;
  }

  #list() {
    const { links, more, unread } = this.#links;
    return html`<section class="share-list" aria-labelledby="share-heading">
      <h3 id="share-heading" tabindex="-1" ref=${(/** @type {HTMLElement | null} */ element) => (this.#heading = element)}>Links to this stream</h3>
      ${unread ? html`<p data-testid="share-unread">They cannot be shown: ${unread}.</p>` : null}
      ${links === null && !unread ? html`<p>reading …</p>` : null}
      ${links?.length === 0 ? html`<p data-testid="share-none">There is none.</p>` : null}
      ${links === null ? null : html`<ul>${links.slice(0, SHOWN_MAX).map((link) => html`<${Row} key=${link.id} link=${link} now=${this.props.now} ending=${this.#links.ending.has(link.id)} onRevoke=${() => void this.#revoke(link.id)} />`)}</ul>`}
      ${more || (links?.length ?? 0) > SHOWN_MAX ? html`<p>There may be more: <code>unbroken token list</code> shows all.</p>` : null}
    </section>`;
  }

  /** @param {number} seconds @param {HTMLInputElement} label emptied for the next one */
  async #make(seconds, label) {
    const before = this.#links.made;
    await this.#links.make(seconds, label.value.trim());
    if (this.#links.made === before) return;
    label.value = "";
    requestAnimationFrame(() => this.#field?.focus());
  }

  /** @param {string} id */
  async #revoke(id) {
    await this.#links.revoke(id);
    if (this.#links.error === "") this.#heading?.focus(); // its button is gone
  }

  /** @param {string} address */
  async #copy(address) {
    try {
      await navigator.clipboard.writeText(address);
      this.#links.say("Copied.");
    } catch {
      this.#field?.focus();
      this.#field?.select();
      this.#links.say("The browser does not allow copying here. The link is selected: copy it with the keyboard.");
    }
  }
}

/** @param {{link: Link, now: number, ending: boolean, onRevoke: () => void}} props */
function Row({ link, now, ending, onRevoke }) {
  const { label, created, expires, wider } = link;
  const over = expires !== null && expires <= now;
  const name = label === "" ? `made ${moment(created)}` : distinct(label);
  const facts = [over ? "its time is over" : until(expires), label === "" ? "" : `made ${moment(created)}`, wider ? "opens more than this stream" : ""];
  return html`<li data-testid="share-item">
    <span class="share-facts"><span>${name}</span><span class="optional">${facts.filter(Boolean).join(" · ")}</span></span>
    <button class="danger" disabled=${ending} onClick=${onRevoke} aria-label=${`Revoke the link: ${name}`} data-testid="share-revoke">${ending ? "Revoking …" : "Revoke"}</button>
  </li>`;
}

/** @param {number | null} expires */
function until(expires) {
  return expires === null ? "for ever" : `until ${moment(expires)}`;
}
