/**
 * Owns how numbers, durations, sizes, times and states are written on the page.
 *
 * Called by every view. It never reads the clock: the present is handed in.
 */

const NUMBER = new Intl.NumberFormat("en");
const CLOCK = /** @type {const} */ ({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
/** It keeps the time zone that it was made in. */
let clockFormat = new Intl.DateTimeFormat(undefined, CLOCK);

/** @type {Record<string, string>} */
const STATE_WORDS = {
  open: "open",
  running: "running",
  paused: "paused",
  completed: "completed",
  failed: "failed",
  cancelled: "cancelled",
  timed_out: "timed out",
  interrupted: "interrupted",
};

/** @param {number} value */
export function number(value) {
  return NUMBER.format(value);
}

/** @param {number} count @param {string} one @param {string} [many] */
export function counted(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

/** @param {string} state */
export function stateWord(state) {
  return STATE_WORDS[state] ?? state;
}

/** @param {number} milliseconds */
export function duration(milliseconds) {
  const seconds = Math.max(milliseconds, 0) / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/** Time that goes on, in whole seconds while it does. @param {number} milliseconds @param {boolean} over */
export function elapsed(milliseconds, over) {
  if (over) return duration(milliseconds);
  return milliseconds < 60_000 ? `${Math.floor(Math.max(milliseconds, 0) / 1000)} s` : duration(milliseconds);
}

/** How long ago, in words short enough for a list. @param {number} then @param {number} now */
export function ago(then, now) {
  const seconds = Math.max(now - then, 0) / 1000;
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} days ago`;
}

/** @param {number} size */
export function bytes(size) {
  if (size < 1000) return `${size} B`;
  if (size < 1e6) return `${(size / 1e3).toFixed(size < 1e4 ? 1 : 0)} KB`;
  if (size < 1e9) return `${(size / 1e6).toFixed(size < 1e7 ? 1 : 0)} MB`;
  return `${(size / 1e9).toFixed(1)} GB`;
}

/** @param {number} time milliseconds since 1970 */
export function clock(time) {
  return `${clockFormat.format(time)}.${String(Math.floor(time % 1000)).padStart(3, "0")}`;
}

/** A day and a time of it, in the reader's own time zone. @param {number} time milliseconds since 1970 */
export function moment(time) {
  return new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" }).format(time);
}

/** Whether the reader is in another time zone than when this was last asked: then times that were written are to be written again. */
export function zoneChanged() {
  const present = new Intl.DateTimeFormat(undefined, CLOCK);
  if (present.resolvedOptions().timeZone === clockFormat.resolvedOptions().timeZone) return false;
  clockFormat = present;
  return true;
}

/** What the stored reason of an end says, in a few words. @param {Record<string, unknown> | undefined} reason */
export function reasonWords(reason) {
  return Object.entries(reason ?? {})
    .filter(([, value]) => value !== null && value !== "")
    .map(([name, value]) => {
      const text = typeof value === "object" ? JSON.stringify(value) : String(value);
      return `${name.replaceAll("_", " ")} ${text.length > 200 ? `${text.slice(0, 200)}…` : text}`;
    })
    .join(" · ");
}
