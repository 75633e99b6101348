/**
 * Output in a real terminal, xterm.js, with the size that the run's own terminal has. On a narrow page
 * the letters shrink as long as they can be read; what is still too wide scrolls sideways.
 *
 * The page scrolls, not xterm.js, which knows no touch and shows a screen that is higher than its place
 * only at its top. All lines of the buffer have their places one below the other; of them xterm.js
 * draws a screenful, and stands where those lines are.
 */

import { BASE } from "./base.js";
import { el } from "./dom.js";
import { TameOutput } from "./tame-output.js";
import { attempt, nextFrame, pauseAfter, pieces, TURN_MS } from "./turns.js";
import { allowXtermStyles } from "./xterm-styles.js";

const FOLDER = `${BASE}/static/vendor/xterm`;
const LARGEST_PX = 14;
const SMALLEST_PX = 10;
const SCROLLBACK_LINES = 50_000;
const SCROLLBACK_CELLS = 5_000_000;
// xterm.js looks at the clock between two pieces, and one sequence may touch every cell of its screen.
const PIECE_CHARS = 1024;
const CELLS_AT_ONCE = 2_000_000;
// So much is written before the page draws, and is asked how long that took.
const BATCH_CHARS = 131_072;
// A change of size moves all lines. Of more that wait, only the last ones are made.
const MAX_WAITING_SIZES = 20;
// Closer to the end than this, the reader follows the output.
const AT_EDGE_PX = 8;
// What the keyboard does here, in pixels: nothing reads what is typed, and Tab has to lead out again.
const SCROLLS = {
  ArrowUp: (row) => -row,
  ArrowDown: (row) => row,
  PageUp: (row, page) => row - page,
  PageDown: (row, page) => page - row,
  Home: (row, page, all) => -all,
  End: (row, page, all) => all,
};
const NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

let library = null;

/** Load xterm.js, once. Return whether it is there: a gateway that was set up without npm has none. */
export async function isXtermInstalled() {
  library ??= load();
  return (await library) !== null;
}

async function load() {
  try {
    await import(`${FOLDER}/xterm.js`); // no module: it leaves its class in the global object
    const sheet = el("link", { rel: "stylesheet", href: `${FOLDER}/xterm.css` });
    await new Promise((resolve, reject) => {
      sheet.addEventListener("load", resolve);
      sheet.addEventListener("error", reject);
      document.head.append(sheet);
    });
    allowXtermStyles();
    return globalThis.Terminal;
  } catch {
    return null;
  }
}

export class XtermView {
  #terminal;
  #tame = new TameOutput();
  #waiting = []; // texts with their streams, and what has to be done between them
  #waitingSizes = 0;
  #work = null;
  #isFollowing = true;
  #height = 0; // as the observer has it
  #frame = el("div", { class: "xterm-frame" });
  #lines = el("div", { class: "xterm-lines" }, this.#frame);
  #sizes = new ResizeObserver(() => this.#fit());
  #onTheme = () => (this.#terminal.options.theme = theme(this.element));

  /** Make a view, after `isXtermInstalled` said that it can be. */
  static async create(size) {
    return new XtermView(await library, size);
  }

  constructor(Terminal, size) {
    this.element = el("div", { class: "xterm-view", role: "region", "aria-label": "Terminal with the output" }, this.#lines);
    this.#terminal = new Terminal({
      cols: size.columns,
      rows: size.rows,
      convertEol: !size.isFixed,
      disableStdin: true,
      cursorInactiveStyle: "none",
      fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"),
      fontSize: LARGEST_PX,
      minimumContrastRatio: 4.5,
      scrollback: scrollback(size.columns),
    });
    this.#terminal.attachCustomKeyEventHandler((event) => this.#onKey(event));
    document.addEventListener("themechange", this.#onTheme);
  }

