/** The list of runs, newest first, kept up to date. */

import { get } from "./api.js";
import { BASE } from "./base.js";
import { actionButton, el } from "./dom.js";
import { LiveStream } from "./live-stream.js";
import { openNewRun } from "./new-run.js";
import { announce, setTitle, showConnection } from "./notices.js";
import { attempt, nextFrame } from "./turns.js";
import { asText, newer } from "./values.js";
import { age, lasted, moment, refusedTools, status, title } from "./words.js";

const PAGE_RUNS = 50;
const CLOCK_MS = 10_000;

export class RunsPage {
  #runs = new Map(); // id -> run
  #rows = new Map(); // id -> {element, content}
  #next = null;
  #isWaiting = false;
  #list = el("ul", { class: "runs" });
  #state = el("div", { class: "empty" }, el("p", { class: "loading" }, "Loading the runs…"));
  #older = actionButton("Show older runs", { class: "plain", hidden: true }, () => this.#loadOlder(), announce);

  constructor() {
    this.element = el(
      "div",
      { class: "runs-page" },
      el(
        "div",
        { class: "page-head" },
        el("h1", {}, "Runs"),
        el("button", { type: "button", class: "primary", onclick: () => openNewRun() }, "New Run"),
      ),
      this.#state,
      this.#list,
      this.#older,
    );
  }

  /** Load the list and follow it. */
  async open() {
    setTitle("Runs");
    setInterval(() => this.#draw(), CLOCK_MS);
    const stream = new LiveStream("/api/stream", {
      onMessage: (name, run) => name === "run" && this.#take([run]),
      onState: (state) => {
        showConnection(state);
        // What changed before the stream was there, or while it was away, comes with the list.
        if (state === "live") this.#load().catch((error) => this.#tellProblem(error.message));
        else if (!this.#runs.size && state === "offline") this.#tellProblem("The gateway cannot be reached. This page tries again by itself.");
      },
    });
    await stream.run();
  }

  async #load() {
    // Those that wait come first, also if they are older than a page.
    const [page, waiting] = await Promise.all([get(`/api/runs?limit=${PAGE_RUNS}`), get("/api/runs?state=waiting")]);
    if (!this.#runs.size) this.#next = page.next;
    this.#take([...waiting.runs, ...page.runs]);
  }

  async #loadOlder() {
    const page = await get(`/api/runs?limit=${PAGE_RUNS}&before=${encodeURIComponent(this.#next)}`);
    this.#next = page.next;
    this.#take(page.runs);
  }

  #take(runs) {
    for (const run of runs) this.#runs.set(run.id, newer(this.#runs.get(run.id), run));
    this.#drawSoon();
  }

  /** Draw once for all that changes before the next frame. */
  async #drawSoon() {
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    await nextFrame();
    this.#isWaiting = false;
    this.#draw();
  }

  #draw() {
    const sorted = [...this.#runs.values()].sort((a, b) => urgency(b) - urgency(a) || b.created_at - a.created_at);
    sorted.forEach((run, index) => {
      let row = this.#rows.get(run.id);
      if (!row) this.#rows.set(run.id, (row = { element: buildRow(run) }));
      attempt(() => {
        const content = describe(run);
        if (row.content === JSON.stringify(content)) return;
        row.content = JSON.stringify(content);
        fillRow(row.element, content);
      });
      // Moving an element that is in its place already would take the focus from it.
      if (this.#list.children[index] !== row.element) this.#list.insertBefore(row.element, this.#list.children[index] ?? null);
    });
    this.#older.hidden = this.#next === null;
    if (sorted.length) this.#state.replaceChildren();
    else this.#tellEmpty();
    const waiting = sorted.filter((run) => status(run)[0] === "waiting").length;
    setTitle("Runs", waiting ? `(${waiting} waiting)` : "", sorted.some((run) => urgency(run) === 2));
  }

  #tellEmpty() {
    this.#state.replaceChildren(
      el("h2", {}, "No runs yet"),
      el("p", {}, "Press New Run, and paste the line that you get into a terminal, in the folder of your project."),
    );
  }

  #tellProblem(sentence) {
    if (this.#runs.size) announce(sentence);
    else this.#state.replaceChildren(el("p", { class: "notice bad", role: "alert" }, sentence));
  }
}

/** How much a run needs a person: it asks, it waits, or neither. */
function urgency(run) {
  if (status(run)[0] !== "waiting") return 0;
  return run.open_questions ? 2 : 1;
}

function describe(run) {
  const [kind, word] = status(run);
  const isOver = run.status === "done" || run.status === "failed";
  const folder = asText(run.working_dir).split(/[\\/]/).filter(Boolean).at(-1);
  return {
    kind,
    word,
    title: title(run),
    folder,
    time: age(run.created_at),
    moment: moment(run.created_at),
    lasted: lasted(run),
    code: isOver && run.exit_code ? `exit code ${asText(run.exit_code)}` : "",
    asks: run.status === "running" && run.open_questions > 1 ? `${run.open_questions} questions` : "",
    refused: isOver ? refusedTools(run) : 0,
    isBad: run.verdict?.ok === false,
  };
}

function buildRow(run) {
  return el("li", {}, el("a", { class: "run", href: `${BASE}/runs/${encodeURIComponent(run.id)}` }));
}

function fillRow(row, content) {
  const facts = [content.folder, content.lasted, content.asks, content.code, content.refused && `${content.refused} ${content.refused === 1 ? "tool" : "tools"} refused`, content.isBad && "output incomplete"].filter(Boolean);
  row.firstChild.replaceChildren(
    el("span", { class: `badge ${content.kind}` }, content.word),
    el("span", { class: "run-title" }, content.title),
    el("span", { class: "run-facts" }, facts.join(" · ")),
    el("span", { class: "run-age", title: content.moment }, content.time),
  );
}
