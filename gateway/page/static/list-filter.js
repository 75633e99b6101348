/** What of the list is shown: a state, a folder, a runner, words. It stands in the page's address. */

import { el } from "./dom.js";
import { asText } from "./values.js";

const TYPING_PAUSE_MS = 250;
const MAX_TEXT = 200;
const STATES = new Map([
  ["", "All runs"],
  ["needs", "Needs you"],
  ["working", "Working"],
  ["pending", "Not started"],
  ["done", "Done"],
  ["unseen", "Done, not seen yet"],
  ["failed", "Failed"],
  ["refused", "Tools refused"],
  ["incomplete", "Output incomplete"],
]);
const NAMES = ["q", "state", "folder", "runner"];

export class ListFilter {
  #values = {};
  #onChange;
  #timer;
  #search = el("input", { type: "search", id: "search", placeholder: "Search titles, prompts, output", maxlength: String(MAX_TEXT), autocomplete: "off", spellcheck: "false" });
  #selects = {
    state: el("select", { "aria-label": "State" }),
    folder: el("select", { "aria-label": "Folder" }),
    runner: el("select", { "aria-label": "Runner" }),
  };

  /** `onChange` is called when something else is to be shown. */
  constructor(onChange) {
    this.#onChange = onChange;
    this.#read();
    this.#search.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#set({ q: this.#search.value.trim() }), TYPING_PAUSE_MS);
    });
    this.#search.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      clearTimeout(this.#timer);
      this.#set({ q: this.#search.value.trim() });
    });
    for (const [name, select] of Object.entries(this.#selects)) {
      select.addEventListener("change", () => this.#set({ [name]: select.value }));
    }
    addEventListener("popstate", () => {
      clearTimeout(this.#timer);
      this.#read();
      this.#show();
      onChange();
    });
    this.#offer("state", [...STATES]);
    this.offer({ folders: [], runners: [] });
    this.#show();
    this.element = el(
      "search",
      { class: "list-filter" },
      el("label", { for: "search", class: "unseen" }, "Search"),
      this.#search,
      ...Object.values(this.#selects),
    );
  }

  /** Whether anything is left out. */
  get isActive() {
    return NAMES.some((name) => this.#values[name]);
  }

  /** Whether words are looked for: what has them only the gateway knows. */
  get query() {
    return new URLSearchParams(NAMES.filter((name) => this.#values[name]).map((name) => [name, this.#values[name]]));
  }

  /** What is left out, as `[name, in words]`. */
  get chosen() {
    const { q, state, folder, runner } = this.#values;
    const named = { q: `Text: “${q}”`, state: `State: ${STATES.get(state)}`, folder: `Folder: ${asText(folder)}`, runner: `Runner: ${asText(runner)}` };
    return NAMES.filter((name) => this.#values[name]).map((name) => [name, named[name]]);
  }

  /** Take one of them away. */
  drop(name) {
    this.#set({ [name]: "" });
    this.#search.focus();
  }

  /** Show all again. */
  clear() {
    this.#set(Object.fromEntries(NAMES.map((name) => [name, ""])));
    this.#search.focus();
  }

  /** Offer the folders and the runners that there are. */
  offer({ folders, runners }) {
    const chosen = this.#values;
    this.#offer("folder", [["", "All folders"], ...named(folders, chosen.folder)]);
    this.#offer("runner", [["", "All runners"], ...named(runners, chosen.runner)]);
    this.#selects.runner.hidden = runners.length < 2 && !chosen.runner;
    this.#selects.folder.hidden = folders.length < 2 && !chosen.folder;
  }

  #offer(name, choices) {
    const select = this.#selects[name];
    const text = JSON.stringify(choices);
    if (select.dataset.choices === text) return;
    select.dataset.choices = text;
    select.replaceChildren(...choices.map(([value, label]) => el("option", { value }, label)));
    select.value = this.#values[name];
  }

  #read() {
    const query = new URLSearchParams(location.search);
    for (const name of NAMES) this.#values[name] = query.get(name) ?? "";
    if (!STATES.has(this.#values.state)) this.#values.state = "";
    this.#values.q = this.#values.q.slice(0, MAX_TEXT);
  }

  #show() {
    // What is being typed stays as it is, with the blank at its end.
    if (this.#search.value.trim() !== this.#values.q) this.#search.value = this.#values.q;
    this.offer({ folders: this.#listed("folder"), runners: this.#listed("runner") });
    for (const [name, select] of Object.entries(this.#selects)) select.value = this.#values[name];
  }

  #listed(name) {
    return [...this.#selects[name].options].map((option) => option.value).filter(Boolean);
  }

  #set(changes) {
    const before = String(this.query);
    Object.assign(this.#values, changes);
    const query = String(this.query);
    if (query === before) return;
    const address = query ? `?${query}` : location.pathname;
    // Back leads out of what was typed, not through its letters.
    if ("q" in changes && before.includes("q=") && query.includes("q=")) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
    this.#show();
    this.#onChange();
  }
}

/** Return choices with their labels: folders by their last names, where those are enough. */
function named(values, chosen) {
  const all = chosen && !values.includes(chosen) ? [chosen, ...values] : values;
  const last = (path) => asText(path).split(/[\\/]/).filter(Boolean).at(-1) ?? asText(path);
  const counts = new Map();
  for (const each of all) counts.set(last(each), (counts.get(last(each)) ?? 0) + 1);
  return all.map((each) => [each, counts.get(last(each)) > 1 ? asText(each) : last(each)]);
}
