/**
 * A session's screen as the gateway draws it: where xterm.js is not there, and, for xterm.js itself,
 * what a viewer who comes late has missed.
 */

import { get } from "./api.js";
import { el, setText } from "./dom.js";
import { styledNode } from "./text-view.js";
import { legible } from "./values.js";

const LARGEST_PX = 14;
const SMALLEST_PX = 7;
const PADDING_PX = 24;
// Between two pictures. Drawing them costs the gateway, so a slow one is asked more rarely.
const SHORTEST_PAUSE_MS = 150;
const PAUSE_PER_MS = 3;
const LONGEST_PAUSE_MS = 5000;
// A run that prints faster than the gateway draws is never done.
const MAX_TRIES = 5;
const FLAGS = { bold: 1, dim: 2, italic: 3, underline: 4, inverse: 7, strike: 9 };

/** Return the screen of a run as it stands; null if the gateway does not know all of it, or not soon. */
export async function screenOf(runPath) {
  try {
    for (let tries = 0; tries < MAX_TRIES; tries += 1) {
      const screen = await get(`${runPath}/screen`);
      if (screen.done) return screen.whole ? screen : null;
    }
  } catch {
    // The finer view draws what it knows.
  }
  return null;
}

/** Return what draws a screen in a terminal, whatever was there before. */
export function redrawing({ alternate, cursor, rows }) {
  const lines = rows.map((spans, y) => `\x1b[${y + 1};1H${spans.map(([text, style]) => `\x1b[0${codes(style)}m${text}`).join("")}`);
  const place = cursor ? `\x1b[${cursor[1] + 1};${cursor[0] + 1}H\x1b[?25h` : "\x1b[?25l";
  return `\x1b[?1049${alternate ? "h" : "l"}\x1b[r\x1b[0m\x1b[H\x1b[2J${lines.join("")}\x1b[0m${place}`;
}

function codes(style) {
  const numbers = Object.entries(FLAGS).filter(([flag]) => style[flag]).map(([, code]) => code);
  for (const [name, code] of [["fg", 38], ["bg", 48]]) {
    const color = style[name];
    if (Number.isInteger(color)) numbers.push(code, 5, color);
    else if (color) numbers.push(code, 2, ...color.match(/\d+/g));
  }
  return numbers.map((number) => `;${number}`).join("");
}

export class ScreenView {
  #path;
  #lines = el("div", { class: "screen-lines" });
  #cursor = el("div", { class: "screen-cursor", hidden: true });
  #note = el("p", { class: "hint screen-note", hidden: true });
  #drawn = []; // of each line what it is made from
  #columns = 80;
  #timer = 0;
  #isAsking = false;
  #isAskedAgain = false;
  #isGone = false;
  #pauseMs = SHORTEST_PAUSE_MS;
  #behind = 0; // how many pictures in a row were not done
  #first;
  #sizes = new ResizeObserver(() => this.#fit());
  #onVisible = () => document.hidden || this.#askSoon();

  constructor(runPath) {
    this.#path = runPath;
    this.element = el(
      "div",
      { class: "screen-view", role: "region", "aria-label": "Screen of the session", tabindex: "0" },
      el("div", { class: "screen-frame" }, this.#lines, this.#cursor),
      this.#note,
    );
    document.addEventListener("visibilitychange", this.#onVisible);
  }

  attached() {
    this.#sizes.observe(this.element);
    this.#first = this.#ask();
  }

  // What it shows is the gateway's; all that is new here says that there is something new.
  write() {
    this.#askSoon();
  }

  resize() {
    this.#askSoon();
  }

  take() {
    this.#askSoon();
  }

  reset() {}

  flush() {
    return this.#first;
  }

  redraw() {
    return this.#first;
  }

  isAtStart = false;
  isAtEnd = true;
  extent = 0;
  distanceFromStart = 0;
  scrollToEnd() {}

  focus() {
    this.element.focus();
  }

  dispose() {
    this.#isGone = true;
    clearTimeout(this.#timer);
    this.#sizes.disconnect();
    document.removeEventListener("visibilitychange", this.#onVisible);
    this.element.remove();
  }

  #askSoon() {
    if (this.#isAsking) this.#isAskedAgain = true;
    else if (!this.#timer && !this.#isGone && !document.hidden) this.#timer = setTimeout(() => this.#ask(), this.#pauseMs);
  }

  async #ask() {
    this.#timer = 0;
    this.#isAsking = true;
    this.#isAskedAgain = false;
    const began = performance.now();
    try {
      const screen = await get(`${this.#path}/screen`);
      if (this.#isGone) return;
      this.#draw(screen);
      this.#isAskedAgain ||= !screen.done;
      this.#pauseMs = Math.min(LONGEST_PAUSE_MS, SHORTEST_PAUSE_MS + PAUSE_PER_MS * (performance.now() - began));
    } catch (error) {
      this.#tell(error.message);
      this.#isGone ||= error.status === 404; // deleted
      this.#isAskedAgain = true;
      this.#pauseMs = LONGEST_PAUSE_MS;
    } finally {
      this.#isAsking = false;
      if (this.#isAskedAgain) this.#askSoon();
    }
  }

  #draw({ columns, rows, cursor, whole, done }) {
    while (this.#lines.childElementCount > rows.length) this.#lines.lastElementChild.remove();
    while (this.#lines.childElementCount < rows.length) this.#lines.append(el("div", { class: "screen-line" }));
    this.#drawn.length = Math.min(this.#drawn.length, rows.length);
    rows.forEach((spans, index) => {
      const text = JSON.stringify(spans);
      if (this.#drawn[index] === text) return;
      this.#drawn[index] = text;
      this.#lines.children[index].replaceChildren(...spans.map(([part, style]) => styledNode(legible(part), style)), "\u200b");
    });
    this.#cursor.hidden = !cursor;
    if (cursor) {
      this.#cursor.style.setProperty("--x", String(cursor[0]));
      this.#cursor.style.setProperty("--y", String(cursor[1]));
    }
    this.#columns = columns;
    this.#fit();
    this.#behind = done ? 0 : this.#behind + 1;
    this.#tell(whole ? (this.#behind > MAX_TRIES ? "It prints faster than the gateway draws; this is a moment ago." : "") : "Some of what was drawn long ago may be missing, until the program draws it anew.");
  }

  #tell(sentence) {
    setText(this.#note, sentence);
    this.#note.hidden = !sentence;
  }

  /** Letters as large as they can be in this width, and no larger than text. */
  #fit() {
    const style = this.element.style;
    const now = Number.parseFloat(style.getPropertyValue("--screen-px")) || LARGEST_PX;
    const widthPx = this.#lines.offsetWidth; // so many columns of letters of this size
    if (!widthPx) return;
    const wanted = Math.floor(((this.element.clientWidth - PADDING_PX) / widthPx) * now * 4) / 4;
    const size = Math.max(SMALLEST_PX, Math.min(LARGEST_PX, wanted));
    style.setProperty("--screen-columns", String(this.#columns));
    if (size !== now) style.setProperty("--screen-px", `${size}px`);
  }
}
