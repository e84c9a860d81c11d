/**
 * Owns the hash chain over the messages of a stream (PROTOCOL.md 5), with the platform's own SHA-256.
 *
 * Called by unbroken.js when `verify` is asked for. It never keeps a head: callers hand it in and get the next one.
 */

import { Salts } from "./salts.js";

const UTF8 = new TextEncoder();
const SEPARATOR = ",\n";
const ERASED = '{"leaf":"';
const NO_SALTS = new Salts();

/** @param {Uint8Array[]} parts @returns {Promise<Uint8Array>} */
async function sha256(...parts) {
  const joined = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", joined));
}

/**
 * The head in front of message 1.
 *
 * @param {string} tenant
 * @param {string} name
 * @param {number} epoch
 * @returns {Promise<Uint8Array>}
 */
export function genesis(tenant, name, epoch) {
  return sha256(Uint8Array.of(2), UTF8.encode(`unbroken.chain.v1\n${tenant}\n${name}\n${epoch}`));
}

/**
 * The head after the encoded `messages`, the first of which has seq `first`.
 *
 * @param {Uint8Array} head
 * @param {number} first
 * @param {string[]} messages
 * @param {Salts} [salts]
 * @returns {Promise<Uint8Array>}
 */
export async function chain(head, first, messages, salts = NO_SALTS) {
  for (const [index, message] of messages.entries()) {
    head = await sha256(Uint8Array.of(1), head, await leaf(first + index, message, salts));
  }
  return head;
}

/** What the chain covers of a message; of one that was erased, what it says. @param {number} seq @param {string} message @param {Salts} salts */
async function leaf(seq, message, salts) {
  if (message.startsWith(ERASED)) return fromHex(/^[0-9a-f]{64}"/.exec(message.slice(ERASED.length))?.[0].slice(0, 64) ?? "");
  const place = new Uint8Array(8);
  new DataView(place.buffer).setBigUint64(0, BigInt(seq));
  return sha256(Uint8Array.of(0), await salts.salt(seq), place, UTF8.encode(message));
}

/**
 * The encoded messages of a `messages` frame, exactly as they were hashed; null when `text` is not laid out as one.
 *
 * An encoded message never holds a raw line feed, so splitting at the separator is exact.
 *
 * @param {string} text the frame as it arrived
 * @returns {string[] | null}
 */
export function encodedMessages(text) {
  const mark = '"messages":[';
  const begin = text.indexOf(mark);
  const end = text.lastIndexOf("]");
  if (begin < 0 || end < begin + mark.length) return null;
  return text.slice(begin + mark.length, end).split(SEPARATOR);
}

/** @param {Uint8Array} bytes @returns {string} */
export function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {string} hex @returns {Uint8Array} */
export function fromHex(hex) {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}
