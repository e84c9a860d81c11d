/**
 * Owns the one binding of the template syntax to virtual nodes.
 *
 * Imported by every view. It never makes HTML from a string: text stays text.
 */

import htm from "../vendor/htm.mjs";
import { h } from "../vendor/preact.mjs";

export { Component, h, render } from "../vendor/preact.mjs";

/** @typedef {import("../vendor/preact.mjs").VNode<any>} Node */

/** @type {(strings: TemplateStringsArray, ...values: any[]) => any} */
export const html = htm.bind(h);
