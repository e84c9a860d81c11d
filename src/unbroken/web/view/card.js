/**
 * Owns what a card knows of a run: its messages, folded as they come into the newest of each thing.
 *
 * Made by model.js for the open stream and by session.js for each run of a session. It is pure and bounded: nothing in it
 * grows with the length of the run.
 */

import { isTerminal } from "../client/cursor.js";
import { plainText } from "./ansi.js";
import { cut, numberOf, objectOf } from "./notes.js";

/** @import { Client } from "../client/unbroken.js" */
/** @import { Message, RunSummary, StreamView } from "../client/types.js" */

export const LINES_MAX = 40;
export const LINE_CHARACTERS_MAX = 1000;
export const QUESTIONS_MAX = 20;
export const FILES_MAX = 100;
const OUTPUT_CHARACTERS_MAX = 600;

/**
 * The summary of a run of which only messages behind `upto` are read; null where those are all, and where it cannot be had.
 *
 * @param {Client} client
 * @param {StreamView} view
 * @param {number} upto
 * @returns {Promise<RunSummary | null>}
 */
export async function summaryUpTo(client, view, upto) {
  if (!view.run || upto < view.first) return null;
  try {
    return await client.runs.summary(view.stream);
  } catch {
    return null; // the newest messages tell the most, and a card without the rest is better than none
  }
}

/**
 * @typedef {object} Question
 * @property {string} id
 * @property {string} message
 * @property {any} schema of the answer; null when any text will do
 * @property {{response: unknown, by: string} | null} answer
 *
 * @typedef {{name: string, size: number, stream: string}} StoredFile
 * @typedef {{done: number, total: number | null, message: string}} Progress
 * @typedef {{kind: string, text: string}} Line
 * @typedef {"queued" | "running" | "asks" | "paused" | "cancelling" | "completed" | "failed" | "timed_out" | "cancelled" | "interrupted"} CardState
 */

export class RunCard {
  /** Grows with every change, so that a drawing knows whether it is up to date. */
  version = 0;
  attempt = 0;
  /** @type {Progress | null} */
  progress = null;
  /** @type {Line[]} the newest of log and stderr */
  lines = [];
  /** How many lines there were before those. */
  linesBefore = 0;
  /** The end of the text that the run has yielded. */
  output = "";
  /** @type {Map<string, Question>} */
  questions = new Map();
  /** @type {StoredFile[]} the newest files that it has stored */
  files = [];
  /** @type {Record<string, unknown> | null} the body of the message `result` */
  result = null;
  /** @type {Record<string, unknown> | null} the body of a message that says how it ended badly */
  failure = null;

  /** @param {StreamView} view */
  constructor(view) {
    this.view = view;
  }

  /** @param {StreamView} view what is known newer of the stream */
  update(view) {
    if (view === this.view) return;
    if (view.epoch !== this.view.epoch) this.#forget();
    this.view = view;
    this.version += 1;
  }

  /**
   * Take from a summary what was said up to message `upto`, when the messages behind it are read themselves.
   *
   * @param {RunSummary | null} summary
   * @param {number} upto
   */
  begin(summary, upto) {
    if (summary === null || summary.stream.epoch !== this.view.epoch) return;
    for (const message of summary.messages) if (message.seq <= upto && !message.cut) this.take(message);
  }

  /** Fold one message in; they come in order. @param {Message} message */
  take(message) {
    this.version += 1;
    const kind = message.kind ?? "message";
    const body = objectOf(message.json);
    switch (kind) {
      case "started":
        this.attempt = numberOf(body.attempt) || this.attempt + 1;
        this.failure = null;
        break;
      case "progress":
        this.progress = progressOf(body);
        break;
      case "log":
        this.#line(levelOf(body.level), body.text ?? body.data);
        break;
      case "stderr":
        this.#line("stderr", message.text ?? body.text);
        break;
      case "file":
        this.#file(body);
        break;
      case "input_required":
        this.#ask(body);
        break;
      case "input":
        this.#answered(body);
        break;
      case "result":
        this.result = message.json === undefined ? { value: message.text } : body;
        break;
      case "failed":
      case "timed_out":
      case "cancelled":
      case "interrupted":
        this.failure = body;
        break;
      default:
        if (message.text !== undefined) this.output = (this.output + plainText(message.text.slice(-OUTPUT_CHARACTERS_MAX))).slice(-OUTPUT_CHARACTERS_MAX);
    }
  }

