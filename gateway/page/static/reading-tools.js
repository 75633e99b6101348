/**
 * What helps to get around in a run: the search, the next error, links to lines, the whole text.
 *
 * The gateway searches, since the page holds a part of a long run only. A search goes on where it
 * stopped, and the address keeps what is looked for.
 */

import { addressOf, lineOfAddress, setLine, setWord, wordOf } from "./address.js";
import { get, post } from "./api.js";
import { copyButton } from "./copy.js";
import { actionButton, el, setText } from "./dom.js";
import { announce } from "./notices.js";
import { fail, say } from "./toast.js";
import { legible } from "./values.js";

const WAIT_MS = 250;
const PAGE_HITS = 50;
const MAX_HITS = 500;
const MAX_CHARS = 200;

export class ReadingTools {
  #path;
  #view;
  #wait;
  #search = 0; // the number of the search that goes on
  #next = null;
  #hits = new Map(); // a line's name -> its entry
  #problem = null; // where the next error is looked for: {from, place}
  #field = el("input", { id: "find", type: "search", maxlength: MAX_CHARS, autocomplete: "off", autocapitalize: "off", spellcheck: "false", enterkeyhint: "search", "aria-describedby": "find-state" });
  #state = el("p", { id: "find-state", class: "hint", role: "status" });
  #list = el("ol", { class: "hits", "aria-label": "Lines that were found" });
  #more;
  #open;
  #needed = el("button", { type: "button", class: "plain needed", hidden: true, onclick: goToNeeded }, "Needs you");
  #line = el("p", { class: "line-name" });
  #copyLink;
  #copyBlock;
  #link = "";
  #block = "";

