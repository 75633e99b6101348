/**
 * Output as text of the page: it wraps at words to the width that there is, can be selected and
 * searched, and needs no package. For a run with a fixed width lines break where the terminal's do.
 */

import { el } from "./dom.js";
import { Screen } from "./screen.js";

// Closer to the end than this, the reader follows the output.
const AT_END_PX = 24;

export class TextView {
  #screen;
  #size;
  #lines = [];
  #frame = 0;
  #isFollowing = true;
  #body = el("div", { class: "text-lines" });
  #resizes = new ResizeObserver(() => this.#isFollowing && this.scrollToEnd());

  constructor(size) {
    this.element = el("div", { class: "text-view", tabindex: "0", role: "region", "aria-label": "Text of the output" }, this.#body);
    this.element.addEventListener("scroll", () => {
      this.#isFollowing = this.#isNearEnd;
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
    this.#lines = [];
    this.#body.replaceChildren();
  }

  resize(columns, rows) {
    if (this.#size.isFixed) this.#screen.resize(columns, rows);
  }

  write(text, origin) {
    this.#screen.write(text, origin);
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  /** Draw what is waiting at once. */
  async flush() {
    this.#draw();
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

  scrollToEnd() {
    this.element.scrollTop = this.element.scrollHeight;
    this.#isFollowing = true;
  }

  focus() {
    this.element.focus();
  }

  dispose() {
    cancelAnimationFrame(this.#frame);
    this.#resizes.disconnect();
    this.element.remove();
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    // Asked now: while output pours in, the scroll event of somebody who moves away comes too late.
    const isFollowing = this.#isNearEnd;
    const { lines } = this.#screen;
    const added = [];
    for (const index of [...this.#screen.takeDirty()].sort((a, b) => a - b)) {
      if (index >= lines.length) continue;
      if (!this.#lines[index]) added.push((this.#lines[index] = el("div", { class: "text-line" })));
      this.#lines[index].replaceChildren(...spans(lines[index]));
    }
    this.#body.append(...added);
    for (const left of this.#lines.splice(lines.length)) left.remove();
    if (isFollowing) this.scrollToEnd();
  }

  get #isNearEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    return scrollHeight - scrollTop - clientHeight < AT_END_PX;
  }
}

/** Return the nodes of one line: neighbouring cells of one style become one. */
function spans(cells) {
  const nodes = [];
  let end = cells.length;
  while (end && cells[end - 1][0] === " " && cells[end - 1][1].bg === undefined) end -= 1;
  for (let start = 0, index = 1; start < end; index += 1) {
    if (index < end && cells[index][1] === cells[start][1]) continue;
    let text = "";
    for (let each = start; each < index; each += 1) text += cells[each][0];
    nodes.push(styledNode(text, cells[start][1]));
    start = index;
  }
  return nodes.length ? nodes : ["\u200b"];
}

function styledNode(text, style) {
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
