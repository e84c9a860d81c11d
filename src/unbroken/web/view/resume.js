/**
 * Owns the computation of what a loss of connection, or a reload, has cost: nothing here is claimed, all is counted.
 *
 * Called by model.js. It never does I/O but for the one small note in the tab's session storage.
 */

import { counted, duration, number } from "./format.js";

/** @import { Kept } from "./kept.js" */

/** @typedef {{epoch: number, seq: number, at: number}} Seen the last message shown, and when */

export class Resume {
  /**
   * @param {number} from the last message held before
   * @param {number} target the head when the subscription stood again
   * @param {number} away milliseconds
   */
  constructor(from, target, away) {
    this.from = from;
    this.target = Math.max(target, from);
    this.away = away;
    this.received = 0;
    this.dropped = 0;
    /** Retained, but not loaded: on scroll up. */
    this.above = 0;
    this.done = this.from >= this.target;
  }

  /** @param {number} first @param {number} count */
  take(first, count) {
    const low = Math.max(first, this.from + 1);
    const high = Math.min(first + count - 1, this.target);
    if (high >= low) this.received += high - low + 1;
    if (first + count - 1 >= this.target) this.done = true;
  }

  /** Messages that should have come and did not, once all had their turn. */
  get lost() {
    return this.done ? this.target - this.from - this.received - this.above : 0;
  }

  get words() {
    const parts = [`resumed at ${number(this.from)}`, `away ${duration(this.away)}`];
    if (!this.done) return [...parts, `catching up ${number(this.received)} of ${number(this.target - this.from)}`].join(" · ");
    parts.push(`${number(this.received)} caught up`);
    if (this.above > 0) parts.push(`${number(this.above)} more above`);
    parts.push(`${number(this.lost)} lost`);
    if (this.dropped > 0) parts.push(`${counted(this.dropped, "duplicate")} dropped`);
    return parts.join(" · ");
  }
}

/** @param {string} stream */
const keyOf = (stream) => `unbroken.seen:${stream}`;

/** @param {Kept} storage @param {string} stream @returns {Seen | null} */
export function recall(storage, stream) {
  try {
    const seen = JSON.parse(storage.getItem(keyOf(stream)) ?? "null");
    return Number.isSafeInteger(seen?.epoch) && Number.isSafeInteger(seen?.seq) && Number.isFinite(seen?.at) ? seen : null;
  } catch {
    return null;
  }
}

/** @param {Kept} storage @param {string} stream @param {Seen} seen */
export function remember(storage, stream, seen) {
  storage.setItem(keyOf(stream), JSON.stringify(seen));
}
