/**
 * Owns how long to wait before the n-th connection in a row is tried again.
 *
 * Called by session.js. It never reads a clock and never draws a random number itself.
 */

export const BACKOFF_SECONDS_MIN = 0.25;
export const BACKOFF_SECONDS_MAX = 30;
/** A connection that has lasted this long starts the count of failures again. */
export const STABLE_SECONDS = 30;

/**
 * Seconds to wait after `failures` failures before this one: between half of and the whole of a doubling, bounded time.
 *
 * @param {number} failures failures in a row before this one, from 0
 * @param {number} random in [0, 1)
 * @param {number} [retryAfter] seconds that the server asked for: waited for at least
 * @returns {number}
 */
export function backoff(failures, random, retryAfter = 0) {
  const whole = Math.min(BACKOFF_SECONDS_MIN * 2 ** Math.min(failures, 60), BACKOFF_SECONDS_MAX);
  return Math.max(whole / 2 + (random * whole) / 2, retryAfter);
}
