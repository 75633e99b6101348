/**
 * Where a thumb reaches: on a narrow or low window what ends, interrupts and talks with a run stands at
 * the lower edge. On a wide one it stands where there is room for it.
 */

import { el } from "./dom.js";

const NARROW = matchMedia("(max-width: 60rem)");

export class Dock {
  #parts;

  /** `parts` are elements, each with a function that puts it where it belongs in a wide window. */
  constructor(parts) {
    this.#parts = parts.filter(([element]) => element instanceof Element);
    this.element = el("div", { class: "dock" });
    NARROW.addEventListener("change", () => this.arrange());
    // What lies above it has to know how high it is.
    new ResizeObserver(() => document.documentElement.style.setProperty("--dock-height", `${this.element.offsetHeight}px`)).observe(this.element);
  }

  /** Let the output, which has the window above the dock, know where it begins: its head grows and shrinks. */
  giveRoom(frame) {
    const measure = () => {
      if (!frame.offsetParent) return; // another tab is open
      const top = frame.getBoundingClientRect().top + document.documentElement.scrollTop;
      document.documentElement.style.setProperty("--pane-top", `${Math.ceil(top)}px`);
    };
    const observer = new ResizeObserver(measure);
    observer.observe(document.body);
    for (let each = frame; each !== document.body && each; each = each.parentElement) {
      for (let above = each.previousElementSibling; above; above = above.previousElementSibling) observer.observe(above);
    }
  }

  /** Put everything where it belongs. */
  arrange() {
    for (const [element, putBack] of this.#parts) {
      if (NARROW.matches) this.element.append(element);
      else if (element.parentElement === this.element || !element.parentElement) putBack(element);
    }
  }
}
