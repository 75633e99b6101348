/** The list of runs in its groups, kept up to date: who needs somebody, what goes on, what is done. */

import { ApiError, get, retrying } from "./api.js";
import { canRemove, confirmRemoval, openMenu } from "./run-actions.js";
import { actionButton, el, setText } from "./dom.js";
import { ListFilter } from "./list-filter.js";
import { LiveStream } from "./live-stream.js";
import { openNewRun } from "./new-run.js";
import { setTitle, showConnection, showCount } from "./notices.js";
import { RunRow } from "./run-row.js";
import { say } from "./toast.js";
import { attempt, nextFrame } from "./turns.js";
import { asText, newer } from "./values.js";
import { Waits } from "./waits.js";
import { folderName, lineOf, title } from "./words.js";

const PAGE_RUNS = 50;
const MAX_PAGE_RUNS = 200;
const CLOCK_MS = 10_000;
const REFRESH_MS = 60_000;
const RELOAD_MS = 1000;
const GROUPS = new Map([["needs", "Needs you"], ["working", "Working"], ["pending", "Not started"], ["done", "Done"]]);

export class RunsPage {
  #lines = new Map(); // id -> what the list shows of a run
  #rows = new Map(); // id -> RunRow
  #groups = new Map(); // stage -> its ids in order, and its elements
  #counts = null;
  #picked = new Set();
  #isPicking = false;
  #isWaiting = false;
  #asked = 0; // counts the questions, whose answers may overtake each other
  #shown = null; // the query of what is shown
  #reloading;
  #reloadedAt = 0;
  #waits = new Waits();
  #isRetrying = false;
  #summary = el("p", { class: "list-summary" });
  #filter = new ListFilter(() => this.#load());
  #state = el("div", { class: "empty" }, el("p", { class: "loading" }, "Loading the runs…"));
  #problem = el("p", { class: "notice bad", role: "alert", hidden: true });
  #pick = el("button", { type: "button", class: "plain", "aria-pressed": "false", onclick: () => this.#setPicking(!this.#isPicking) }, "Select");
  #bar = this.#buildBar();

