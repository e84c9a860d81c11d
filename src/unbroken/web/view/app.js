/**
 * Owns the page as a whole: what is open, what the header says, which key does what.
 *
 * Mounted by main.js. It never speaks the protocol: that is the client's part.
 */

import { connect, isTerminal, UnbrokenError } from "../client/unbroken.js";
import { plainText } from "./ansi.js";
import { badgeOf } from "./badge.js";
import { ConfirmCancel, Help, TokenForm } from "./dialogs.js";
import { counted, stateWord, zoneChanged } from "./format.js";
import { Component, html } from "./html.js";
import { icon } from "./icons.js";
import { kept } from "./kept.js";
import { onKey } from "./keys.js";
import { StreamList } from "./list.js";
import { StreamModel } from "./model.js";
import { NewRun } from "./picker.js";
import { formatNew, formatRoute, formatSession, isLink, parseNew, parseRoute, parseSession, takeToken, VIEWS } from "./route.js";
import { save } from "./save.js";
import { SessionModel } from "./session.js";
import { SessionPanel } from "./sessions.js";
import { Share } from "./share.js";
import { StreamPanel } from "./stream.js";
import { distinct } from "./unseen.js";

/** @import { Status } from "../client/unbroken.js" */
/** @import { StreamView } from "../client/types.js" */
/** @import { Log } from "./log.js" */
/** @import { NewRoute } from "./route.js" */
/** @import { RunActions } from "./runcard.js" */

const LIST_MILLISECONDS = 3000;
const CLOCK_MILLISECONDS = 1000;
const PAGE_STREAMS = 200;
const TOKEN_KEY = "unbroken.token";

/**
 * @typedef {object} State
 * @property {Status} status
 * @property {StreamView[] | null} streams
 * @property {string | null} next
 * @property {string} filter
 * @property {boolean} online
 * @property {string} degraded
 * @property {boolean} drawer
 * @property {Dialog} dialog
 * @property {"unknown" | "fine" | "wanted" | "wrong"} access
 * @property {string} said
 * @property {string} error
 * @property {number} now
 */

/** @typedef {"help" | {cancel: string} | {share: StreamView} | null} Dialog the keys, the question before the cancel of a stream, or its links */

/** The token of a share link: it leaves the address and the history of the tab at once, and is kept for this tab as one that was entered. */
function linkToken() {
  const taken = takeToken(location.hash);
  if (taken === null) return null;
  history.replaceState(history.state, "", taken.hash);
  if (taken.token === null) return null;
  kept.setItem(TOKEN_KEY, taken.token);
  return taken.token;
}

