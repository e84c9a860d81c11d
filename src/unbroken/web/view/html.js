/**
 * Owns the one binding of the template syntax to virtual nodes.
 *
 * Imported by every view. It never makes HTML from a string: text stays text, and none of it turns the direction of what
 * stands beside it.
 */

import htm from "../vendor/htm.mjs";
import { h, options } from "../vendor/preact.mjs";
import { visible } from "./direction.js";

export { Component, h, render } from "../vendor/preact.mjs";

/** @typedef {import("../vendor/preact.mjs").VNode<any>} Node */

/** @type {(strings: TemplateStringsArray, ...values: any[]) => any} */
export const html = htm.bind(h);

/** Attributes that a reader sees or hears. What is in a control is the reader's own. */
const SHOWN = ["title", "aria-label", "placeholder"];

const before = options.vnode;
options.vnode = (vnode) => {
  const { type, props } = vnode;
  if (typeof props === "string") vnode.props = visible(props);
  else if (typeof type === "string") for (const name of SHOWN) if (typeof props[name] === "string") props[name] = visible(props[name]);
  before?.(vnode);
};
