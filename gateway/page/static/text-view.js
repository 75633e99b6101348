/**
 * Output as text of the page: it wraps at words to the width that there is, can be selected and
 * searched, and needs no package. For a run with a fixed width lines break where the terminal's do.
 */

import { el } from "./dom.js";
import { mark, rangeOf } from "./marks.js";
import { Screen } from "./screen.js";
import { attempt, nextFrame, pauseAfter, pieces, TURN_MS } from "./turns.js";

// Closer to the end than this, the reader follows the output.
// How many rows of a terminal a line may take until what was found in it.
const MAX_ROWS = 8;
const AT_END_PX = 24;
// What is taken between two looks at the clock.
const PIECE_CHARS = 1024;
const DRAWN_AT_ONCE = 50;
// A line of more colours than this is no text; what follows in it has none.
const MAX_SPANS = 500;
const EMPTY_LINE = "\u200b";

export class TextView {
  #screen;
  #size;
  #lines = [];
  #steps = []; // what is still to be written, one generator for each call
  #work = null;
  #isDrawing = false;
  #isFollowing = true;
  #height = 0; // as the observer has it
  #gone = 0; // lines before the first one that is drawn
  #earlier = el("p", { class: "hint", hidden: true }, "Lines before this one are not drawn. The run’s log has them.");
  #body = el("div", { class: "text-lines" });
  #resizes = new ResizeObserver(() => {
    this.#height = this.element.clientHeight;
    if (this.#isFollowing) this.scrollToEnd();
  });

  constructor(size) {
    this.element = el("div", { class: "text-view", tabindex: "0", role: "region", "aria-label": "Text of the output" }, this.#earlier, this.#body);
    this.element.addEventListener("scroll", () => {
      // Of a height that is news to the observer the scrolling is the browser's, and not the reader's.
      if (this.element.clientHeight === this.#height) this.#isFollowing = this.#isNearEnd;
      this.onScroll?.();
    });
    this.#resizes.observe(this.element);
    this.reset(size);
  }

  /** `size` is `{columns, rows, isFixed}`; of a fixed one the columns hold. */
  reset(size) {
    this.#size = size;
    this.#screen = new Screen({
      columns: size.isFixed ? size.columns : Infinity,
      rows: size.rows,
      newlineReturns: !size.isFixed,
    });
    this.#steps = [];
    this.#lines = [];
    this.#gone = 0;
    this.#earlier.hidden = true;
    this.#body.replaceChildren();
  }

  resize(columns, rows) {
    if (this.#size.isFixed) this.#add([() => this.#screen.resize(columns, rows)].values());
  }

  write(text, origin) {
    this.#add(this.#writing(text, origin));
  }

  *#writing(text, origin) {
    for (const piece of pieces(text, PIECE_CHARS)) yield () => this.#screen.write(piece, origin);
  }

  /** Wait until everything written is drawn. */
  async flush() {
    while (this.#work) await this.#work;
    for (let began = performance.now(); this.#drawSome(); began = performance.now()) {
      await pauseAfter(performance.now() - began);
    }
  }

  #add(steps) {
    this.#steps.push(steps);
    this.#work ??= this.#workInTurns();
  }

  async #workInTurns() {
    await null; // what is added in this moment belongs to this work
    while (this.#steps.length) {
      const began = performance.now();
      while (this.#steps.length && performance.now() - began < TURN_MS) {
        const { value: step, done } = this.#steps[0].next();
        if (done) this.#steps.shift();
        else attempt(step);
      }
      this.#drawSoon();
      if (this.#steps.length) await pauseAfter(performance.now() - began);
    }
    this.#work = null;
  }

  get isAtStart() {
    return this.element.scrollTop < AT_END_PX;
  }

  get isAtEnd() {
    return this.#isFollowing;
  }

  /** How far the last line is from the first, in pixels: the next text goes there. */
  get extent() {
    return this.#lines.length ? this.#lines.at(-1).offsetTop - this.#lines[0].offsetTop : 0;
  }

  /** Pixels between the beginning and what is seen. */
  get distanceFromStart() {
    return this.element.scrollTop;
  }

  set distanceFromStart(pixels) {
    this.element.scrollTop = pixels;
    this.#isFollowing = this.#isNearEnd;
  }

  /** The number of the first line that is seen, of all that were written. */
  get lineSeen() {
    const top = (this.#lines[0]?.offsetTop ?? 0) + this.element.scrollTop + 1;
    let from = 0;
    for (let to = this.#lines.length; from < to; ) {
      const middle = (from + to) >> 1;
      if (this.#lines[middle].offsetTop + this.#lines[middle].offsetHeight > top) to = middle;
      else from = middle + 1;
    }
    return this.#gone + from;
  }

  /** How many lines there are from the first one that is seen to the last one with a text. */
  get linesToEnd() {
    return this.#gone + this.#written - this.lineSeen;
  }

  set linesToEnd(number) {
    const first = this.#lines[Math.max(0, this.#written - number)];
    if (first) this.distanceFromStart = first.offsetTop - this.#lines[0].offsetTop;
  }

  get #written() {
    return this.#lines.findLastIndex(({ textContent }) => textContent.trim() && textContent !== EMPTY_LINE) + 1;
  }

  /** Mark a text in the first line that is seen, and show it; a session's line may go on in the next ones. */
  mark(wanted) {
    const first = this.lineSeen - this.#gone;
    const ranges = wanted ? this.#lines.slice(first, first + MAX_ROWS).map((line) => rangeOf(line, wanted)) : [];
    const range = ranges.find(Boolean) ?? null;
    mark(range);
    if (!range) return;
    const { top, bottom } = range.getBoundingClientRect();
    const seen = this.element.getBoundingClientRect();
    if (top < seen.top || bottom > seen.bottom) this.element.scrollTop += (top + bottom - seen.top - seen.bottom) / 2;
  }

  scrollToEnd() {
    this.element.scrollTop = this.element.scrollHeight;
    this.#isFollowing = true;
  }

  focus() {
    this.element.focus();
  }

  dispose() {
    this.#steps = [];
    this.#resizes.disconnect();
    this.element.remove();
  }

  /** Draw with the next frames, until everything that is written is drawn. */
  async #drawSoon() {
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    for (;;) {
      await nextFrame();
      const began = performance.now();
      // What is written in a pause after this would find it drawing, and nothing would draw it.
      if (!attempt(() => this.#drawSome())) break;
      await pauseAfter(performance.now() - began);
    }
    this.#isDrawing = false;
  }

  /** Draw for a turn; return whether there is more. */
  #drawSome() {
    // Asked now: while output pours in, the scroll event of somebody who moves away comes too late.
    const isFollowing = this.#isNearEnd;
    const { lines } = this.#screen;
    const dropped = this.#screen.takeDropped();
    for (const gone of this.#lines.splice(0, dropped)) gone.remove();
    this.#gone += dropped;
    if (dropped) this.#earlier.hidden = false;
    for (const left of this.#lines.splice(lines.length)) left.remove();
    const added = [];
    const began = performance.now();
    while (this.#screen.isDirty && performance.now() - began < TURN_MS) {
      for (const index of this.#screen.takeDirty(DRAWN_AT_ONCE)) {
        while (this.#lines.length <= index) {
          const line = el("div", { class: "text-line" });
          this.#lines.push(line);
          added.push(line);
        }
        this.#lines[index].replaceChildren(...spans(lines[index]));
      }
    }
    this.#body.append(...added);
    if (isFollowing) this.scrollToEnd();
    return this.#screen.isDirty;
  }

  get #isNearEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    return scrollHeight - scrollTop - clientHeight < AT_END_PX;
  }
}

/** Return the nodes of one line: neighbouring cells of one style become one. */
export function spans(cells) {
  const nodes = [];
  let end = cells.length;
  while (end && cells[end - 1][0] === " " && cells[end - 1][1].bg === undefined) end -= 1;
  for (let start = 0, index = 1; start < end; index += 1) {
    const isLast = nodes.length === MAX_SPANS;
    if (index < end && (isLast || cells[index][1] === cells[start][1])) continue;
    let text = "";
    for (let each = start; each < index; each += 1) text += cells[each][0];
    nodes.push(styledNode(text, cells[start][1]));
    start = index;
  }
  return nodes.length ? nodes : [EMPTY_LINE];
}

/** Return a text in its style. */
export function styledNode(text, style) {
  const classes = ["bold", "dim", "italic", "underline", "strike", "hidden"].filter((flag) => style[flag]);
  let { fg, bg } = style;
  if (style.inverse) [fg, bg] = [bg ?? "background", fg ?? "foreground"];
  if (style.isError) classes.push("stderr");
  if (isNamed(fg)) classes.push(`fg-${fg}`);
  if (isNamed(bg)) classes.push(`bg-${bg}`);
  if (!classes.length && fg === undefined && bg === undefined) return document.createTextNode(text);
  const node = el("span", { class: classes.length && classes.join(" ") }, text);
  if (fg !== undefined && !isNamed(fg)) node.style.color = cssColor(fg);
  if (bg !== undefined && !isNamed(bg)) node.style.backgroundColor = cssColor(bg);
  return node;
}

const isNamed = (color) => color < 16 || color === "background" || color === "foreground";

/** Return a colour beyond the sixteen named ones: xterm's cube of 216, its 24 greys, or an `rgb(…)`. */
function cssColor(color) {
  if (typeof color === "string") return color;
  if (color >= 232) return `rgb(${Array(3).fill(8 + (color - 232) * 10).join(" ")})`;
  const level = (step) => (step ? 55 + step * 40 : 0);
  const cube = color - 16;
  return `rgb(${level(Math.floor(cube / 36))} ${level(Math.floor(cube / 6) % 6)} ${level(cube % 6)})`;
}
