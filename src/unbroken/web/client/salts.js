/**
 * Owns the salts of a stream's messages (PROTOCOL.md 5.2): the leaves of a tree of seeds, four below each.
 *
 * Called by chain.js. It keeps the way to the latest salt, so that the next ones cost little; it never asks for anything.
 */

const SALT_BYTES = 16;
const DEPTH = 16;
const NODE_BYTES = 5 + SALT_BYTES;

export class Salts {
  /** @type {{first: number, last: number, depth: number, seed: Uint8Array<ArrayBuffer>}[]} */
  #nodes = [];
  /** @type {Map<string, Uint8Array<ArrayBuffer>>} by depth and place: the four seeds below a seed on the way to the latest salt */
  #blocks = new Map();

  /** @param {string} encoded base64, as `subscribed` has it; empty for a stream without salts */
  constructor(encoded = "") {
    const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    for (let at = 0; at + NODE_BYTES <= bytes.length; at += NODE_BYTES) {
      const first = view.getUint32(at);
      const depth = view.getUint8(at + 4);
      const size = 4 ** (DEPTH - depth);
      this.#nodes.push({ first, last: (Math.floor(first / size) + 1) * size - 1, depth, seed: bytes.slice(at + 5, at + NODE_BYTES) });
    }
  }

  /**
   * The salt of message `seq`; empty where there is none.
   *
   * @param {number} seq
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   */
  async salt(seq) {
    const node = this.#nodes.findLast(({ first, last }) => first <= seq && seq <= last);
    if (node === undefined) return new Uint8Array(0);
    let seed = node.seed;
    /** @type {Map<string, Uint8Array<ArrayBuffer>>} */
    const way = new Map();
    for (let depth = node.depth; depth < DEPTH; depth += 1) {
      const below = 4 ** (DEPTH - depth - 1);
      const key = `${node.first} ${depth} ${Math.floor(seq / (4 * below))}`;
      const block = this.#blocks.get(key) ?? new Uint8Array(await crypto.subtle.digest("SHA-512", seed));
      way.set(key, block);
      const which = (Math.floor(seq / below) % 4) * SALT_BYTES;
      seed = block.slice(which, which + SALT_BYTES);
    }
    this.#blocks = way;
    return seed;
  }
}
