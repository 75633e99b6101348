/** The views of a run, each with an address: `?tab=` names it, and nothing is the output. */

import { el, setText } from "./dom.js";
import { many } from "./words.js";

const VIEWS = [["output", "Output"], ["changes", "Changes"]];

export class RunTabs {
  #onChange;
  #links = new Map();
  #count = el("span", { class: "tab-count" });

  /** `onChange` is told the view, and the file that the address names. */
  constructor(onChange) {
    this.#onChange = onChange;
    for (const [view, label] of VIEWS) {
      const href = view === "output" ? "?" : `?tab=${view}`;
      this.#links.set(view, el("a", { href }, label, view === "changes" && this.#count));
    }
    this.element = el("nav", { class: "tabs", "aria-label": "Views of this run", hidden: true }, ...this.#links.values());
    this.element.addEventListener("click", (event) => this.follow(event));
    addEventListener("popstate", () => this.tell());
  }

  /** Follow a link to a view without leaving the page, unless another window was asked for. */
  follow(event) {
    const link = event.target.closest?.("a[href]");
    if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const wanted = new URL(link.href);
    if (wanted.pathname !== location.pathname || wanted.hash) return;
    event.preventDefault();
    // What else the address says is not about the view.
    const address = new URL(location.href);
    for (const word of ["tab", "file"]) {
      if (wanted.searchParams.has(word)) address.searchParams.set(word, wanted.searchParams.get(word));
      else address.searchParams.delete(word);
    }
    history.pushState(null, "", address);
    this.tell();
  }

  /** Say which view the address names. */
  tell() {
    const query = new URLSearchParams(location.search);
    const view = this.#links.has(query.get("tab")) ? query.get("tab") : "output";
    for (const [each, link] of this.#links) {
      if (each === view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (view === "changes") this.element.hidden = false;
    this.#onChange(view, query.get("file"));
  }

  /** Show how many files were changed. */
  count(files) {
    this.element.hidden = false;
    setText(this.#count, ` ${many(files)}`);
  }
}
