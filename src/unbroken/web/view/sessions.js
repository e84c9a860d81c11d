/**
 * Owns the panel of a session: its head with the sums, a card for each run, links to what else it holds.
 *
 * Drawn by app.js. It never asks the server: it shows what `SessionModel` holds.
 */

import { ago, counted, stateWord } from "./format.js";
import { html } from "./html.js";
import { icon } from "./icons.js";
import { formatNew, formatRoute } from "./route.js";
import { RunCardView } from "./runcard.js";
import { distinct } from "./unseen.js";

/** @import { RunActions } from "./runcard.js" */
/** @import { RunCard } from "./card.js" */
/** @import { SessionModel } from "./session.js" */

/** How many of the streams without a card are linked. */
const OTHERS_MAX = 100;

/** @param {{model: SessionModel, now: number, actions: RunActions | null}} props `actions`: null for who came by a share link, and starts nothing either */
export function SessionPanel({ model, now, actions }) {
  const { cards, others, error, phase, name } = model;
  const guest = actions === null;
  return html`<section class="session" data-testid="session" data-phase=${phase}>
    <header class="stream-head">
      <div class="stream-title"><h1 title=${distinct(name)}>${distinct(name)}</h1><span class="sums" data-testid="sums">${sums(cards)}</span></div>
      ${guest ? null : html`<div class="stream-tools"><a class="button" href=${formatNew({ session: name })} data-testid="new-in-session">${icon("plus")} New run</a></div>`}
    </header>
    <div class="cards-place" tabindex="0" role="region" aria-label="Runs of the session">
      ${error ? html`<p class="hint" role="status">The session cannot be read at the moment: ${error}</p>` : null}
      ${phase === "loading" && !error ? html`<p class="hint">reading …</p>` : null}
      ${phase === "shown" && cards.length === 0 && others.length === 0 ? html`<p class="hint">There is nothing in this session yet, or it is not yours.${guest ? null : html` <a href=${formatNew({ session: name })}>Start a run in it.</a>`}</p>` : null}
      <div class="cards" data-testid="cards">
        ${cards.map((card) => html`<${RunCardView} key=${card.view.stream} card=${card} now=${now} actions=${actions} />`)}
      </div>
      ${others.length > 0
        ? html`<h2 class="others-title">Also in this session</h2>
            <ul class="others">
              ${others.slice(0, OTHERS_MAX).map((view) => html`<li key=${view.stream}><a href=${formatRoute(view.stream)}>${distinct(view.stream)}</a> <span class="optional">${stateWord(view.state)} · ${ago(view.updated, now)}</span></li>`)}
            </ul>
            ${others.length > OTHERS_MAX || model.more ? html`<p class="hint">and older ones; the list of streams finds them</p>` : null}`
        : null}
    </div>
  </section>`;
}

/** @param {RunCard[]} cards */
function sums(cards) {
  const of = (/** @type {(card: RunCard) => boolean} */ test) => cards.filter(test).length;
  const active = of((card) => !card.ended);
  const asks = of((card) => card.state === "asks");
  const bad = of((card) => card.endedBadly);
  return [counted(cards.length, "run"), active > 0 ? `${active} active` : "", asks > 0 ? `${asks} ${asks === 1 ? "waits" : "wait"} for an answer` : "", bad > 0 ? `${bad} ended badly` : ""].filter(Boolean).join(" · ");
}