  /** The questions that wait for an answer; none when the run has ended. */
  get waiting() {
    return isTerminal(this.view.state) ? [] : [...this.questions.values()].filter((question) => question.answer === null);
  }

  /** @returns {CardState} */
  get state() {
    const { state, cancel_requested } = this.view;
    if (isTerminal(state)) return /** @type {CardState} */ (state);
    if (cancel_requested) return "cancelling";
    if (state === "paused") return "paused";
    if (this.waiting.length > 0) return "asks";
    return state === "open" && this.attempt === 0 ? "queued" : "running";
  }

  get ended() {
    return isTerminal(this.view.state);
  }

  /** Whether it ended in a way that another try may mend. */
  get endedBadly() {
    return this.ended && this.view.state !== "completed";
  }

  /** Whether what it does outside may have been done although it did not end well. */
  get mayHaveRun() {
    return this.endedBadly && (this.failure?.may_have_run === true || objectOf(this.view.reason).may_have_run === true);
  }

  /** @param {number} now @returns {number} milliseconds from its start to its end, or to now */
  elapsed(now) {
    return Math.max((this.view.ended ?? now) - this.view.created, 0);
  }

  #forget() {
    this.attempt = this.linesBefore = 0;
    this.progress = this.result = this.failure = null;
    this.lines = [];
    this.files = [];
    this.output = "";
    this.questions.clear();
  }

  /** @param {string} kind @param {unknown} text */
  #line(kind, text) {
    const given = typeof text === "string" ? text : (JSON.stringify(text) ?? "");
    for (const part of plainText(given.slice(-LINES_MAX * LINE_CHARACTERS_MAX)).replace(/\n$/, "").split("\n")) {
      this.lines.push({ kind, text: part.length > LINE_CHARACTERS_MAX ? `${part.slice(0, LINE_CHARACTERS_MAX)}…` : part });
    }
    const over = this.lines.length - LINES_MAX;
    if (over <= 0) return;
    this.lines.splice(0, over);
    this.linesBefore += over;
  }

  /** @param {Record<string, unknown>} body */
  #file(body) {
    const { name, stream, bytes } = body;
    if (typeof name !== "string" || typeof stream !== "string" || !stream.startsWith(`${this.view.stream}/files/`)) return;
    this.files = [...this.files.slice(1 - FILES_MAX), { name: cut(name), size: numberOf(bytes) || 0, stream }];
  }

  /** @param {Record<string, unknown>} body */
  #ask(body) {
    if (typeof body.id !== "string" || this.questions.has(body.id)) return;
    const message = typeof body.message === "string" ? plainText(body.message.slice(0, 4 * LINE_CHARACTERS_MAX)) : cut(body.message);
    const schema = typeof body.schema === "object" ? body.schema : null;
    this.questions.set(body.id, { id: body.id, message, schema, answer: null });
    for (const [id, question] of this.questions) {
      if (this.questions.size <= QUESTIONS_MAX) break;
      if (question.answer !== null || id !== body.id) this.questions.delete(id);
    }
  }

  /** @param {Record<string, unknown>} body */
  #answered(body) {
    const question = typeof body.id === "string" ? this.questions.get(body.id) : undefined;
    if (question === undefined || question.answer !== null) return;
    this.questions.set(question.id, { ...question, answer: { response: body.response, by: typeof body.by === "string" ? body.by : "" } });
  }
}

/** @param {Record<string, unknown>} body @returns {Progress | null} */
function progressOf(body) {
  const done = numberOf(body.progress);
  if (!Number.isFinite(done)) return null;
  const total = typeof body.total === "number" && Number.isFinite(body.total) && body.total > 0 ? Math.min(body.total, Number.MAX_SAFE_INTEGER) : null;
  return { done: Math.min(Math.max(done, 0), Number.MAX_SAFE_INTEGER), total, message: cut(body.message) };
}

/** @param {unknown} level */
function levelOf(level) {
  const word = typeof level === "string" ? level : "";
  if (["error", "critical", "alert", "emergency"].includes(word)) return "error";
  return word === "warning" || word === "debug" ? word : "info";
}
