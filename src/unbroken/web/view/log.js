/**
 * Owns the scrolling surface of one stream: where blocks and rules go, when it follows the tail, what is dropped.
 *
 * Made by stream.js for a `StreamModel`, which calls it once for each frame. It never moves after a reader has scrolled away.
 */

import { rewriteTimes, writerFor } from "./blocks.js";

/** @import { Block } from "./blocks.js" */
/** @import { Drawing, Item, Mark, StreamModel } from "./model.js" */

/** Within this distance of the end, in pixels, the surface sticks to the tail. */
const TAIL_PIXELS = 48;
/** Nearer than this to the beginning, the page before is read. */
const OLDER_PIXELS = 400;

/** @implements {Drawing} */
export class Log {
  following = true;
  #lastTop = 0;
  #lastHeight = 0;
  /** The reader has reached for the wheel, the keys or the screen since the surface was last at its end. */
  #reaching = false;
  /** @type {Map<Mark, HTMLElement>} */
  #marks = new Map();
  /** @type {Block[]} */
  #blocks = [];
  /** @type {ReturnType<typeof writerFor>} */
  #writer;
  #observer;
  /** @type {HTMLElement | null} */
  #current = null;

  /**
   * @param {StreamModel} model
   * @param {string} view
   * @param {HTMLElement} scroller
   * @param {HTMLElement} content
   */
  constructor(model, view, scroller, content) {
    this.model = model;
    this.view = view;
    this.scroller = scroller;
    this.content = content;
    this.#writer = writerFor(view, content);
    this.#observer = new ResizeObserver(() => this.#pin());
    this.#observer.observe(content);
    this.#observer.observe(scroller);
    scroller.addEventListener("scroll", this.#scrolled, { passive: true });
    for (const name of ["wheel", "touchmove", "pointerdown", "keydown"]) scroller.addEventListener(name, this.#reach, { passive: true });
    model.attach(this);
    model.tail(true);
  }

  destroy() {
    this.#observer.disconnect();
    this.scroller.removeEventListener("scroll", this.#scrolled);
    for (const name of ["wheel", "touchmove", "pointerdown", "keydown"]) this.scroller.removeEventListener(name, this.#reach);
    if (this.model.drawing === this) this.model.drawing = null;
  }

  /** @param {Item[]} items */
  reset(items) {
    this.content.replaceChildren();
    this.#marks.clear();
    this.#blocks = [];
    this.#current = null;
    this.#writer = writerFor(this.view, this.content);
    this.append(items);
  }

  /** @param {Item[]} items */
  append(items) {
    this.#write(items, this.#writer, this.content);
    this.#pin();
  }

  /** Put a page in front; what the reader looks at stays where it is. @param {Item[]} items */
  prepend(items) {
    const holder = document.createElement("div");
    const writer = writerFor(this.view, holder);
    this.#write(items, writer, holder);
    writer.finish();
    this.#blocks.unshift(...writer.blocks);
    const height = this.scroller.scrollHeight;
    const top = this.scroller.scrollTop;
    this.content.prepend(...holder.childNodes);
    // Where the browser has anchored the view itself, `scrollTop` has grown already.
    if (this.scroller.scrollTop === top) this.scroller.scrollTop = top + this.scroller.scrollHeight - height;
    this.#lastTop = this.scroller.scrollTop;
  }

  /** @param {number} seq */
  dropBelow(seq) {
    const blocks = this.#all();
    let count = 0;
    while (count < blocks.length - 1 && /** @type {Block} */ (blocks[count]).last < seq) count += 1;
    const kept = blocks[count];
    if (count === 0 || kept === undefined) return;
    while (this.content.firstChild !== null && this.content.firstChild !== kept.element) this.content.firstChild.remove();
    this.#blocks = blocks.slice(count);
    this.#writer.blocks.length = 0;
    for (const [mark, rule] of this.#marks) if (!rule.isConnected) this.#marks.delete(mark);
    this.model.dropped(kept.first);
    this.#pin();
  }

  /** @param {Mark} mark */
  remark(mark) {
    const rule = this.#marks.get(mark);
    if (rule === undefined) return;
    rule.className = ruleClass(mark);
    /** @type {HTMLElement} */ (rule.firstChild).textContent = mark.words;
  }

  /** The reader is in another time zone. */
  rewriteTimes() {
    rewriteTimes(this.content);
  }

  /** Go to the end and stay there. */
  follow() {
    this.following = true;
    this.model.catchUp();
    this.model.tail(true);
    this.#pin();
  }

  /** Go to the next or previous message, or block of text. @param {1 | -1} step */
  move(step) {
    const places = /** @type {HTMLElement[]} */ ([...this.content.querySelectorAll(this.view === "list" || this.view === "raw" ? ".row" : ".block > *")]);
    if (places.length === 0) return;
    const present = this.#current === null ? -1 : places.indexOf(this.#current);
    const index = present < 0 ? (step < 0 ? places.length - 1 : this.#firstVisible(places)) : Math.min(Math.max(present + step, 0), places.length - 1);
    this.#mark(places[index]);
  }

  /** Go to the next or previous rule. @param {1 | -1} step */
  moveToRule(step) {
    const rules = [...this.content.querySelectorAll(".rule")];
    const middle = this.scroller.getBoundingClientRect().top + this.scroller.clientHeight / 2;
    const side = (/** @type {Element} */ rule) => rule.getBoundingClientRect().top - middle;
    const next = step > 0 ? rules.find((rule) => side(rule) > 8) : rules.reverse().find((rule) => side(rule) < -8);
    next?.scrollIntoView({ block: "center" });
  }

  /** The text of the marked message, or of everything loaded. */
  text() {
    const chosen = this.#current?.querySelector(".payload") ?? this.#current;
    if (chosen !== null && chosen !== undefined) return chosen.textContent ?? "";
    return [...this.content.querySelectorAll(".block")].map((block) => block.textContent).join("");
  }

  /** @param {HTMLElement[]} places */
  #firstVisible(places) {
    const top = this.scroller.getBoundingClientRect().top;
    return Math.max(places.findIndex((place) => place.getBoundingClientRect().top >= top), 0);
  }

  /** @param {HTMLElement | undefined} place */
  #mark(place) {
    if (place === undefined) return;
    this.#current?.classList.remove("current");
    this.#current = place;
    place.classList.add("current");
    place.scrollIntoView({ block: "nearest" });
  }

  /** @param {Item[]} items @param {ReturnType<typeof writerFor>} writer @param {HTMLElement} place */
  #write(items, writer, place) {
    for (const item of items) {
      if ("seq" in item) writer.write(item);
      else {
        writer.finish();
        const rule = document.createElement("div");
        rule.className = ruleClass(item.mark);
        rule.dataset.testid = `${item.mark.kind}-rule`;
        const words = document.createElement("span");
        words.textContent = item.mark.words;
        rule.append(words);
        this.#marks.set(item.mark, rule);
        place.append(rule);
      }
    }
    writer.draw?.();
  }

  #all() {
    return [...this.#blocks, ...this.#writer.blocks];
  }

  #pin() {
    if (!this.following) return;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#lastTop = this.scroller.scrollTop;
    this.#lastHeight = this.scroller.scrollHeight;
  }

  #reach = () => {
    this.#reaching = true;
  };

  #scrolled = () => {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const distance = scrollHeight - scrollTop - clientHeight;
    // Only moving up is a wish of the reader; what the layout does by itself is not.
    if (distance <= TAIL_PIXELS) {
      this.following = true;
      this.#reaching = false;
    } else if (scrollTop < this.#lastTop - 1 && (this.#reaching || scrollHeight === this.#lastHeight)) this.following = false;
    else this.#pin();
    this.#lastTop = this.scroller.scrollTop;
    this.#lastHeight = scrollHeight;
    this.model.tail(this.following);
    if (scrollTop < OLDER_PIXELS && !this.following) void this.model.loadOlder();
  };
}

/** @param {Mark} mark */
function ruleClass(mark) {
  return `rule rule-${mark.kind}${mark.loud ? " loud" : ""}`;
}
