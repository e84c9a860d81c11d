/**
 * Owns the end of a credential: when to ask for a newer one, and again while there is time (PROTOCOL.md 4.4).
 *
 * session.js keeps one for its connection. It never reads a clock and never sends.
 */

/** How much of the remaining time passes before a renewal; what is left then is divided again should it fail. */
const PART = 0.75;
/** With less than this left, the end is waited for. */
const SECONDS_MIN = 1;

export class Renewal {
  /** @type {number | null} when the next renewal is due */
  at = null;
  /** The id of the `auth` frame that is on its way. */
  id = -1;
  #endsAt = 0;

  /** There is no connection, or a new one. */
  forget() {
    this.at = null;
    this.id = -1;
  }

  /** @param {number} now @param {number | null | undefined} seconds for how long the credential is good; null: it has no end */
  learn(now, seconds) {
    this.id = -1;
    this.#endsAt = now + (Number(seconds) || 0);
    this.#plan(now);
  }

  /** Whether to renew now; then the next one is planned for the case that this one fails. @param {number} now */
  due(now) {
    if (this.at === null || now < this.at) return false;
    this.#plan(now);
    return true;
  }

  /** @param {number} now */
  #plan(now) {
    const left = this.#endsAt - now;
    this.at = left >= SECONDS_MIN ? now + PART * left : null;
  }
}
