/**
 * Owns how the messages that tell of a run are said in one short line, beside the card that shows them at length.
 *
 * Called by model.js for each message of a run. It never makes nodes, and what it gives is bounded.
 */

import { plainText } from "./ansi.js";
import { reasonWords } from "./format.js";
import { distinct } from "./unseen.js";

/** @import { Message } from "../client/types.js" */

export const NOTE_CHARACTERS_MAX = 240;

/** Kinds that the flowing text leaves out: the card shows the newest of them. */
const SILENT = new Set(["accepted", "progress", "checkpoint", "sent"]);

/**
 * The line for a message of a run: null for what the run itself yields, empty for what only the list shows.
 *
 * @param {Message} message
 * @returns {string | null}
 */
export function noteOf(message) {
  const kind = message.kind ?? "message";
  if (message.json === undefined) return null;
  const body = objectOf(message.json);
  if (SILENT.has(kind)) return "";
  switch (kind) {
    case "started":
      return numberOf(body.attempt) > 1 ? `started again, attempt ${numberOf(body.attempt)}` : "started";
    case "task":
      return line("goes on at the server as a task", body.taskId);
    case "log":
      return line(cut(body.level ?? "log"), body.text ?? body.data);
    case "stderr":
      return line("stderr", body.text);
    case "file":
      return line("file", distinct(cut(body.name)));
    case "retry":
      return line("tries again", reasonWords(body));
    case "input_required":
      return line("asks", body.message);
    case "input":
      return line("answered", valueLine(body.response));
    case "result":
      return line("result", "value" in body ? valueLine(body.value) : contentLine(body));
    case "failed":
    case "timed_out":
    case "cancelled":
    case "interrupted":
      return line(kind.replace("_", " "), failureWords(body));
    default:
      return null;
  }
}

/** What a run was given, in a few words that tell it from others. @param {Record<string, unknown>} given */
export function argumentWords(given) {
  return cut(
    Object.entries(given)
      .slice(0, 8)
      .map(([name, value]) => `${name} ${valueLine(value).slice(0, 60)}`)
      .join(" · "),
  );
}

/** How a run ended badly, without what the card shows by itself. @param {Record<string, unknown>} body */
export function failureWords(body) {
  return reasonWords({ ...body, stderr: null, may_have_run: null });
}

/** A JSON value as an object, whatever it is. @param {unknown} value @returns {Record<string, unknown>} */
export function objectOf(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? /** @type {Record<string, unknown>} */ (value) : {};
}

/** The number that a JSON value is, or says; an object says none, whatever its `toString` and `valueOf` are. @param {unknown} value */
export function numberOf(value) {
  return typeof value === "object" ? Number.NaN : Number(value);
}

/** @param {unknown} value */
export function valueLine(value) {
  return cut(typeof value === "string" ? value : (JSON.stringify(value) ?? ""));
}

/** Any text in at most `NOTE_CHARACTERS_MAX` characters, on one line, without what only a terminal understands. @param {unknown} text */
export function cut(text) {
  const given = typeof text === "string" ? text : text === undefined || text === null ? "" : (JSON.stringify(text) ?? "");
  const short = plainText(given.slice(0, NOTE_CHARACTERS_MAX * 2)).replaceAll(/\s+/g, " ").trim();
  return short.length > NOTE_CHARACTERS_MAX ? `${short.slice(0, NOTE_CHARACTERS_MAX)}…` : short;
}

/** @param {Record<string, unknown>} body an MCP result */
function contentLine(body) {
  const first = Array.isArray(body.content) ? objectOf(body.content.find((block) => objectOf(block).type === "text")) : {};
  return `${body.isError === true ? "error: " : ""}${valueLine(first.text ?? body.structuredContent ?? "")}`;
}

/** @param {string} word @param {unknown} text */
function line(word, text) {
  const rest = cut(text);
  return rest === "" ? word : `${word}: ${rest}`;
}