  /** Show it; the element has to be in the page by now. */
  attached() {
    this.#terminal.open(this.#frame);
    this.#onTheme();
    this.#terminal.attachCustomWheelEventHandler(() => false);
    this.#terminal.onWriteParsed(() => this.#arrange());
    this.element.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = this.element;
      // Of a height that is news to the observer the scrolling is the browser's, and not the reader's.
      if (clientHeight === this.#height) this.#isFollowing = scrollHeight - scrollTop - clientHeight < AT_EDGE_PX;
      this.#place();
      this.onScroll?.();
    });
    this.#sizes.observe(this.#frame);
    this.#sizes.observe(this.element);
    this.#fit();
  }

  reset(size) {
    this.#waiting = [];
    this.#waitingSizes = 0;
    this.#add({
      // What was on its way is written by now.
      action: () => {
        this.#tame = new TameOutput();
        this.#terminal.reset();
        this.#setSize(size);
      },
    });
  }

  resize(columns, rows) {
    this.#waitingSizes += 1;
    this.#add({
      action: () => {
        this.#waitingSizes -= 1;
        if (this.#waitingSizes < MAX_WAITING_SIZES) this.#setSize({ columns, rows });
      },
    });
  }

  write(text, origin) {
    this.#add({ writes: this.#writing(text, origin) });
  }

  /** Wait until everything written is shown. */
  async flush() {
    while (this.#work) await this.#work;
  }

  #add(step) {
    this.#waiting.push(step);
    this.#work ??= this.#workInTurns();
  }

  async #workInTurns() {
    await null; // what is added in this moment belongs to this work
    while (this.#waiting.length) {
      const began = performance.now();
      let room = BATCH_CHARS;
      while (this.#waiting.length && room > 0) {
        const { writes, action } = this.#waiting[0];
        if (action) {
          // At another size xterm.js would read all that is written at once.
          if (room < BATCH_CHARS) break;
          attempt(action);
          room = 0;
        }
        const { value: written, done } = writes?.next() ?? { done: true };
        if (done) this.#waiting.shift();
        else room -= written;
        if (performance.now() - began > TURN_MS) break;
      }
      await new Promise((resolve) => this.#terminal.write("", resolve));
      await nextFrame();
      await pauseAfter(performance.now() - began);
    }
    this.#work = null;
  }

  #setSize({ columns, rows }) {
    const { cols, rows: before, options } = this.#terminal;
    if (columns === cols && rows === before) return;
    options.scrollback = scrollback(columns);
    this.#terminal.resize(columns, rows);
    this.#fit();
  }

  /** Write a text piece by piece, and yield the size of each. */
  *#writing(text, origin) {
    for (const piece of pieces(text, PIECE_CHARS)) {
      const { cols, rows } = this.#terminal;
      const tame = this.#tame.next(piece, origin, Math.max(cols, rows));
      const coloured = origin === "stderr" ? `\x1b[31m${tame}\x1b[39m` : tame;
      const size = Math.max(16, Math.min(PIECE_CHARS, Math.floor(CELLS_AT_ONCE / Math.max(cols * rows, rows * rows))));
      for (const each of pieces(coloured, size)) this.#terminal.write(each);
      yield piece.length;
    }
  }

  get isAtStart() {
    return this.element.scrollTop < AT_EDGE_PX;
  }

  get isAtEnd() {
    return this.#isFollowing;
  }

  /** How far the cursor is from the first line, in lines: the next text goes there. */
  get extent() {
    const { baseY, cursorY } = this.#terminal.buffer.active;
    return baseY + cursorY;
  }

  /** Lines between the beginning and what is seen. */
  get distanceFromStart() {
    return this.element.scrollTop / (this.#rowPx || 1);
  }

  set distanceFromStart(lines) {
    this.#arrange();
    this.element.scrollTop = Math.max(0, lines) * this.#rowPx;
    this.#place();
  }

  /** How many lines there are from the first one that is seen to the last one with a text. */
  get linesToEnd() {
    return this.#linesUsed() - Math.floor(this.distanceFromStart);
  }

  set linesToEnd(number) {
    this.#isFollowing = false;
    this.distanceFromStart = this.#linesUsed() - number;
  }

  scrollToEnd() {
    this.#isFollowing = true;
    this.#arrange();
  }

  focus() {
    this.#terminal.focus();
  }

  dispose() {
    document.removeEventListener("themechange", this.#onTheme);
    this.#sizes.disconnect();
    this.#terminal.dispose();
    this.element.remove();
  }

  #onKey(event) {
    const scroll = event.type === "keydown" && SCROLLS[event.key];
    if (scroll) {
      event.preventDefault();
      const { clientHeight, scrollHeight } = this.element;
      this.element.scrollTop += scroll(this.#rowPx, clientHeight, scrollHeight);
    }
    return false;
  }

  /** The height of a line; 0 before it is shown. */
  get #rowPx() {
    return (this.#frame.querySelector(".xterm-screen")?.offsetHeight ?? 0) / this.#terminal.rows;
  }

  /** Make room for all lines, and stay at the end if that is where the reader is. */
  #arrange() {
    const { element } = this;
    this.#height = element.clientHeight;
    const screenPx = this.#frame.offsetHeight;
    const abovePx = this.#terminal.buffer.active.baseY * this.#rowPx;
    element.style.setProperty("--screen-height", `${screenPx}px`);
    // A screen that is lower than its place stands at the top of it.
    // The end that a reader follows is the last row with a text, not the empty rows below it.
    const { baseY, cursorY, length } = this.#terminal.buffer.active;
    const usedPx = screenPx - (length - this.#linesUsed(baseY + cursorY + 1)) * this.#rowPx;
    this.#lines.style.height = `${abovePx + Math.max(usedPx, element.clientHeight)}px`;
    if (this.#isFollowing) element.scrollTop = element.scrollHeight;
    this.#place();
  }

  /** How many lines there are up to the last one with a text, of the screen or before `least`. */
  #linesUsed(least = this.#terminal.buffer.active.baseY) {
    const { active } = this.#terminal.buffer;
    let end = active.length;
    while (end > least && !active.getLine(end - 1)?.translateToString(true).trim()) end -= 1;
    return end;
  }

  /** Draw the lines that are scrolled to, where they stand. */
  #place() {
    const rowPx = this.#rowPx;
    if (!rowPx) return;
    const { baseY } = this.#terminal.buffer.active;
    const line = this.#isFollowing ? baseY : Math.min(baseY, Math.floor(this.element.scrollTop / rowPx));
    this.#terminal.scrollToLine(line);
    this.#frame.style.transform = `translateY(${line * rowPx}px)`;
  }

  #fit() {
    const screen = this.#frame.querySelector(".xterm-screen");
    if (!screen?.offsetWidth) return;
    const { options } = this.#terminal;
    const perPixel = screen.offsetWidth / options.fontSize;
    const wanted = Math.floor((this.element.clientWidth - 24) / perPixel);
    const size = Math.max(SMALLEST_PX, Math.min(LARGEST_PX, wanted));
    if (size !== options.fontSize) options.fontSize = size;
    this.#arrange();
  }
}

/** Return how many lines are kept that have scrolled away: the wider, the fewer. */
const scrollback = (columns) => Math.min(SCROLLBACK_LINES, Math.floor(SCROLLBACK_CELLS / columns));

/** Return xterm's colours as the style sheet has them, in the theme of this moment. */
function theme(element) {
  const probe = el("span", { hidden: true });
  element.append(probe);
  const color = (name) => {
    probe.className = `fg-${name}`;
    return getComputedStyle(probe).color;
  };
  const colors = { background: color("background"), foreground: color("foreground"), cursor: color("foreground") };
  NAMES.forEach((name, index) => {
    colors[name] = color(index);
    colors[`bright${name[0].toUpperCase()}${name.slice(1)}`] = color(index + 8);
  });
  probe.remove();
  return colors;
}
