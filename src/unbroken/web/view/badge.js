/**
 * Owns the one word that says how the page is connected: eight states out of the client's and the stream's.
 *
 * Called by the header. It never shows anything itself.
 */

import { number } from "./format.js";

/** @import { Status } from "../client/unbroken.js" */

/**
 * @typedef {"connecting" | "catching-up" | "live" | "reconnecting" | "offline" | "ended" | "refused" | "failed"} BadgeState
 * @typedef {{state: BadgeState, word: string, detail: string, canRetry: boolean}} Badge
 */

/** @type {Record<string, string>} */
const REFUSALS = {
  unauthorized: "the token is missing or wrong",
  forbidden_origin: "this origin is not allowed",
  version: "page and server have no protocol version in common",
  protocol: "the server did not understand this page",
};

/**
 * @param {Status} status
 * @param {{phase: string, left: number} | null} stream the open one
 * @param {number} now milliseconds since 1970
 * @returns {Badge}
 */
export function badgeOf(status, stream, now) {
  switch (status.phase) {
    case "offline":
      return { state: "offline", word: "Offline", detail: "comes back by itself", canRetry: false };
    case "refused":
      return { state: "refused", word: "Refused", detail: REFUSALS[status.code ?? ""] ?? status.code ?? "", canRetry: true };
    case "waiting":
      return { state: "reconnecting", word: "Reconnecting", detail: waitWords(status, now), canRetry: true };
    case "connecting":
      if (status.failures === 0) return { state: "connecting", word: "Connecting", detail: "", canRetry: false };
      return { state: "reconnecting", word: "Reconnecting", detail: `try ${status.failures}`, canRetry: false };
    case "closed":
      return { state: "failed", word: "Closed", detail: "reload the page", canRetry: false };
    default:
      return streamBadge(status, stream);
  }
}

/** @param {Status} status @param {{phase: string, left: number} | null} stream @returns {Badge} */
function streamBadge(status, stream) {
  if (stream?.phase === "failed") return { state: "failed", word: "Failed", detail: "", canRetry: false };
  if (stream?.phase === "ended") return { state: "ended", word: "Ended", detail: "", canRetry: false };
  if (stream !== null && stream.left > 0) return { state: "catching-up", word: "Catching up", detail: `${number(stream.left)} left`, canRetry: false };
  return { state: "live", word: "Live", detail: status.transport === "sse" ? "over SSE" : "", canRetry: false };
}

/** @param {Status} status @param {number} now */
function waitWords(status, now) {
  const seconds = Math.max(((status.retryAt ?? now) - now) / 1000, 0);
  return `in ${Math.ceil(seconds)} s, try ${status.failures}`;
}
