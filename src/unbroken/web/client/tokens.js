/**
 * Owns what a client says about tokens: a link that reads one stream for a while, those there are, their end (PROTOCOL.md 2).
 *
 * Made by unbroken.js as `client.tokens`. It keeps no secret: that is in the answer to `share` and in no other.
 */

/** @import { Api } from "./api.js" */
/** @import { MadeToken, TokenView } from "./types.js" */

export class Tokens {
  #api;

  /** @param {Api} api */
  constructor(api) {
    this.#api = api;
  }

  /**
   * A link with which anybody may read `stream` until it ends; with `epoch` not one that has its name later. Rejects with
   * `forbidden` where the client may not hand that on.
   *
   * @param {string} stream
   * @param {{epoch?: number, expiresIn?: number, label?: string}} [options] `expiresIn` in seconds; the link never outlives the client's own credential
   * @returns {Promise<MadeToken>}
   */
  share(stream, { epoch, expiresIn = 86_400, label = "" } = {}) {
    return this.#api.json("POST", "v1/tokens", { body: { kind: "link", label, grants: [{ name: stream, verbs: ["read"], epoch }], expires_in: expiresIn } });
  }

  /** The tokens for what is the owner's, newest first; who is not the owner sees those handed on with the own one. @param {{limit?: number, page?: string}} [query] @returns {Promise<{tokens: TokenView[], next: string | null}>} */
  list(query = {}) {
    return this.#api.json("GET", "v1/tokens", { query });
  }

  /** End the token with this id and all that were handed on with it; rejects with `not_found` when there is none. @param {string} id @returns {Promise<null>} */
  revoke(id) {
    return this.#api.json("DELETE", `v1/tokens/${encodeURIComponent(id)}`);
  }
}