/** @extends {Component<{}, State>} */
export class App extends Component {
  /** @type {string | null} */
  #token = linkToken() ?? kept.getItem(TOKEN_KEY);
  #client = connect(".", { token: () => this.#token });
  /** @type {StreamModel | null} */
  #model = null;
  /** @type {SessionModel | null} */
  #session = null;
  /** @type {NewRoute | null} */
  #new = null;
  /** @type {Log | null} */
  #log = null;
  /** @type {RunActions} */
  #actions = {
    cancel: (stream) => this.open({ cancel: stream }),
    retry: (stream) => this.#try("The run could not be started again", async () => this.#started(await this.#client.runs.retry(stream), this.#session !== null)),
    pause: (stream, paused) => this.#try(`The run could not be ${paused ? "paused" : "resumed"}`, async () => this.#know(await this.#client.runs[paused ? "pause" : "resume"](stream))),
    answer: async (stream, id, response) => {
      await this.#client.runs.answer(stream, id, response);
      this.#say("answered");
    },
    download: (stream, name) => this.#try("The file could not be saved", async () => {
      this.#say("fetching the file");
      save(await this.#client.runs.file(stream), name);
      this.#say("saved");
    }),
  };
  /** @type {(() => void)[]} */
  #undo = [];
  #listing = false;
  #pages = 1;

  /** @param {{}} props */
  constructor(props) {
    super(props);
    /** @type {State} */
    this.state = {
      status: this.#client.status,
      streams: null,
      next: null,
      filter: "",
      online: navigator.onLine,
      degraded: "",
      drawer: false,
      dialog: null,
      access: "unknown",
      said: "",
      error: "",
      now: Date.now(),
    };
  }

  componentDidMount() {
    this.#listen(window, "hashchange", () => this.#route());
    this.#listen(window, "pagehide", () => this.#model?.save());
    this.#listen(window, "pageshow", (event) => {
      if (/** @type {PageTransitionEvent} */ (event).persisted) this.#client.reconnect();
    });
    for (const name of ["online", "offline"]) this.#listen(window, name, () => this.setState({ online: navigator.onLine }));
    this.#listen(document, "freeze", () => this.#model?.frozen());
    this.#listen(document, "resume", () => this.#model?.thawed()); // the client listens too, and first
    this.#listen(document, "visibilitychange", () => {
      if (document.visibilityState === "hidden") this.#model?.save();
      else void this.#list();
    });
    this.#listen(document, "keydown", (event) => onKey(/** @type {KeyboardEvent} */ (event), this));
    this.#undo.push(
      this.#client.on("status", (status) => this.#status(status)),
      this.#client.on("notice", (notice) => this.setState({ degraded: notice.code === "degraded" ? notice.message || "the store is away" : "" })),
    );
    const clock = setInterval(() => document.visibilityState === "hidden" || this.#tick(), CLOCK_MILLISECONDS);
    const list = setInterval(() => document.visibilityState === "hidden" || void this.#list(), LIST_MILLISECONDS);
    this.#undo.push(() => clearInterval(clock), () => clearInterval(list));
    this.#route();
    void this.#list();
  }

  componentWillUnmount() {
    for (const undo of this.#undo) undo();
    this.#model?.close();
    this.#session?.close();
    this.#client.close();
  }

  /** Whether the reader came by a share link, which does nothing but read. */
  get guest() {
    return isLink(this.#token);
  }

  /** The view of the open stream. */
  get view() {
    return parseRoute(location.hash).view ?? (this.#model?.view?.content_type.startsWith("text/markdown") ? "markdown" : "text");
  }

  /** @param {string} view */
  show(view) {
    if (this.#model !== null) location.hash = formatRoute(this.#model.name, view);
  }

  nextView() {
    this.show(VIEWS[(VIEWS.indexOf(this.view) + 1) % VIEWS.length] ?? "text");
  }

  follow() {
    this.#log?.follow();
  }

  /** @param {1 | -1} step */
  move(step) {
    if (this.#session !== null) moveToCard(step);
    this.#log?.move(step);
  }

  /** @param {1 | -1} step */
  moveToRule(step) {
    this.#log?.moveToRule(step);
  }

  pause() {
    this.#model?.pause(!this.#model.paused);
  }

  async copy() {
    const text = plainText(this.#log?.text() ?? "");
    try {
      await navigator.clipboard.writeText(text);
      this.#say(`${counted(text.length, "character")} copied`);
    } catch {
      this.#say("the browser does not allow copying here");
    }
  }

  /** @param {Dialog} dialog */
  open(dialog) {
    this.setState({ dialog });
  }

  closeDrawer() {
    this.setState({ drawer: false });
  }

  render() {
    const { status, streams, next, filter, online, degraded, drawer, dialog, access, said, error, now } = this.state;
    const model = this.#model;
    // A socket may seem alive for a while after the platform has said that it is offline.
    const seen = online || status.phase === "refused" ? status : { ...status, phase: /** @type {const} */ ("offline") };
    const badge = badgeOf(seen, model === null ? null : { phase: model.phase, left: model.behind }, now);
    const locked = access === "wanted" || access === "wrong";
    return html`
      <div class="page ${model === null && this.#session === null && this.#new === null ? "no-stream" : ""} ${drawer ? "drawer-open" : ""}">
        <a class="skip" href="#main" onClick=${(/** @type {Event} */ event) => this.#skip(event)}>to the messages</a>
        <header class="bar">
          <button class="quiet menu" onClick=${() => this.setState({ drawer: !drawer })} aria-expanded=${drawer} aria-label="Streams" data-testid="menu">${icon("menu")}</button>
          <a class="brand" href="#/" aria-label="unbroken"><span class="brand-mark" aria-hidden="true"></span><span class="brand-word">unbroken</span></a>
          <span class="grow"></span>
          <span class="badge badge-${badge.state}" data-testid="badge" data-state=${badge.state} title=${status.code ?? ""}>
            ${icon(badge.state)}<span class="badge-word">${badge.word}</span>${badge.detail ? html`<span class="badge-detail">${badge.detail}</span>` : null}
          </span>
          ${badge.canRetry ? html`<button class="quiet" onClick=${() => this.#client.reconnect()} data-testid="now">now</button>` : null}
          <button class="quiet help" onClick=${() => this.open("help")} aria-label="Keys" title="Keys (?)">?</button>
        </header>
        <div class="banners">
          ${online ? null : html`<p class="banner" role="status" data-testid="offline">You are offline. What was received stays readable, and the rest comes when the network is back.</p>`}
          ${degraded ? html`<p class="banner warn" role="status" data-testid="degraded">The server waits for its store: ${degraded}. Nothing is lost; new messages come when it is back.</p>` : null}
          ${error ? html`<p class="banner warn" role="alert">${error} <button class="quiet" onClick=${() => this.setState({ error: "" })} aria-label="Dismiss">${icon("close")}</button></p>` : null}
        </div>
        ${locked
          ? html`<main id="main" tabindex="-1"><${TokenForm} wrong=${access === "wrong"} link=${this.guest} onToken=${(/** @type {string} */ token) => this.#enter(token)} /></main>`
          : html`<div class="columns">
              <${StreamList} streams=${this.#newest(streams)} more=${next !== null} open=${model?.name ?? null} session=${this.#session?.name ?? null} guest=${this.guest} filter=${filter} now=${now} onFilter=${(/** @type {string} */ text) => this.setState({ filter: text })} onMore=${() => this.#more()} onOpen=${() => this.closeDrawer()} />
              <div class="shade" onClick=${() => this.closeDrawer()}></div>
              <main id="main" tabindex="-1">${this.#main()}</main>
            </div>`}
        ${this.#dialog()}
        <div class="hidden" role="status" aria-live="polite" data-testid="said">${said}</div>
      </div>`;
  }

  #dialog() {
    const { dialog, now } = this.state;
    const onClose = () => this.open(null);
    if (dialog === null) return null;
    if (dialog === "help") return html`<${Help} guest=${this.guest} onClose=${onClose} />`;
    if ("share" in dialog) return html`<${Share} client=${this.#client} view=${dialog.share} now=${now} onClose=${onClose} />`;
    return html`<${ConfirmCancel} stream=${dialog.cancel} onCancel=${() => void this.#cancel(dialog.cancel)} onClose=${onClose} />`;
  }

  /** The list, with what is known better of the open stream. @param {StreamView[] | null} streams */
  #newest(streams) {
    const known = this.#model?.view;
    if (!known) return streams;
    return streams?.map((view) => (view.stream === known.stream && view.epoch === known.epoch && !newer(view, known) ? known : view)) ?? null;
  }

  #main() {
    const { now } = this.state;
    if (this.#session !== null) return html`<${SessionPanel} key=${this.#session.name} model=${this.#session} now=${now} actions=${this.guest ? null : this.#actions} />`;
    if (this.#new !== null) return html`<${NewRun} client=${this.#client} chosen=${this.#new} onStarted=${(/** @type {StreamView} */ view) => this.#started(view, Boolean(view.session))} />`;
    return this.#model === null ? html`<${Welcome} guest=${this.guest} />` : this.#panel(this.#model);
  }

  /** @param {StreamModel} model */
  #panel(model) {
    return html`<${StreamPanel}
      key=${model.name}
      model=${model}
      view=${this.view}
      now=${this.state.now}
      actions=${this.guest ? null : this.#actions}
      onView=${(/** @type {string} */ view) => this.show(view)}
      onCancel=${() => this.open({ cancel: model.name })}
      onShare=${(/** @type {StreamView} */ view) => this.open({ share: view })}
      onCopy=${() => void this.copy()}
      onFollow=${() => this.follow()}
      ready=${(/** @type {Log | null} */ log) => (this.#log = log)}
    />`;
  }

  /** @param {EventTarget} target @param {string} name @param {(event: Event) => void} listener */
  #listen(target, name, listener) {
    target.addEventListener(name, listener);
    this.#undo.push(() => target.removeEventListener(name, listener));
  }

  #route() {
    const token = linkToken();
    if (token !== null && token !== this.#token) return this.#enter(token);
    const { stream } = parseRoute(location.hash);
    const session = parseSession(location.hash);
    this.#new = this.guest ? null : parseNew(location.hash);
    const title = stream ?? session ?? (this.#new === null ? null : "New run");
    document.title = title === null ? "Unbroken" : `${distinct(title)} · Unbroken`;
    if (stream !== (this.#model?.name ?? null)) {
      this.#model?.close();
      this.#model = stream === null ? null : new StreamModel(this.#client, stream, { changed: () => this.#changed(), storage: kept });
      void this.#model?.open();
    }
    if (session !== (this.#session?.name ?? null)) {
      this.#session?.close();
      this.#session = session === null ? null : new SessionModel(this.#client, session, { changed: () => this.setState({ now: Date.now() }), said: (words) => this.#say(words) });
      void this.#session?.refresh();
    }
    this.setState({ drawer: false, now: Date.now() });
  }

  #tick() {
    if (zoneChanged()) this.#log?.rewriteTimes();
    this.setState({ now: Date.now() });
  }

  #changed() {
    const { view } = this.#model ?? { view: null };
    if (this.#model?.phase === "ended" && view !== null) this.#say(`${distinct(view.stream)} ${stateWord(view.state)}, ${counted(view.head, "message")}`);
    if (this.#model?.error?.code === "unauthorized") this.#refused();
    this.setState({ now: Date.now() });
  }

  /** @param {Status} status */
  #status(status) {
    if (status.phase === "live") {
      void this.#session?.connected();
      if (this.state.status.phase !== "live") void this.#list();
    } else {
      this.#model?.disconnected();
      if (status.phase === "refused" && status.code === "unauthorized") this.#refused();
    }
    if (status.phase !== this.state.status.phase && ["live", "offline", "refused"].includes(status.phase)) this.#say(`connection ${status.phase}`);
    this.setState({ status, now: Date.now() });
  }

  async #list() {
    void this.#session?.refresh();
    if (this.#listing) return;
    this.#listing = true;
    try {
      /** @type {StreamView[]} */
      const streams = [];
      let next = null;
      for (let page = 0; page < this.#pages; page += 1) {
        const answer = await this.#client.list({ limit: PAGE_STREAMS, page: next ?? undefined });
        streams.push(...answer.streams.filter((/** @type {StreamView} */ view) => view.kind !== "file")); // their runs show them
        next = answer.next ?? null;
        if (next === null) break;
      }
      this.setState({ streams, next, access: "fine" });
    } catch (error) {
      if (error instanceof UnbrokenError && error.status === 401) this.#refused();
    } finally {
      this.#listing = false;
    }
  }

  #more() {
    this.#pages += 1;
    void this.#list();
  }

  #refused() {
    this.setState({ access: this.#token === null ? "wanted" : "wrong", dialog: null });
  }

  /** @param {string} token */
  #enter(token) {
    this.#token = token;
    kept.setItem(TOKEN_KEY, token);
    this.setState({ access: "unknown", dialog: null });
    this.#client.reconnect({ anew: true }); // what the former token has opened, or is being refused, is not this one's
    this.#model?.close();
    this.#session?.close();
    this.#model = this.#session = null;
    this.#route();
    void this.#list();
  }

  /** @param {string} stream */
  async #cancel(stream) {
    this.open(null);
    await this.#try("The run could not be cancelled", async () => {
      this.#know((await this.#client.cancel(stream)).view);
      this.#say("cancel requested");
    });
  }

  /** Show the run that was started, in its session or by itself. @param {StreamView} view @param {boolean} inSession */
  #started(view, inSession) {
    this.#say("started");
    location.hash = inSession && view.session ? formatSession(view.session) : formatRoute(view.stream);
    void this.#list();
  }

  /** Take what an answer has told of a stream; an end is told by the stream itself. @param {StreamView} view */
  #know(view) {
    if (isTerminal(view.state)) return;
    if (this.#model?.name === view.stream) this.#model.know(view);
    this.#session?.know(view);
    this.setState({ now: Date.now() });
  }

  /** @param {string} words @param {() => Promise<void>} action */
  async #try(words, action) {
    try {
      await action();
    } catch (error) {
      this.setState({ error: `${words}: ${error instanceof Error ? error.message : String(error)}` });
    }
  }

  /** @param {string} said */
  #say(said) {
    if (said !== this.state.said) this.setState({ said });
  }

  /** @param {Event} event */
  #skip(event) {
    event.preventDefault();
    /** @type {HTMLElement | null} */ (document.querySelector(".surface, .cards-place, .new input"))?.focus();
  }
}

/** Whether `view` says more of its stream than `known`. Heads tell it where they can: a server's clock may be set back. @param {StreamView} view @param {StreamView} known */
function newer(view, known) {
  if (isTerminal(known.state)) return false;
  return view.head === known.head ? view.updated > known.updated : view.head > known.head;
}

/** Go to the next or previous card of a session. @param {1 | -1} step */
function moveToCard(step) {
  const links = /** @type {HTMLElement[]} */ ([...document.querySelectorAll(".cards .card h2 a")]);
  const present = links.findIndex((link) => link.closest(".card")?.contains(document.activeElement));
  const index = present < 0 ? (step > 0 ? 0 : links.length - 1) : present + step;
  links[index]?.focus();
  links[index]?.closest(".card")?.scrollIntoView({ block: "nearest" });
}

/** @param {{guest: boolean}} props */
function Welcome({ guest }) {
  return html`<section class="notice" data-testid="welcome">
    <h1>Choose a stream</h1>
    <p>It is shown as it is written, and goes on where it was after a reload, a lost network or a restart.</p>
    ${guest ? null : html`<p class="start"><a class="button solid" href=${formatNew()}>${icon("plus")} New run</a></p>`}
    <p class="hint"><kbd>/</kbd> filters the list, <kbd>?</kbd> shows all keys.</p>
  </section>`;
}
