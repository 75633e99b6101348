/**
 * Output in a real terminal, xterm.js, with the width that the run's own terminal has. On a narrow
 * page the letters shrink as long as they can be read; what is still too wide scrolls sideways.
 */

import { el } from "./dom.js";
import { allowXtermStyles } from "./xterm-styles.js";

const FOLDER = "/static/vendor/xterm";
const LARGEST_PX = 14;
const SMALLEST_PX = 10;
const SCROLLBACK_LINES = 50_000;
// What the keyboard does here: nothing reads what is typed, and Tab has to lead out again.
const SCROLLS = {
  ArrowUp: (terminal) => terminal.scrollLines(-1),
  ArrowDown: (terminal) => terminal.scrollLines(1),
  PageUp: (terminal) => terminal.scrollPages(-1),
  PageDown: (terminal) => terminal.scrollPages(1),
  Home: (terminal) => terminal.scrollToTop(),
  End: (terminal) => terminal.scrollToBottom(),
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
  #frame = el("div", { class: "xterm-frame" });
  #sizes = new ResizeObserver(() => this.#fit());
  #onTheme = () => (this.#terminal.options.theme = theme(this.element));

  /** Make a view, after `isXtermInstalled` said that it can be. */
  static async create(size) {
    return new XtermView(await library, size);
  }

  constructor(Terminal, size) {
    this.element = el("div", { class: "xterm-view", role: "region", "aria-label": "Terminal with the output" }, this.#frame);
    this.#terminal = new Terminal({
      cols: size.columns,
      rows: size.rows,
      convertEol: !size.isFixed,
      disableStdin: true,
      cursorInactiveStyle: "none",
      fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"),
      fontSize: LARGEST_PX,
      minimumContrastRatio: 4.5,
      scrollback: SCROLLBACK_LINES,
    });
    this.#terminal.attachCustomKeyEventHandler((event) => this.#onKey(event));
    document.addEventListener("themechange", this.#onTheme);
  }

  /** Show it; the element has to be in the page by now. */
  attached() {
    this.#terminal.open(this.#frame);
    this.#onTheme();
    this.#terminal.onScroll(() => this.onScroll?.());
    this.element.addEventListener("wheel", () => this.onScroll?.(), { passive: true });
    this.#sizes.observe(this.element);
    this.#fit();
  }

  reset(size) {
    this.#terminal.reset();
    this.resize(size.columns, size.rows);
  }

  resize(columns, rows) {
    this.#terminal.resize(columns, rows);
    this.#fit();
  }

  write(text, origin) {
    this.#terminal.write(origin === "stderr" ? `\x1b[31m${text}\x1b[39m` : text);
  }

  /** Wait until everything written is shown. */
  flush() {
    return new Promise((resolve) => this.#terminal.write("", resolve));
  }

  get isAtStart() {
    return this.#terminal.buffer.active.viewportY === 0;
  }

  get isAtEnd() {
    const { baseY, viewportY } = this.#terminal.buffer.active;
    return viewportY >= baseY;
  }

  /** How far the cursor is from the first line, in lines: the next text goes there. */
  get extent() {
    const { baseY, cursorY } = this.#terminal.buffer.active;
    return baseY + cursorY;
  }

  /** Lines between the beginning and what is seen. */
  get distanceFromStart() {
    return this.#terminal.buffer.active.viewportY;
  }

  set distanceFromStart(lines) {
    this.#terminal.scrollToLine(Math.max(0, lines));
  }

  scrollToEnd() {
    this.#terminal.scrollToBottom();
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
      scroll(this.#terminal);
      this.onScroll?.();
    }
    return false;
  }

  #fit() {
    const screen = this.#frame.querySelector(".xterm-screen");
    if (!screen?.offsetWidth) return;
    const { options } = this.#terminal;
    const perPixel = screen.offsetWidth / options.fontSize;
    const wanted = Math.floor((this.element.clientWidth - 24) / perPixel);
    const size = Math.max(SMALLEST_PX, Math.min(LARGEST_PX, wanted));
    if (size !== options.fontSize) options.fontSize = size;
  }
}

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
