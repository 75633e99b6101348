/** One run: what it prints, what it is, and what can be done with it. */

import { wordOf } from "./address.js";
import { ApiError, get, retrying } from "./api.js";
import { Artifacts } from "./artifacts.js";
import { Assist } from "./assist.js";
import { BASE } from "./base.js";
import { Changes } from "./changes.js";
import { Dock } from "./dock.js";
import { el, setText } from "./dom.js";
import { GoOn } from "./go-on.js";
import { LiveStream } from "./live-stream.js";
import { Looks } from "./looks.js";
import { announce, setTitle, showConnection } from "./notices.js";
import { Order } from "./order.js";
import { firstPage, Output } from "./output.js";
import { RunActions } from "./run-actions.js";
import { RunControls } from "./run-controls.js";
import { RunStanding } from "./run-standing.js";
import { RunTabs } from "./run-tabs.js";
import { SideLog } from "./side-log.js";
import { Talk } from "./talk.js";
import { fail } from "./toast.js";
import { asText, newer } from "./values.js";
import { Waits } from "./waits.js";
import { age, ending, lasted, many, moment, resultFacts, status, title, waited } from "./words.js";

const CLOCK_MS = 1000;
const REFRESH_MS = 60_000;
// Stands for a part that could not be made.
const NOTHING = { element: "", cards: "", modes: "", history: "", newestId: 0, update() {}, show() {}, showCommand() {}, append() {}, async load() {}, async draw() {} };
const MARKS = { waiting: "●", done: "✓", failed: "✗", ended: "■" };

export class RunPage {
  #id;
  #path;
  #run = null;
  #heading = el("h1", { class: "run-heading" }, "Run");
  #badge = el("span", { class: "badge" });
  #when = el("span", {});
  #facts = el("dl", { class: "facts" });
  #trouble = el("div", { role: "alert" });
  #banner = el("div", { class: "banner-place" });
  #columns = el("div", { class: "columns" }, el("p", { class: "loading" }, "Loading the run…"));
  #drawn = new Map(); // element -> what it shows, as text
  #log = new SideLog();
  #output;
  #controls;
  #artifacts;
  #assist = new Assist();
  #goOn = new GoOn();
  #order;
  #actions = new RunActions();
  #talk;
  #dock;
  #standing = new RunStanding();
  #tabs = new RunTabs((view, file) => this.#showView(view, file));
  #changes;

