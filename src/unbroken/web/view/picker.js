/**
 * Owns the place where a run is started: what there is to run, and the form of the one that was chosen.
 *
 * Drawn by app.js. A form has one key for what it holds, so that sending it twice starts once.
 */

import { randomId } from "../client/unbroken.js";
import { SchemaForm } from "./form.js";
import { Component, html } from "./html.js";
import { icon } from "./icons.js";
import { formatNew } from "./route.js";
import { distinct } from "./unseen.js";

/** @import { Client } from "../client/unbroken.js" */
/** @import { Runnable, Source, StreamView } from "../client/types.js" */
/** @import { NewRoute } from "./route.js" */

/** @type {Record<string, string>} */
const SOURCES = { task: "Tasks", program: "Programs", tool: "Tools" };

/**
 * @typedef {object} Props
 * @property {Client} client
 * @property {NewRoute} chosen
 * @property {(view: StreamView) => void} onStarted
 *
 * @typedef {{sources: Source[] | null, error: string, filter: string}} State
 */

/** @extends {Component<Props, State>} */
export class NewRun extends Component {
  #gone = false;

  /** @param {Props} props */
  constructor(props) {
    super(props);
    /** @type {State} */
    this.state = { sources: null, error: "", filter: "" };
  }

  componentDidMount() {
    void this.#read();
  }

  componentWillUnmount() {
    this.#gone = true;
  }

  render() {
    const { client, chosen, onStarted } = this.props;
    const { sources, error } = this.state;
    if (error) return html`<section class="new"><h1>New run</h1><p class="wrong" role="alert">${error}</p><button onClick=${() => void this.#read()}>Try again</button></section>`;
    if (sources === null) return html`<section class="new"><h1>New run</h1><p class="hint">reading what there is to run …</p></section>`;
    if (chosen.name === "") return this.#list(sources);
    const found = sources.flatMap((source) => source.runnables ?? []).find(({ type, name, server }) => type === chosen.type && name === chosen.name && (server ?? "") === chosen.server);
    if (found === undefined) return html`<section class="new"><${Back} session=${chosen.session} /><h1>${distinct(chosen.name)}</h1><p class="hint">This is not offered here, or not any more.</p></section>`;
    return html`<${StartForm} key=${JSON.stringify(chosen)} client=${client} runnable=${found} session=${chosen.session} onStarted=${onStarted} />`;
  }

  /** @param {Source[]} sources */
  #list(sources) {
    const { filter } = this.state;
    const { session } = this.props.chosen;
    const wanted = filter.trim().toLowerCase();
    const groups = sources.map((source) => ({ source, shown: (source.runnables ?? []).filter((one) => wanted === "" || [one.name, one.title, one.description, one.server].some((text) => text?.toLowerCase().includes(wanted))) }));
    const count = groups.reduce((sum, { shown }) => sum + shown.length, 0);
    return html`<section class="new" data-testid="picker">
      <h1>New run</h1>
      ${session ? html`<p class="hint">It becomes part of the session <b>${distinct(session)}</b>.</p>` : null}
      <input class="filter" type="search" placeholder="Search" aria-label="Search what there is to run" value=${filter} onInput=${(/** @type {any} */ event) => this.setState({ filter: event.target.value })} data-testid="picker-search" autocomplete="off" spellcheck=${false} />
      ${sources.length === 0 ? html`<p class="hint" data-testid="nothing">This server offers nothing to run. It is started with <code>--tasks MODULE</code>, with programs or with MCP servers to offer some.</p>` : null}
      ${sources.length > 0 && count === 0 && wanted !== "" ? html`<p class="hint">Nothing matches.</p>` : null}
      ${groups.map(({ source, shown }) => (shown.length === 0 && !(source.error && wanted === "") ? null : html`<${Group} key=${`${source.type} ${source.server ?? ""}`} source=${source} shown=${shown} session=${session} />`))}
    </section>`;
  }

  async #read() {
    this.setState({ error: "" });
    try {
      const sources = await this.props.client.runs.runnables();
      if (!this.#gone) this.setState({ sources });
    } catch (error) {
      if (!this.#gone) this.setState({ error: `What there is to run could not be read: ${error instanceof Error ? error.message : error}` });
    }
  }
}

/** @param {{source: Source, shown: Runnable[], session: string}} props */
function Group({ source, shown, session }) {
  const title = source.server ? `Tools of ${distinct(source.server)}` : (SOURCES[source.type] ?? source.type);
  return html`<section class="group" aria-label=${title} data-testid="source" data-source=${source.server ?? source.type}>
    <h2>${title}</h2>
    ${source.error ? html`<p class="source-error" data-testid="source-error">${icon("interrupted")} <span>${source.error}</span></p>` : null}
    <ul>
      ${shown.map(
        (one) => html`<li key=${one.name}>
          <a class="runnable" href=${formatNew({ type: one.type, name: one.name, server: one.server ?? "", session })} data-testid="runnable" data-name=${one.name}>
            <span class="name">${distinct(one.title || one.name)}</span>
            ${one.description ? html`<span class="facts">${one.description.slice(0, 300)}</span>` : null}
          </a>
        </li>`,
      )}
    </ul>
  </section>`;
}

/** @param {{session: string}} props */
function Back({ session }) {
  return html`<a class="back" href=${formatNew({ session })}>‹ all that can be run</a>`;
}

/** @extends {Component<{client: Client, runnable: Runnable, session: string, onStarted: (view: StreamView) => void}, {session: string}>} */
class StartForm extends Component {
  #key = randomId();
  #sent = "";

  /** @param {{client: Client, runnable: Runnable, session: string, onStarted: (view: StreamView) => void}} props */
  constructor(props) {
    super(props);
    this.state = { session: props.session };
  }

  render() {
    const { runnable } = this.props;
    const { name, title, description, server, input_schema } = runnable;
    const schema = input_schema?.type === undefined ? { ...input_schema, type: "object" } : input_schema;
    return html`<section class="new" data-testid="start-form">
      <${Back} session=${this.props.session} />
      <h1>${distinct(title || name)}</h1>
      <p class="hint">${distinct([server ? `Tool of ${server}` : "", title && title !== name ? name : ""].filter(Boolean).join(" · "))}</p>
      ${description ? html`<p class="description">${description.slice(0, 4000)}</p>` : null}
      <${SchemaForm} schema=${schema} label="Arguments" action="Start" onSend=${(/** @type {any} */ value) => this.#start(value)}>
        <div class="field">
          <label for="new-session">Session <span class="optional">optional</span></label>
          <input id="new-session" type="text" value=${this.state.session} onInput=${(/** @type {any} */ event) => this.setState({ session: event.target.value })} autocomplete="off" spellcheck=${false} data-testid="session-field" />
          <p class="hint">Runs of one session are shown together.</p>
        </div>
      <//>
    </section>`;
  }

  /** @param {Record<string, unknown>} given */
  async #start(given) {
    const { client, runnable, onStarted } = this.props;
    const session = this.state.session.trim();
    const what = runnable.type === "tool" ? { tool: runnable.name, server: runnable.server ?? "" } : { [runnable.type]: runnable.name };
    const start = { ...what, arguments: given, ...(session === "" ? {} : { session }) };
    const text = JSON.stringify(start);
    if (this.#sent !== "" && this.#sent !== text) this.#key = randomId(); // what was mended is another start
    this.#sent = text;
    onStarted(await client.runs.start({ ...start, key: this.#key }));
  }
}
