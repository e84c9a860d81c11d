/**
 * Owns the panel of one stream: its head, its surface, its foot and its end.
 *
 * Drawn by app.js. It never decides what is new or lost: it shows what `StreamModel` says.
 */

import { bytes, counted, duration, number, reasonWords, stateWord } from "./format.js";
import { Component, html } from "./html.js";
import { icon } from "./icons.js";
import { Log } from "./log.js";
import { hasEnded } from "./model.js";
import { formatSession, VIEWS } from "./route.js";
import { RUN_WORDS, RunCardView } from "./runcard.js";
import { distinct } from "./unseen.js";

/** @import { StreamView } from "../client/types.js" */
/** @import { StreamModel } from "./model.js" */
/** @import { RunActions } from "./runcard.js" */

/** The surface: preact makes it once and leaves the rest to `Log`. @extends {Component<{model: StreamModel, view: string, ready: (log: Log | null) => void}>} */
class Surface extends Component {
  /** @type {Log | null} */
  #log = null;
  /** @type {HTMLElement | null} */
  #scroller = null;

  componentDidMount() {
    const scroller = /** @type {HTMLElement} */ (this.#scroller);
    const { model, view, ready } = this.props;
    this.#log = new Log(model, view, scroller, /** @type {HTMLElement} */ (scroller.firstElementChild));
    ready(this.#log);
  }

  componentWillUnmount() {
    this.#log?.destroy();
    this.props.ready(null);
  }

  shouldComponentUpdate() {
    return false;
  }

  render() {
    return html`<div class="surface" ref=${(/** @type {HTMLElement | null} */ element) => (this.#scroller = element)} tabindex="0" role="region" aria-label="Messages" data-testid="surface"><div class="content" data-testid="content"></div></div>`;
  }
}

/**
 * @param {object} props
 * @param {StreamModel} props.model
 * @param {string} props.view
 * @param {number} props.now
 * @param {RunActions | null} props.actions null for who came by a share link, and can do nothing but read
 * @param {(view: string) => void} props.onView
 * @param {() => void} props.onCancel
 * @param {(view: StreamView) => void} props.onShare
 * @param {() => void} props.onCopy
 * @param {() => void} props.onFollow
 * @param {(log: Log | null) => void} props.ready
 */
export function StreamPanel({ model, view, now, actions, onView, onCancel, onShare, onCopy, onFollow, ready }) {
  if (model.phase === "missing") return html`<${Notice} title="There is no such stream" words=${`“${distinct(model.name)}” does not exist, or it is not yours. Should it begin, it is shown here.`} />`;
  if (model.phase === "failed") return html`<${Notice} title="This stream cannot be shown" words=${model.error?.message ?? ""} />`;
  const stream = model.view;
  const guest = actions === null;
  return html`
    <section class="stream" data-testid="stream" data-phase=${model.phase}>
      <header class="stream-head">
        <div class="stream-title">
          <h1 title=${distinct(model.name)}>${distinct(model.name)}</h1>
          ${stream === null ? null : html`<${State} state=${model.card?.state ?? stream.state} words=${model.card === null ? stateWord(stream.state) : RUN_WORDS[model.card.state]} />`}
          ${guest ? html`<span class="chip read-only" title="You came by a link that shows this stream and does nothing else" data-testid="guest">read only</span>` : null}
          ${stream === null || guest ? null : html`<button class="quiet share" onClick=${() => onShare(stream)} title="A link for somebody to watch" aria-label="Share" data-testid="share">${icon("share")}<span>Share</span></button>`}
        </div>
        <div class="stream-tools">
          <div class="views" role="group" aria-label="View">
            ${VIEWS.map((name) => html`<button key=${name} class=${name === view ? "chosen" : ""} aria-pressed=${name === view} onClick=${() => onView(name)} data-testid=${`view-${name}`}>${name}</button>`)}
          </div>
          <button class="quiet" onClick=${onCopy} title="Copy (c)" aria-label="Copy">${icon("copy")}</button>
          ${stream === null || guest || hasEnded(stream) ? null : html`<button class="danger" onClick=${onCancel} disabled=${Boolean(stream.cancel_requested)} title=${stream.cancel_requested_by ? `asked for by ${distinct(stream.cancel_requested_by)}` : null} data-testid="cancel">${stream.cancel_requested ? "Cancel requested" : "Cancel"}</button>`}
        </div>
      </header>
      ${model.card === null ? null : html`<div class="card-place" role="region" aria-label="The run"><${RunCardView} card=${model.card} now=${now} actions=${actions} alone=${true} /></div>`}
      <div class="stream-body">
        ${model.loadingOlder ? html`<p class="older" role="status">reading older messages …</p>` : null}
        <${Surface} key=${`${view}`} model=${model} view=${view} ready=${ready} />
        ${stream !== null && stream.head === 0 && !hasEnded(stream) ? html`<p class="empty">Nothing has been written yet. Messages appear here as soon as they are durable.</p>` : null}
        ${model.unread > 0 ? html`<button class="unread" onClick=${onFollow} data-testid="unread">${icon("down")} ${number(model.unread)} new</button>` : null}
        ${model.paused ? html`<button class="unread" onClick=${onFollow} data-testid="paused">view paused · p goes on</button>` : null}
      </div>
      ${model.phase === "ended" && stream !== null && model.card === null ? html`<${End} view=${stream} />` : null}
      <footer class="stream-foot"><${Figures} model=${model} /></footer>
    </section>`;
}

/** @param {{state: string, words: string}} props */
function State({ state, words }) {
  return html`<span class="state state-${state}" data-testid="state">${icon(state)}<span>${words}</span></span>`;
}

/** @param {{view: import("../client/types.js").StreamView}} props */
function End({ view }) {
  const reason = reasonWords(view.reason);
  const milliseconds = (view.ended ?? view.created) - view.created;
  const took = milliseconds >= 50 ? ` · ${duration(milliseconds)}` : "";
  return html`<div class="end end-${view.state}" data-testid="end">
    ${icon(view.state)}<strong>${stateWord(view.state)}</strong>
    <span>${[reason, counted(view.head, "message")].filter(Boolean).join(" · ")}${took}</span>
  </div>`;
}

/** @param {{model: StreamModel}} props */
function Figures({ model }) {
  const stream = model.view;
  if (stream === null) return html`<span>${model.error === null ? "reading …" : `waiting for the server: ${model.error.message}`}</span>`;
  const lag = Math.max(stream.head, model.received) - model.shown;
  return html`
    <span>message <b data-testid="shown">${number(model.shown)}</b></span>
    <span>lag <b data-testid="lag">${number(lag)}</b></span>
    <span>${bytes(stream.bytes)}</span>
    <span>${stream.kind}</span>
    <span>epoch ${stream.epoch}</span>
    ${stream.session ? html`<span class="grow">session <a href=${formatSession(stream.session)} data-testid="session-link">${distinct(stream.session)}</a></span>` : null}`;
}

/** @param {{title: string, words: string}} props */
export function Notice({ title, words }) {
  return html`<section class="notice" data-testid="notice"><h1>${title}</h1><p>${words}</p></section>`;
}
