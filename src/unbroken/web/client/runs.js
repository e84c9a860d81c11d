/**
 * Owns what a client says about runs: what there is to run, starting, trying again, answering, resting (PROTOCOL.md 6).
 *
 * Made by unbroken.js as `client.runs`. It never retries: a start that is given a key may be sent again by its caller.
 */

import { encodeName } from "./api.js";

/** @import { Api } from "./api.js" */
/** @import { RunSummary, Source, StreamView } from "./types.js" */

/**
 * @typedef {object} Start exactly one of `task`, `tool` (with `server`) and `program`
 * @property {string} [task]
 * @property {string} [tool]
 * @property {string} [server]
 * @property {string} [program]
 * @property {Record<string, unknown>} [arguments]
 * @property {string} [name] of the run's stream
 * @property {string} [key] a start with the same key is the same start
 * @property {string} [session]
 * @property {Record<string, unknown>} [metadata]
 * @property {number} [ttl_seconds]
 * @property {number} [idle_seconds]
 * @property {number} [total_seconds]
 */

export class Runs {
  #api;

  /** @param {Api} api */
  constructor(api) {
    this.#api = api;
  }

  /** What there is to run, by source; a source that offers nothing says why in `error`. @returns {Promise<Source[]>} */
  async runnables() {
    return (await this.#api.json("GET", "v1/runnables")).sources;
  }

  /** Start a run, or find the one of this key or name. @param {Start} start @returns {Promise<StreamView>} */
  start(start) {
    return this.#api.json("POST", "v1/runs", { body: start });
  }

  /** The run in short, for whoever was not there from its beginning. @param {string} stream @returns {Promise<RunSummary>} */
  summary(stream) {
    return this.#api.json("GET", `v1/runs/${encodeName(stream)}`);
  }

  /** The same work once more, as a run of its own; asked twice it is there once. @param {string} stream @returns {Promise<StreamView>} */
  retry(stream) {
    return this.#api.json("POST", `v1/retry/${encodeName(stream)}`, { body: {} });
  }

  /** Answer the question `id`; rejects with `already_exists` when somebody has. @param {string} stream @param {string} id @param {unknown} response @returns {Promise<{seq: number, cursor: string}>} */
  answer(stream, id, response) {
    return this.#api.json("POST", `v1/answer/${encodeName(stream)}`, { body: { id, response } });
  }

  /** The bytes of a file that a run has stored: the `stream` that its message of the kind `file` names. @param {string} stream @returns {Promise<Blob>} */
  file(stream) {
    return this.#api.blob(`v1/content/${encodeName(stream)}`);
  }

  /** @param {string} stream @returns {Promise<StreamView>} */
  pause(stream) {
    return this.#api.json("POST", `v1/pause/${encodeName(stream)}`, { body: {} });
  }

  /** @param {string} stream @returns {Promise<StreamView>} */
  resume(stream) {
    return this.#api.json("POST", `v1/resume/${encodeName(stream)}`, { body: {} });
  }
}
