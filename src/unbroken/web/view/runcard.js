/**
 * Owns how a run looks as a card: its state, its progress, its question, what went in and what came out.
 *
 * Drawn by stream.js above the messages and by sessions.js once for each run. It never acts itself: it calls `RunActions`.
 */

import { Fold, readable, resultText } from "./fold.js";
import { SchemaForm } from "./form.js";
import { bytes, counted, elapsed, number } from "./format.js";
import { Component, html } from "./html.js";
import { icon } from "./icons.js";
import { argumentWords, failureWords } from "./notes.js";
import { formatRoute } from "./route.js";
import { distinct } from "./unseen.js";

/** @import { Progress, Question, RunCard } from "./card.js" */

/** Results up to this length are open at first. */
const OPEN_CHARACTERS = 300;

/** @type {Record<import("./card.js").CardState, string>} */
export const RUN_WORDS = {
  queued: "waits for its turn",
  running: "running",
  asks: "waits for an answer",
  paused: "paused",
  cancelling: "cancel requested",
  completed: "completed",
  failed: "failed",
  timed_out: "timed out",
  cancelled: "cancelled",
  interrupted: "interrupted",
};

/**
 * @typedef {object} RunActions
 * @property {(stream: string) => void} cancel asks first
 * @property {(stream: string) => Promise<void>} retry
 * @property {(stream: string, paused: boolean) => Promise<void>} pause
 * @property {(stream: string, id: string, response: unknown) => Promise<void>} answer
 * @property {(stream: string, name: string) => Promise<void>} download
 *
 * @typedef {object} Props
 * @property {RunCard} card
 * @property {number} now milliseconds since 1970
 * @property {RunActions | null} actions null for who can only read
 * @property {boolean} [alone] whether it stands above the run's own messages
 */

/** @extends {Component<Props, {busy: boolean}>} */
export class RunCardView extends Component {
  /** @type {RunCard | null} */
  #card = null;
  #version = -1;
  #busy = false;

  /** @param {Props} props */
  constructor(props) {
    super(props);
    this.state = { busy: false };
  }

  /** @param {Props} props @param {{busy: boolean}} state */
  shouldComponentUpdate(props, state) {
    const ticks = !props.card.ended && props.now !== this.props.now;
    return props.card !== this.#card || props.card.version !== this.#version || state.busy !== this.state.busy || ticks;
  }

  render() {
    const { card, now, actions, alone } = this.props;
    this.#card = card;
    this.#version = card.version;
    const { state, view } = card;
    const { run } = view;
    const title = distinct(run?.server ? `${run.server} · ${run.name}` : (run?.name ?? view.stream));
    return html`<article class="card card-${state} ${alone ? "alone" : ""}" data-testid="run-card" data-stream=${view.stream} data-state=${state} aria-label=${`run ${title}`}>
      <header class="card-head">
        <h2>${alone ? title : html`<a href=${formatRoute(view.stream)} title=${distinct(view.stream)}>${title}</a>`}</h2>
        ${alone ? this.#facts(card, now, true) : html`<span class="state state-${state}" data-testid="card-state">${icon(state)}<span>${RUN_WORDS[state]}${state === "cancelling" && view.cancel_requested_by ? ` by ${distinct(view.cancel_requested_by.slice(0, 100))}` : ""}</span></span>`}
        ${alone ? this.#tools(card, actions, true) : null}
      </header>
      ${alone ? null : this.#facts(card, now, false)}
      ${this.#bar(card)}
      ${[...card.questions.values()].map((question) => html`<${Asked} key=${question.id} question=${question} over=${card.ended} onAnswer=${actions === null ? null : (/** @type {unknown} */ response) => actions.answer(view.stream, question.id, response)} />`)}
      ${card.endedBadly ? html`<${BadEnd} card=${card} />` : null}
      ${!alone && card.output !== "" && card.result === null ? html`<pre class="card-output" aria-label="newest output">${tail(card.output)}</pre>` : null}
      ${this.#files(card, actions)}
      ${this.#folds(card)}
      ${alone ? null : this.#tools(card, actions, false)}
    </article>`;
  }

