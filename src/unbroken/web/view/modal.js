/**
 * Owns how something stands in front of the page: a modal dialog with the platform's own rules for the focus and for Esc.
 *
 * Drawn by dialogs.js and share.js. What had the focus before has it again afterwards, however the dialog is closed.
 */

import { Component, html } from "./html.js";

/** @extends {Component<{label: string, testid: string, onClose: () => void, children?: any}>} */
export class Modal extends Component {
  /** @type {HTMLDialogElement | null} */
  #dialog = null;
  /** @type {EventTarget | null} where the pointer went down */
  #pressed = null;
  #gone = false;

  componentDidMount() {
    this.#dialog?.showModal();
  }

  componentWillUnmount() {
    this.#gone = true;
    this.#dialog?.close(); // gives the focus back, which taking the element away does not
  }

  render() {
    const { label, testid, children } = this.props;
    const close = () => this.#gone || this.props.onClose();
    // Both ends of a click: who drags over a text and lets go outside has not asked for an end.
    const pressed = (/** @type {Event} */ event) => (this.#pressed = event.target);
    const outside = (/** @type {Event} */ event) => event.target === this.#dialog && this.#pressed === this.#dialog && close();
    return html`<dialog ref=${(/** @type {HTMLDialogElement | null} */ element) => (this.#dialog = element)} aria-label=${label} data-testid=${testid} onClose=${close} onPointerDown=${pressed} onClick=${outside}><div class="dialog">${children}</div></dialog>`;
  }
}
