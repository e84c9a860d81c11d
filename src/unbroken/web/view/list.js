/**
 * Owns the list of streams: what there is, in which state, when it last moved.
 *
 * Drawn by app.js. It never asks the server itself.
 */

import { ago, number, stateWord } from "./format.js";
import { html } from "./html.js";
import { icon } from "./icons.js";
import { formatNew, formatRoute, formatSession } from "./route.js";
import { distinct } from "./unseen.js";

/** @import { StreamView } from "../client/types.js" */

/** How many sessions are linked above the streams. */
const SESSIONS_MAX = 8;

/**
 * @param {object} props
 * @param {StreamView[] | null} props.streams
 * @param {boolean} props.more whether the server has more
 * @param {string | null} props.open
 * @param {string | null} props.session the open one
 * @param {boolean} props.guest whether the reader can do nothing but read
 * @param {string} props.filter
 * @param {number} props.now
 * @param {(filter: string) => void} props.onFilter
 * @param {() => void} props.onMore
 * @param {() => void} props.onOpen also when the stream chosen is open already
 */
export function StreamList({ streams, more, open, session, guest, filter, now, onFilter, onMore, onOpen }) {
  const wanted = filter.trim().toLowerCase();
  const shown = (streams ?? []).filter((view) => wanted === "" || [view.stream, view.session, view.kind, view.state].some((text) => text?.toLowerCase().includes(wanted)));
  const sessions = [...new Set(shown.flatMap((view) => view.session ?? []))].slice(0, SESSIONS_MAX);
  return html`
    <nav class="list" aria-label="Streams">
      ${guest ? null : html`<a class="button wide new-run" href=${formatNew(session === null ? {} : { session })} onClick=${onOpen} data-testid="new-run">${icon("plus")} New run</a>`}
      ${sessions.length > 0 ? html`<h2>Sessions</h2><ul class="sessions">${sessions.map((name) => html`<li key=${name}><a href=${formatSession(name)} onClick=${onOpen} class=${name === session ? "open" : ""} aria-current=${name === session ? "page" : null} data-testid="session-row"><span>${icon("menu")}</span><span class="name">${distinct(name)}</span></a></li>`)}</ul>` : null}
      <div class="list-head">
        <h2>Streams</h2>
        <span class="count" data-testid="count">${streams === null ? "" : number(shown.length)}</span>
      </div>
      <input class="filter" type="search" placeholder="Filter" aria-label="Filter streams" value=${filter} onInput=${(/** @type {any} */ event) => onFilter(event.target.value)} data-testid="filter" autocomplete="off" spellcheck=${false} />
      ${streams === null ? html`<p class="hint">reading …</p>` : null}
      ${streams !== null && shown.length === 0 ? html`<p class="hint">${streams.length === 0 ? "No streams yet. They appear here as soon as something is written." : "No stream matches."}</p>` : null}
      <ul data-testid="streams">
        ${shown.map((view) => html`<${Row} key=${view.stream} view=${view} open=${view.stream === open} now=${now} onOpen=${onOpen} />`)}
      </ul>
      ${more ? html`<button class="quiet wide" onClick=${onMore}>more</button>` : null}
    </nav>`;
}

/** @param {{view: StreamView, open: boolean, now: number, onOpen: () => void}} props */
function Row({ view, open, now, onOpen }) {
  const facts = [stateWord(view.state), ago(view.updated, now)];
  return html`
    <li>
      <a href=${formatRoute(view.stream)} onClick=${onOpen} class=${open ? "open" : ""} aria-current=${open ? "page" : null} data-testid="stream-link" data-stream=${view.stream}>
        <span class="state-${view.state}">${icon(view.state)}</span>
        <span class="name">${distinct(view.stream)}</span>
        <span class="facts">${facts.join(" · ")}${view.session ? html` <span class="chip">${distinct(view.session)}</span>` : null}</span>
      </a>
    </li>`;
}