  /** @param {RunCard} card @param {number} now @param {boolean} alone */
  #facts(card, now, alone) {
    const { run } = card.view;
    const given = alone ? "" : argumentWords(run?.arguments ?? {});
    return html`<p class="card-facts">
      <span data-testid="elapsed">${elapsed(card.elapsed(now), card.ended)}</span>
      ${card.attempt > 1 ? html`<span data-testid="attempt">attempt ${card.attempt}</span>` : null}
      ${given ? html`<span class="given">${given}</span>` : null}
      ${run?.retry_of ? html`<span>again after <a href=${formatRoute(run.retry_of)}>${distinct(run.retry_of)}</a></span>` : null}
    </p>`;
  }

  /** @param {RunCard} card */
  #bar(card) {
    const { progress } = card;
    const moving = card.state === "running" || card.state === "cancelling";
    if (progress === null) return moving ? html`<${Bar} progress=${null} moving=${true} />` : null;
    return html`${progress.total !== null || moving ? html`<${Bar} progress=${progress} moving=${moving} />` : null}
      <p class="card-progress"><span class="card-message" data-testid="progress-message">${progress.message}</span><span>${progressWords(progress)}</span></p>`;
  }

  /** @param {RunCard} card @param {RunActions | null} actions */
  #files(card, actions) {
    if (card.files.length === 0) return null;
    return html`<ul class="card-files" aria-label="Files">
      ${card.files.map((file) => {
        const words = html`<bdi>${distinct(file.name)}</bdi> <span class="optional">${bytes(file.size)}</span>`;
        return html`<li key=${file.stream}>${actions === null ? words : html`<button class="quiet" onClick=${() => actions.download(file.stream, file.name)} data-testid="file">${icon("down")} ${words}</button>`}</li>`;
      })}
    </ul>`;
  }

  /** @param {RunCard} card */
  #folds(card) {
    const given = card.view.run?.arguments ?? {};
    const result = card.result;
    const failed = result?.isError === true;
    const lines = card.lines.length;
    return html`<div class="folds">
      ${result === null ? null : html`<${Fold} key="result" title=${failed ? "Result: the tool reports an error" : "Result"} value=${result} textOf=${resultText} opened=${shortResult(result)} testid="result" />`}
      ${Object.keys(given).length > 0 ? html`<${Fold} key="arguments" title="Arguments" value=${given} textOf=${readable} testid="arguments" />` : null}
      ${lines > 0 ? html`<${Log} key="log" card=${card} />` : null}
    </div>`;
  }

  /** @param {RunCard} card @param {RunActions | null} actions @param {boolean} alone */
  #tools(card, actions, alone) {
    const { view, state } = card;
    const { busy } = this.state;
    const pausable = view.state === "running" || view.state === "paused";
    if (actions === null || (card.ended && !card.endedBadly)) return null;
    return html`<div class="card-tools">
      ${card.endedBadly ? html`<button disabled=${busy} onClick=${() => this.#do(() => actions.retry(view.stream))} data-testid="retry">${icon("reconnecting")} Run again</button>` : null}
      ${!card.ended && pausable && state !== "cancelling" ? html`<button class="quiet" disabled=${busy} onClick=${() => this.#do(() => actions.pause(view.stream, view.state !== "paused"))} data-testid="pause">${icon(view.state === "paused" ? "play" : "paused")} ${view.state === "paused" ? "Go on" : "Pause"}</button>` : null}
      ${card.ended || alone ? null : html`<span class="grow"></span><button class="danger" onClick=${() => actions.cancel(view.stream)} disabled=${state === "cancelling"} data-testid="card-cancel">${state === "cancelling" ? "Cancel requested" : "Cancel"}</button>`}
    </div>`;
  }

  /** Do it once, however often it is clicked. @param {() => Promise<void>} action */
  async #do(action) {
    if (this.#busy) return;
    this.#busy = true;
    this.setState({ busy: true });
    try {
      await action();
    } finally {
      this.#busy = false;
      this.setState({ busy: false });
    }
  }
}

/** How far it is: measured only when there is a total. @param {{progress: Progress | null, moving: boolean}} props */
function Bar({ progress, moving }) {
  const total = progress?.total ?? null;
  if (progress === null || total === null) return html`<div class="bar-track" role="progressbar" aria-label="progress" aria-valuetext="under way, its length is not known" data-testid="progress"><div class="bar-fill unknown"></div></div>`;
  const done = Math.min(progress.done, total);
  return html`<div class="bar-track" role="progressbar" aria-label="progress" aria-valuemin="0" aria-valuemax=${total} aria-valuenow=${done} aria-valuetext=${progressWords(progress)} data-testid="progress"><div class="bar-fill ${moving ? "moving" : ""}" style=${{ width: `${(100 * done) / total}%` }}></div></div>`;
}

/** @param {Progress} progress */
function progressWords({ done, total }) {
  if (total === null) return number(done);
  return `${number(done)} of ${number(total)} · ${Math.floor((100 * Math.min(done, total)) / total)} %`;
}

/** @param {{card: RunCard}} props */
function BadEnd({ card }) {
  const failure = card.failure ?? card.view.reason ?? {};
  const words = failureWords(failure);
  const stderr = typeof failure.stderr === "string" ? failure.stderr : "";
  return html`<div class="bad-end" data-testid="bad-end">
    ${words ? html`<p>${words}</p>` : null}
    ${card.mayHaveRun ? html`<p data-testid="may-have-run"><b>It may have run.</b> What it does outside may be done already; running it again may do it twice.</p>` : null}
    ${stderr ? html`<${Fold} title="Its last words on stderr" value=${stderr} textOf=${readable} testid="last-words" />` : null}
  </div>`;
}

/** A question with its form, or with the answer that was given. @param {{question: Question, over: boolean, onAnswer: ((response: unknown) => Promise<void>) | null}} props */
function Asked({ question, over, onAnswer }) {
  const { answer, message, schema } = question;
  if (answer !== null) {
    return html`<div class="asked" data-testid="answered">
      <p class="asked-words">${message}</p>
      <p><b class="asked-answer">${readable(answer.response).slice(0, OPEN_CHARACTERS)}</b>${answer.by ? html` <span class="optional">answered by ${distinct(answer.by.slice(0, 100))}</span>` : null}</p>
    </div>`;
  }
  return html`<div class="asked ${over ? "" : "open"}" data-testid="question">
    <p class="asked-words">${message || "It asks for something."}</p>
    ${over ? html`<p class="optional">The run has ended without an answer.</p>` : onAnswer === null ? html`<p class="optional">Its owner has not answered yet.</p>` : html`<${SchemaForm} schema=${schema} label="Answer" action="Answer" strict=${true} onSend=${onAnswer} />`}
  </div>`;
}

/** @param {{card: RunCard}} props */
function Log({ card }) {
  return html`<details class="fold" data-testid="lines">
    <summary>Log · ${counted(card.lines.length + card.linesBefore, "line")}</summary>
    <div class="lines" tabindex="0" role="region" aria-label="Log">
      <div>
        ${card.linesBefore > 0 ? html`<p class="hint">the newest ${number(card.lines.length)}; the messages hold the rest</p>` : null}
        ${card.lines.map(({ kind, text }, index) => html`<p key=${card.linesBefore + index} class="line line-${kind}">${kind === "info" ? null : html`<b>${kind}</b> `}${text}</p>`)}
      </div>
    </div>
  </details>`;
}

/** @param {Record<string, unknown>} result */
function shortResult(result) {
  const { value } = result;
  if (typeof value === "string") return value.length <= OPEN_CHARACTERS;
  const { content } = result;
  if (Array.isArray(content)) return content.length <= 3 && content.every((block) => typeof block?.text === "string" && block.text.length <= OPEN_CHARACTERS);
  return typeof value !== "object";
}

/** The last lines of a text. @param {string} text */
function tail(text) {
  return text.trimEnd().split("\n").slice(-3).join("\n");
}