  /** What stops the run is there first, and needs nothing of what the run has said. */
  constructor(id) {
    this.#id = id;
    this.#path = `/api/runs/${encodeURIComponent(id)}`;
    this.#talk = this.#attempt(() => new Talk(id)) ?? NOTHING;
    this.#controls = new RunControls(id);
    this.#changes = new Changes(this.#path, (files) => this.#tabs.count(files));
    this.#order = this.#attempt(() => new Order(id)) ?? NOTHING;
    const line = el("div", { class: "run-line" }, this.#badge, this.#when, this.#standing.element, this.#standing.tick);
    const side = () => this.#columns.querySelector(":scope > .side");
    this.#dock = new Dock([
      [this.#talk.element, (element) => side()?.prepend(element)],
      [this.#controls.typing, () => this.#controls.takeTyping()],
      [this.#goOn.button, (element) => element.remove()],
      [this.#controls.stopping, (element) => line.append(element)],
    ], this.#talk.cards);
    this.element = el(
      "div",
      { class: "run-page" },
      el("div", { class: "run-head" }, el("a", { class: "back", href: `${BASE}/` }, "All runs"), this.#heading, line),
      this.#talk.cards,
      this.#trouble,
      this.#order.element,
      this.#actions.start,
      this.#banner,
      this.#tabs.element,
      this.#columns,
      this.#dock.element,
    );
    this.#dock.arrange();
    this.#changes.element.addEventListener("click", (event) => this.#tabs.follow(event));
  }

  #showView(view, file) {
    this.#columns.dataset.view = view;
    this.#changes.element.hidden = view !== "changes";
    this.#attempt(() => this.#changes.open(view === "changes", file));
  }

  /** Load the run and follow it. */
  async open() {
    setTitle("Run");
    // What is seen first is asked for at once, and not when the run is known.
    const first = firstPage(this.#path);
    if (wordOf("tab") === "changes") this.#changes.load();
    const isThere = await this.#untilThere(async () => {
      const run = await get(this.#path);
      this.#build(run, first);
      this.#tabs.tell();
      this.#update(run);
    });
    if (!isThere || !(await this.#untilThere(() => this.#loadOutput()))) return;
    setInterval(() => this.#attempt(() => this.#tick()), CLOCK_MS);
    // Of what falls silent nothing comes.
    setInterval(() => this.#refresh(), REFRESH_MS);
    const looks = new Looks(this.#path);
    const stream = new LiveStream(`${this.#path}/stream`, {
      after: this.#output.newestId,
      onMessage: (name, data) => this.#attempt(() => this.#receive(name, data)),
      onState: (state) => {
        showConnection(state);
        looks.isLive = state === "live";
        if (state === "live") this.#loadRest().catch((error) => fail(error.message));
      },
    });
    await stream.run();
  }

  async #loadOutput() {
    try {
      await this.#output.load();
      this.#trouble.replaceChildren();
      this.#output.draw().catch((error) => this.#tellTrouble(error));
    } catch (error) {
      if (error instanceof ApiError) throw error;
      this.#tellTrouble(error);
    }
  }

  /** Do it until it succeeds; return whether it did: of a run that is not there nothing comes. */
  async #untilThere(load) {
    const waits = new Waits();
    for (;;) {
      try {
        await load();
        return true;
      } catch (error) {
        const mayPass = error instanceof ApiError && error.status !== 404;
        this.#tellProblem(error, mayPass && (() => waits.end()));
        if (!mayPass) return false;
        await waits.afterFailure();
      }
    }
  }

  /** Do something for a part of the page, and return what it returns; if it fails, the others go on. */
  #attempt(task) {
    try {
      return task();
    } catch (error) {
      this.#tellTrouble(error);
      return undefined;
    }
  }

  #tellTrouble(error) {
    console.error(error);
    const sentence = `A part of this page cannot be drawn (${asText(error?.message)}). The buttons work.`;
    this.#trouble.replaceChildren(el("p", { class: "notice bad" }, sentence));
  }

  /** What has no event id, and so may have been missed while the stream was away. */
  async #loadRest() {
    const [run, { commands }, { artifacts }] = await Promise.all([
      get(this.#path),
      get(`${this.#path}/history`),
      get(`${this.#path}/artifacts`),
    ]);
    for (const command of commands) this.#showCommand(command);
    for (const artifact of artifacts) this.#showArtifact(artifact);
    this.#update(run);
  }

  async #refresh() {
    if (this.#run.status !== "running" || document.visibilityState !== "visible") return;
    try {
      this.#update(await get(this.#path));
    } catch {
      // The stream tells what is wrong.
    }
  }

  #receive(name, data) {
    if (name === "event") this.#output.append(data);
    else if (name === "run") this.#update(data);
    else if (name === "command") this.#showCommand(data);
    else if (name === "artifact") this.#showArtifact(data);
    else if (name === "removed") this.#tellProblem({ status: 404 });
  }

  #showArtifact(artifact) {
    this.#attempt(() => this.#artifacts.show(artifact));
    this.#attempt(() => this.#changes.show(artifact));
  }

  #showCommand(command) {
    this.#attempt(() => this.#controls.show(command));
    this.#attempt(() => this.#talk.showCommand(command));
  }

  #build(run, first) {
    const made = (make) => this.#attempt(make) ?? NOTHING;
    this.#output = made(() => new Output(run, first, (events) => this.#attempt(() => this.#log.add(events))));
    this.#artifacts = made(() => new Artifacts(run));
    this.#columns.replaceChildren(
      this.#output.element,
      this.#changes.element,
      el(
        "div",
        { class: "side" },
        this.#actions.element,
        this.#goOn.element,
        this.#talk.modes,
        this.#controls.element,
        this.#assist.element,
        this.#talk.history,
        this.#artifacts.element,
        this.#log.element,
        el("section", { class: "card", "aria-labelledby": "facts-title" }, el("h2", { id: "facts-title" }, "About this run"), this.#facts),
      ),
    );
    this.#dock.arrange();
    const frame = this.#columns.querySelector(".pane-frame");
    if (frame) this.#dock.giveRoom(frame);
  }

  #update(loaded) {
    const before = this.#run && status(this.#run);
    const run = (this.#run = newer(this.#run, loaded));
    for (const part of [this.#controls, this.#talk, this.#order]) this.#attempt(() => part.update(run));
    const [kind, word] = status(run);
    this.#attempt(() => {
      setText(this.#heading, title(run));
      this.#badge.className = `badge ${kind}`;
      setText(this.#badge, word);
      setTitle(title(run).slice(0, 60), MARKS[kind], run.open_questions > 0);
      this.#tick();
    });
    for (const part of [this.#standing, this.#output, this.#changes, this.#artifacts, this.#assist, this.#goOn, this.#actions]) this.#attempt(() => part.update(run));
    this.#attempt(() => this.#drawFacts());
    this.#attempt(() => this.#drawBanner(kind, word));
    // What it asks tells of itself.
    if (before && before[0] !== kind && kind !== "running" && !run.open_questions) announce(word);
  }

  #tick() {
    const run = this.#run;
    if (run.status === "pending") setText(this.#when, `created ${age(run.created_at)}`);
    else if (run.status === "running") setText(this.#when, `for ${run.stage === "needs" ? waited(run) : lasted(run)}`);
    else setText(this.#when, `${age(run.finished_at ?? run.created_at)}, after ${lasted(run)}`);
  }

  #drawBanner(kind, word) {
    const run = this.#run;
    const banners = [];
    // What it asks says that for itself.
    if (kind === "waiting" && !run.open_questions) {
      banners.push(el("p", { class: "notice waiting" }, run.listens ? "Its turn is over. It waits for your message." : "It waits for an answer, or for a new task."));
    }
    // That it has finished, and when, stands above.
    if (run.status === "failed" || (run.status === "done" && kind !== "done")) {
      banners.push(el("p", { class: `notice ${kind}` }, ending(run)));
    }
    if (run.verdict?.ok === false) {
      const { sentence, differences = [] } = run.verdict;
      banners.push(
        el(
          "div",
          { class: "notice verdict bad" },
          el("p", {}, sentence),
          differences.length > 0 && el("ul", {}, differences.map((difference) => el("li", {}, difference))),
        ),
      );
    }
    this.#draw(this.#banner, [kind, word, run.verdict, run.reason], banners);
  }

  /** Show these children, unless what they are made from is shown already. */
  #draw(element, content, children) {
    const text = JSON.stringify(content);
    if (this.#drawn.get(element) === text) return;
    this.#drawn.set(element, text);
    element.replaceChildren(...children);
  }

  #drawFacts() {
    const run = this.#run;
    const facts = [
      ["Command", run.command_line],
      ["Folder", run.working_dir ?? run.sent_to],
      ["Branch", run.branch],
      ["Mode", run.mode && (run.mode === "interactive" ? "interactive, a session" : "print, a job")],
      ["Terminal", run.mode === "interactive" && run.columns ? `${run.columns} × ${run.lines}` : null],
      ["Created", moment(run.created_at)],
      ["Started", run.started_at && moment(run.started_at)],
      ["Ended", run.finished_at && moment(run.finished_at)],
      ["Events", run.event_count ? many(run.event_count) : null],
      ...(run.result ? resultFacts(run.result) : []),
      ["Session", run.session_id],
      ["Run", run.id],
    ].map(([label, value]) => [label, asText(value)]).filter(([, text]) => text);
    this.#draw(this.#facts, facts, facts.map(([label, text]) => el("div", {}, el("dt", {}, label), el("dd", {}, text))));
  }

  #tellProblem(error, tryAgain) {
    const isGone = error.status === 404;
    const sentence = isGone ? `There is no run ${this.#id} here. It may have been deleted.` : tryAgain ? retrying(error) : asText(error.message);
    const again = tryAgain && el("button", { type: "button", onclick: tryAgain }, "Try now");
    showConnection(isGone ? "gone" : "offline");
    const problem = el("div", { class: "empty" }, el("p", { class: "notice bad", role: (isGone || !this.#output) && "alert" }, sentence), el("p", { class: "button-row" }, again, el("a", { class: "button", href: `${BASE}/` }, "All runs")));
    if (isGone) this.element.replaceChildren(problem);
    else if (this.#output) this.#trouble.replaceChildren(problem);
    else this.#columns.replaceChildren(problem, this.#controls.element);
  }
}