  constructor() {
    const sections = [...GROUPS].map(([stage, label]) => this.#buildGroup(stage, label));
    this.element = el(
      "div",
      { class: "runs-page" },
      el(
        "div",
        { class: "page-head" },
        el("h1", {}, "Runs"),
        this.#summary,
        this.#pick,
        el("button", { type: "button", class: "primary", onclick: () => openNewRun() }, "New Run"),
      ),
      this.#filter.element,
      this.#problem,
      this.#state,
      sections,
      this.#bar,
    );
  }

  /** Load the list and follow it. */
  async open() {
    setTitle("Runs");
    setInterval(() => this.#draw(), CLOCK_MS);
    // Of what falls silent nothing comes.
    setInterval(() => document.visibilityState === "visible" && this.#reloadSoon(), REFRESH_MS);
    const stream = new LiveStream("/api/stream", {
      onMessage: (name, content) => {
        if (name === "run") this.#take(content);
        else if (name === "removed") this.#remove(content.ids);
      },
      onState: (state) => {
        showConnection(state);
        // What changed before the stream was there, or while it was away, comes with the list.
        if (state === "live") this.#load();
        else if (!this.#counts && state === "offline") this.#tellProblem(retrying({ status: 0 }));
      },
    });
    await stream.run();
  }

  #buildGroup(stage, label) {
    const count = el("span", { class: "group-count" });
    const list = el("ul", { class: "runs" });
    const more = actionButton("Show more", { class: "plain more-runs", hidden: true }, () => this.#loadMore(stage), (sentence) => this.#tellProblem(sentence));
    const element = el("section", { class: `group ${stage}`, "aria-labelledby": `group-${stage}`, hidden: true }, el("h2", { id: `group-${stage}` }, label, " ", count), list, more);
    this.#groups.set(stage, { ids: [], count: 0, next: null, element, list, counted: count, more });
    return element;
  }

  #buildBar() {
    const count = el("span", { class: "picked-count", role: "status" });
    const all = el("button", { type: "button", onclick: () => this.#pickAll() }, "All shown");
    const remove = el("button", { type: "button", class: "danger", onclick: () => this.#confirmRemoval() }, "Delete…");
    const bar = el("div", { class: "pick-bar", hidden: true }, count, el("div", { class: "button-row" }, all, remove, el("button", { type: "button", class: "plain", onclick: () => this.#setPicking(false) }, "Cancel")));
    return Object.assign(bar, { count, remove });
  }

  // --- what comes from the gateway ---

  /** Load what the list shows; if that fails, say so and do it again. */
  async #load() {
    try {
      await this.#loadOnce();
      this.#waits.failures = 0;
    } catch (error) {
      const mayPass = error instanceof ApiError;
      this.#tellProblem(mayPass ? retrying(error) : asText(error.message));
      if (!mayPass || this.#isRetrying) return;
      this.#isRetrying = true;
      await this.#waits.afterFailure();
      this.#isRetrying = false;
      this.#load();
    }
  }

  async #loadOnce() {
    const asked = (this.#asked += 1);
    this.#reloadedAt = performance.now();
    const query = this.#filter.query;
    const shown = Math.max(...[...this.#groups.values()].map((group) => group.ids.length));
    const wanted = String(query);
    const isOther = wanted !== this.#shown;
    query.set("limit", String(Math.min(MAX_PAGE_RUNS, Math.max(PAGE_RUNS, isOther ? 0 : shown))));
    const answer = await get(`/api/list?${query}`);
    if (asked !== this.#asked) return;
    this.#shown = wanted;
    this.#problem.hidden = true;
    this.#counts = answer.counts;
    this.#filter.offer(answer);
    const kept = new Set();
    for (const group of answer.groups) this.#takeGroup(group, isOther).forEach((id) => kept.add(id));
    for (const id of this.#lines.keys()) if (!kept.has(id)) this.#forget(id);
    this.#draw();
  }

  /** Take the first page of a group, and keep behind it what was loaded before. */
  #takeGroup({ stage, count, runs, next }, isOther) {
    const group = this.#groups.get(stage);
    this.#know(runs);
    const first = runs.map((run) => run.id);
    const end = runs.at(-1);
    const known = new Set(first);
    const isBehind = (id) => !known.has(id) && this.#lines.get(id)?.stage === stage && end && this.#lines.get(id).stage_at <= end.stage_at;
    const rest = next && !isOther ? group.ids.filter(isBehind) : [];
    Object.assign(group, { ids: [...first, ...rest], count, next: rest.length ? group.next : next });
    return group.ids;
  }

  async #loadMore(stage) {
    const group = this.#groups.get(stage);
    const query = this.#filter.query;
    const wanted = String(query);
    query.set("stage", stage);
    query.set("after", group.next);
    query.set("limit", String(PAGE_RUNS));
    const { groups: [page] } = await get(`/api/list?${query}`);
    if (wanted !== this.#shown) return;
    this.#know(page.runs);
    const known = new Set(group.ids);
    const [firstNew] = page.runs.filter((run) => !known.has(run.id));
    group.ids.push(...page.runs.map((run) => run.id).filter((id) => !known.has(id)));
    group.next = page.next;
    this.#draw();
    // The button may be gone; the reader goes on where the new ones begin.
    if (firstNew) this.#rows.get(firstNew.id).element.querySelector("a").focus();
  }

  #know(lines) {
    for (const line of lines) this.#lines.set(line.id, newer(this.#lines.get(line.id), line));
  }

  /** Take what came live: a run that is in sight changes at once, and the gateway says what else. */
  #take(run) {
    const known = this.#lines.get(run.id);
    const silent = known?.silent && run.last_event_id === known.last_event_id;
    const line = newer(known, { ...known, silent, ...lineOf(run) });
    const isMoved = known?.stage !== line.stage;
    if (known || !this.#filter.isActive) {
      this.#lines.set(run.id, line);
      if (isMoved) {
        for (const group of this.#groups.values()) group.ids = group.ids.filter((id) => id !== run.id);
        this.#groups.get(line.stage)?.ids.unshift(run.id);
      }
    }
    if (isMoved || known?.seen_at !== line.seen_at || known?.title !== line.title || known?.kept !== line.kept) this.#reloadSoon();
    this.#drawSoon();
  }

  #reloadSoon() {
    if (this.#reloading) return;
    const wait = Math.max(RELOAD_MS / 10, this.#reloadedAt + RELOAD_MS - performance.now());
    this.#reloading = setTimeout(() => {
      this.#reloading = undefined;
      this.#load();
    }, wait);
  }

  #remove(ids) {
    for (const id of ids) {
      for (const group of this.#groups.values()) group.ids = group.ids.filter((each) => each !== id);
      this.#forget(id);
    }
    this.#reloadSoon();
    this.#drawSoon();
  }

  #forget(id) {
    this.#lines.delete(id);
    this.#picked.delete(id);
    this.#rows.get(id)?.element.remove();
    this.#rows.delete(id);
  }

  // --- drawing ---

  /** Draw once for all that changes before the next frame. */
  async #drawSoon() {
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    await nextFrame();
    this.#isWaiting = false;
    this.#draw();
  }

  #draw() {
    if (!this.#counts) return;
    const names = new Map();
    const folders = new Map(); // name -> the paths that end with it
    for (const line of this.#lines.values()) {
      names.set(title(line), (names.get(title(line)) ?? 0) + 1);
      const name = folderName(line.working_dir);
      folders.set(name, (folders.get(name) ?? new Set()).add(line.working_dir));
    }
    const focused = document.activeElement;
    let total = 0;
    for (const group of this.#groups.values()) {
      total += group.ids.length;
      this.#drawGroup(group, names, folders);
    }
    // Whatever was moved has lost it.
    if (focused !== document.activeElement && this.element.contains(focused)) focused.focus({ preventScroll: true });
    this.#tellEmpty(total);
    this.#pick.hidden = !total && !this.#isPicking;
    this.#drawCounts();
    this.#drawBar();
  }

  #drawGroup(group, names, folders) {
    group.ids.forEach((id, index) => {
      const line = this.#lines.get(id);
      let row = this.#rows.get(id);
      if (!row) this.#rows.set(id, (row = new RunRow(id, openMenu, (...picked) => this.#notePick(...picked))));
      attempt(() => {
        row.update(line, names.get(title(line)) > 1, folders.get(folderName(line.working_dir)).size > 1 ? 2 : 1, this.#filter.query.get("q") ?? "");
        row.offerPick(this.#isPicking, this.#picked.has(id));
      });
      // Moving an element that is in its place already would take the focus from it.
      const there = group.list.children[index];
      if (there !== row.element) group.list.insertBefore(row.element, there ?? null);
    });
    while (group.list.children.length > group.ids.length) group.list.lastChild.remove();
    group.element.hidden = !group.ids.length;
    setText(group.counted, String(Math.max(group.count, group.ids.length)));
    group.more.hidden = group.next === null;
  }

  #drawCounts() {
    const { needs, working, unseen } = this.#counts;
    const parts = [needs && `${needs} ${needs === 1 ? "needs" : "need"} you`, working && `${working} working`, unseen && `${unseen} new`].filter(Boolean);
    setText(this.#summary, parts.join(" · "));
    this.#summary.classList.toggle("waiting", needs > 0);
    setTitle("Runs", needs ? `(${needs} waiting)` : "", needs > 0, needs);
    showCount(needs);
  }

  #tellEmpty(total) {
    const { chosen } = this.#filter;
    const kind = total ? "" : JSON.stringify(chosen);
    if (this.#state.dataset.kind === kind) return;
    this.#state.dataset.kind = kind;
    if (total) return this.#state.replaceChildren();
    if (chosen.length) return this.#state.replaceChildren(...this.#nothingFound(chosen));
    this.#state.replaceChildren(
      el("h2", {}, "No runs yet"),
      el("p", {}, "Press New Run, and paste the line that you get into a terminal, in the folder of your project."),
    );
  }

  /** Say which filters leave out all runs, each with a button that takes it off. */
  #nothingFound(chosen) {
    const chips = chosen.map(([name, words]) =>
      el("li", {}, el("button", { type: "button", "aria-label": `Take off: ${words}`, onclick: () => this.#filter.drop(name) }, `${words} ✕`)),
    );
    const isSearch = chosen.some(([name]) => name === "q");
    return [
      el("h2", {}, "Nothing found"),
      el("p", {}, chosen.length > 1 ? "No run fits all of these:" : "No run fits this:"),
      el("ul", { class: "button-row" }, chips),
      isSearch && el("p", { class: "hint" }, "Words are looked for in titles, prompts, folders and output: a word, or its beginning from three letters on."),
      chosen.length > 1 && el("p", {}, el("button", { type: "button", class: "plain", onclick: () => this.#filter.clear() }, "Show all runs")),
    ].filter(Boolean);
  }

  #tellProblem(sentence) {
    if (!this.#counts) this.#state.replaceChildren();
    setText(this.#problem, sentence);
    this.#problem.hidden = false;
  }

  // --- choosing many ---

  #setPicking(isPicking) {
    this.#isPicking = isPicking;
    this.#picked.clear();
    this.#pick.setAttribute("aria-pressed", String(isPicking));
    this.#draw();
    if (!isPicking) this.#pick.focus();
  }

  #notePick(id, isPicked) {
    if (isPicked) this.#picked.add(id);
    else this.#picked.delete(id);
    this.#drawBar();
  }

  #pickAll() {
    for (const line of this.#lines.values()) if (canRemove(line)) this.#picked.add(line.id);
    this.#draw();
  }

  #drawBar() {
    this.#bar.hidden = !this.#isPicking;
    this.element.classList.toggle("picking", this.#isPicking);
    setText(this.#bar.count, this.#picked.size ? `${this.#picked.size} selected` : "Choose runs; those that go on stay");
    this.#bar.remove.disabled = !this.#picked.size;
  }

  #confirmRemoval() {
    const lines = [...this.#picked].map((id) => this.#lines.get(id)).filter(Boolean).slice(0, MAX_PAGE_RUNS);
    confirmRemoval(lines, (removed) => {
      this.#remove(removed);
      this.#setPicking(false);
      say(`${removed.length} ${removed.length === 1 ? "run" : "runs"} deleted.`);
    });
  }
}