  /** `view` has `goTo(name)`, `firstSeen()` and `deselect()`. */
  constructor(path, view) {
    this.#path = path;
    this.#view = view;
    this.#open = el("button", { type: "button", class: "plain", "aria-expanded": "false", "aria-controls": "find-panel", onclick: () => this.#toggle() }, "Find");
    const problem = actionButton("Next error", { class: "plain" }, () => this.#goToProblem(), fail);
    const download = actionButton("Download text", { class: "plain" }, () => this.#download(), fail);
    this.buttons = [this.#needed, this.#open, problem, download];
    this.#more = actionButton("More", { hidden: true }, () => this.#look(this.#search), (sentence) => setText(this.#state, sentence));
    this.panel = el(
      "search",
      { id: "find-panel", class: "find", hidden: true },
      el("div", { class: "find-line" }, el("label", { for: "find", class: "unseen" }, "Find in this run"), this.#field, el("button", { type: "button", class: "plain", onclick: () => this.#close() }, "Close")),
      this.#state,
      this.#list,
      this.#more,
    );
    this.#copyLink = copyButton(() => this.#link, "Copy link");
    this.#copyBlock = copyButton(() => this.#block, "Copy block");
    this.bar = el(
      "div",
      { class: "line-bar", role: "group", "aria-label": "The chosen line", hidden: true },
      this.#line,
      this.#copyLink,
      this.#copyBlock,
      el("button", { type: "button", class: "plain", "aria-label": "Choose no line", onclick: () => this.#deselect() }, "✕"),
    );
    this.#field.addEventListener("input", () => {
      clearTimeout(this.#wait);
      this.#wait = setTimeout(() => this.#begin(), WAIT_MS);
    });
    this.panel.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#close();
      if (event.key === "Enter" && event.target === this.#field) {
        event.preventDefault();
        this.#list.querySelector("a")?.focus();
      }
    });
    this.#field.value = wordOf("find").slice(0, MAX_CHARS);
    if (this.#field.value) this.#show();
  }

  /** Look for what the address names, once there is a view; go to the first hit unless the address names a line. */
  async start() {
    const isLine = lineOfAddress() !== null;
    if (!this.#field.value) return;
    await this.#begin();
    const [first] = this.#hits.keys();
    if (first && !isLine && !lineOfAddress()) await this.#view.goTo(first);
  }

  /** Offer the way to what a run waits for. */
  update(run) {
    const takesWords = run.remote_input && (run.listens || run.mode === "interactive");
    const waits = run.open_questions > 0 || (run.state === "waiting" && takesWords);
    this.#needed.hidden = run.status !== "running" || !waits;
  }

  /** Offer what can be done with a line. */
  choose(name, block, text) {
    this.#link = addressOf(name);
    this.#block = block;
    setLine(name);
    setText(this.#line, text.slice(0, 100));
    this.bar.hidden = false;
    this.#problem = null;
  }

  #deselect() {
    setLine("");
    this.bar.hidden = true;
    this.#view.deselect();
  }

  // --- the search ---

  #toggle() {
    if (!this.panel.hidden) return this.#close();
    this.#show();
    this.#field.focus();
    this.#field.select();
  }

  #show() {
    this.panel.hidden = false;
    this.#open.setAttribute("aria-expanded", "true");
  }

  #close() {
    clearTimeout(this.#wait);
    this.panel.hidden = true;
    this.#open.setAttribute("aria-expanded", "false");
    this.#search += 1;
    setWord("find", "");
    this.#open.focus();
  }

  async #begin() {
    const wanted = this.#field.value;
    setWord("find", wanted);
    this.#search += 1;
    this.#next = null;
    this.#hits.clear();
    this.#list.replaceChildren();
    this.#more.hidden = true;
    setText(this.#state, "");
    if (wanted) await this.#look(this.#search).catch((error) => setText(this.#state, error.message));
  }

  /** Look for a page of hits; the gateway stops after a while, and is asked again. */
  async #look(search) {
    const wanted = this.#field.value;
    const before = this.#hits.size;
    do {
      setText(this.#state, `Looking… ${this.#count()}`);
      const from = this.#next ? `&from=${this.#next}` : "";
      const { hits, next } = await get(`${this.#path}/search?q=${encodeURIComponent(wanted)}&limit=${PAGE_HITS}${from}`);
      if (search !== this.#search) return;
      for (const hit of hits) this.#add(hit);
      this.#next = next;
    } while (this.#next && this.#hits.size - before < PAGE_HITS);
    this.#more.hidden = !this.#next || this.#hits.size >= MAX_HITS;
    setText(this.#state, this.#hits.size ? `${this.#count()}${this.#next ? ", and there may be more" : ""}` : "Not found in this run.");
  }

  #count() {
    const { size } = this.#hits;
    return size === 1 ? "1 line" : `${size} lines`;
  }

  #add({ event, line, text, start, end, type }) {
    const name = `${event}.${line}`;
    if (this.#hits.has(name)) return;
    const link = el("a", { class: `hit ${type}`, href: `#e${name}`, onclick: (event) => this.#follow(event, name) }, el("span", {}, legible(text.slice(0, start)), el("mark", {}, legible(text.slice(start, end))), legible(text.slice(end))));
    this.#hits.set(name, link);
    this.#list.append(el("li", {}, link));
  }

  /** Lead to a line that the address names already: that is no news to it. */
  #follow(event, name) {
    if (location.hash !== `#e${name}` || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    this.#view.goTo(name).catch((error) => fail(error.message));
  }

  // --- errors, the text ---

  async #goToProblem() {
    const place = this.#view.firstSeen();
    const chosen = this.#problem?.next ?? (place ? after(place) : null);
    let from = chosen ?? "0.0";
    for (let isAgain = false; ; ) {
      const { hits, next } = await get(`${this.#path}/search?limit=1&from=${from}`);
      if (hits.length) {
        const name = `${hits[0].event}.${hits[0].line}`;
        await this.#view.goTo(name);
        this.#problem = { next: next ?? after(name) };
        return announce(isAgain ? "The first error of the run." : "The next error.");
      }
      if (next) from = next;
      else if (isAgain || from === "0.0") return say("There is no error in this run.");
      else [from, isAgain] = ["0.0", true];
    }
  }

  /** A download is the browser's own request, without the page's header: its address is made for it. */
  async #download() {
    const { address } = await post(`${this.#path}/text/link`);
    el("a", { href: address, download: "" }).click();
  }
}

/** Go to the first open question, or to the field for a message or for the session. */
function goToNeeded() {
  const question = document.querySelector(".ask h3");
  if (question?.closest(".asks.folded")) document.querySelector(".asks-toggle").click();
  (question ?? [...document.querySelectorAll("#message, #input")].find((each) => each.checkVisibility()))?.focus();
}

/** Return the place behind a line. */
function after(name) {
  const [event, line] = name.split(".").map(Number);
  return `${event}.${line + 1}`;
}
