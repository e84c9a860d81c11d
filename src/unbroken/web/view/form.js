/**
 * Owns a form that is made from a JSON Schema: its controls, what was typed, and the complaints at their fields.
 *
 * Drawn by picker.js for arguments and by runcard.js for answers. It hands a value on and shows what comes back of it.
 */

import { UnbrokenError } from "../client/unbroken.js";
import { Component, html } from "./html.js";
import { fieldAt, fieldsOf, own, valueOf } from "./schema.js";

/** @import { Field } from "./schema.js" */

let made = 0;

/**
 * @typedef {object} Props
 * @property {any} schema
 * @property {string} label of the one field of a schema that is no object
 * @property {string} action the words on the button
 * @property {boolean} [strict] whether required fields are asked for here, where no server does
 * @property {(value: any) => Promise<unknown>} onSend
 * @property {any} [children] more controls, in front of the button
 *
 * @typedef {{typed: Record<string, string | boolean>, errors: Record<string, string>, error: string, sending: boolean}} State
 */

/** @extends {Component<Props, State>} */
export class SchemaForm extends Component {
  /** @type {Field[]} */
  #fields;
  /** @type {HTMLFormElement | null} */
  #form = null;
  #sending = false;
  #gone = false;
  #id = `form-${(made += 1)}`;

  /** @param {Props} props */
  constructor(props) {
    super(props);
    this.#fields = fieldsOf(props.schema, props.label);
    /** @type {State} */
    this.state = { typed: {}, errors: {}, error: "", sending: false };
  }

  componentWillUnmount() {
    this.#gone = true;
  }

  render() {
    const { action, children } = this.props;
    const { error, sending } = this.state;
    return html`<form class="schema-form" ref=${(/** @type {HTMLFormElement | null} */ element) => (this.#form = element)} onSubmit=${(/** @type {Event} */ event) => this.#submit(event)} action="." method="post" novalidate>
      ${this.#fields.map((field, index) => this.#field(field, index))}
      ${children}
      ${error ? html`<p class="wrong" role="alert" data-testid="form-error">${error}</p>` : null}
      <div class="buttons"><button class="solid" disabled=${sending} data-testid="send">${sending ? "Sending …" : action}</button></div>
    </form>`;
  }

  /** @param {Field} field @param {number} index */
  #field(field, index) {
    const id = `${this.#id}-${index}`;
    const error = own(this.state.errors, field.name);
    const described = [field.description && `${id}-words`, error && `${id}-wrong`].filter(Boolean).join(" ");
    const words = html`${field.label}${field.required ? null : html` <span class="optional">optional</span>`}`;
    const control = this.#control(field, { id, "aria-invalid": error ? "true" : null, "aria-required": field.required ? "true" : null, "aria-describedby": described || null });
    return html`<div class="field" key=${field.name} data-testid="field" data-field=${field.name}>
      ${field.kind === "boolean" ? html`<label class="check" for=${id}>${control}${field.label}</label>` : html`<label for=${id}>${words}</label>${control}`}
      ${field.description ? html`<p class="hint" id=${`${id}-words`}>${field.description}</p>` : null}
      ${error ? html`<p class="wrong" id=${`${id}-wrong`} role="alert" data-testid="field-error">${error}</p>` : null}
    </div>`;
  }

  /** @param {Field} field @param {Record<string, string | null>} facts */
  #control(field, facts) {
    const value = own(this.state.typed, field.name) ?? field.initial;
    const onInput = (/** @type {any} */ event) => this.#type(field, field.kind === "boolean" ? event.target.checked : event.target.value);
    switch (field.kind) {
      case "boolean":
        return html`<input type="checkbox" ...${facts} checked=${value === true} onChange=${onInput} />`;
      case "choice":
        return html`<select ...${facts} onChange=${onInput}>
          <option value="" selected=${value === ""}>${field.required ? "choose …" : "–"}</option>
          ${field.options.map(({ label }, index) => html`<option key=${index} value=${String(index)} selected=${value === String(index)}>${label}</option>`)}
        </select>`;
      case "long":
      case "json":
        return html`<textarea ...${facts} rows=${4} class=${field.kind === "json" ? "mono" : ""} placeholder=${field.hint} spellcheck=${false} value=${value} onInput=${onInput}></textarea>`;
      default: {
        const mode = field.kind === "integer" ? "numeric" : field.kind === "number" ? "decimal" : "text";
        return html`<input type="text" ...${facts} inputmode=${mode} placeholder=${field.hint} autocomplete="off" spellcheck=${false} value=${value} onInput=${onInput} />`;
      }
    }
  }

  /** @param {Field} field @param {string | boolean} value */
  #type(field, value) {
    const { [field.name]: _mended, ...errors } = this.state.errors;
    this.setState({ typed: { ...this.state.typed, [field.name]: value }, errors, error: "" });
  }

  /** @param {Event} event */
  async #submit(event) {
    event.preventDefault();
    if (this.#sending) return;
    const { value, errors } = valueOf(this.#fields, this.state.typed, { strict: this.props.strict });
    if (Object.keys(errors).length > 0) {
      this.#complain(errors);
      return;
    }
    this.#sending = true; // at once: a second click comes before the next drawing
    this.setState({ errors: {}, error: "", sending: true });
    try {
      await this.props.onSend(value);
    } catch (error) {
      if (!this.#gone) this.#refused(error);
    } finally {
      this.#sending = false;
      if (!this.#gone) this.setState({ sending: false });
    }
  }

  /** @param {unknown} error */
  #refused(error) {
    const words = error instanceof Error ? error.message : String(error);
    const name = error instanceof UnbrokenError ? fieldAt(this.#fields, error.detail.field) : null;
    if (name === null) this.setState({ error: words });
    else this.#complain({ [name]: words.startsWith(`${name}: `) ? words.slice(name.length + 2) : words });
  }

  /** Say what is wrong at its field, and go to the first. @param {Record<string, string>} errors */
  #complain(errors) {
    this.setState({ errors, error: "" });
    requestAnimationFrame(() => /** @type {HTMLElement | null | undefined} */ (this.#form?.querySelector("[aria-invalid=true]"))?.focus());
  }
}
