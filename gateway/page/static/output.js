/**
 * A run's output: a window on its events, in one of three views.
 *
 * A run may have a million events, so only some are held: the last page at first, an earlier one
 * whenever the reader scrolls to the top, and what comes live. A view is a function of the events in
 * the window: after anything but an addition at the end it is drawn anew from all of them, and the
 * reader stays at the place where he was. What changes the window goes through one queue.
 */

import { lineOfAddress, setWord, wordOf } from "./address.js";
import { get } from "./api.js";
import { actionButton, el, setText } from "./dom.js";
import { ReadingTools } from "./reading-tools.js";
import { ReadingView } from "./reading-view.js";
import { redrawing, screenOf, ScreenView } from "./screen-view.js";
import { LAYOUT } from "./text-layout.js";
import { TextView } from "./text-view.js";
import { fail, say } from "./toast.js";
import { attempt } from "./turns.js";
import { asSize } from "./values.js";
import { isXtermInstalled, XtermView } from "./xterm-view.js";

const PAGE_EVENTS = 1000;
// What a page opens with, and what a reader who leaves the end gets: so many that no frame takes long.
const FIRST_EVENTS = 200;
const NEXT_EVENTS = 400;
// Of what is before a line that is gone to.
const BEFORE_EVENTS = 200;
// What comes before the window is not shown, and says whether the window begins inside of something.
const LEAD_EVENTS = 100;
// What is held before the farther end is let go. Drawing it anew takes about half a second.
const MAX_CHARS = 2_500_000;
const MAX_EVENTS = 10_000;
const LINE_CHARS = 80;
// Behind it a terminal shows nothing of what stood on the other screen; the text keeps that.
const LEFT_SCREEN = "\x1b[?1049l";
const DEFAULT_SIZE = { columns: 80, rows: 24 };

/** Ask for the newest events of a run, by its path in the API; null if another place is wanted. */
export function firstPage(path) {
  if (lineOfAddress()) return null;
  const asked = get(`${path}/events?limit=${FIRST_EVENTS}`);
  asked.catch(() => {}); // it is asked for again
  return asked;
}

export class Output {
  #path;
  #run;
  #first;
  #onEvents;
  #events = [];
  #chars = 0;
  #lead = []; // the events before the window, as far as they are known
  #hasBefore = false;
  #isShort = false; // whether the window has only what a page opens with
  #isLive = true; // whether the window reaches to the newest event
  #newestId = 0;
  #view = null;
  #kind = "";
  #drawn = 0; // how many of the window's events the view has
  #isDrawing = false;
  #isMoving = false; // whether the place that is seen is not yet the reader's
  #screen = null; // the gateway's picture of a session's screen, for a view that begins in the middle
  #due = null; // the same until it is drawn
  #queue = Promise.resolve();
  #isQueued = false;
  #pane = el("div", { class: "pane" });
  #empty = el("p", { class: "pane-empty", hidden: true });
  #earlier = actionButton("Show earlier output", { class: "plain", hidden: true }, () => this.#loadEarlier(), fail);
  #toEnd = actionButton("To the end", { class: "to-end", hidden: true }, () => this.#goToEnd(), fail);
  #kinds = el("div", { class: "segmented", role: "group", "aria-label": "Show the output as", hidden: true });
  #fold = el("button", { type: "button", class: "plain", "aria-pressed": "false", hidden: true, onclick: () => this.#foldTools() }, "Fold tools");
  #tools;
  #goal = null; // the line to go to once there is a view

  /**
   * `first` is what `firstPage` returned; `onEvents` is told of all events that are loaded, in whatever
   * order the pages come.
   */
  constructor(run, first, onEvents) {
    this.#path = `/api/runs/${encodeURIComponent(run.id)}/events`;
    this.#run = run;
    this.#first = first;
    this.#onEvents = onEvents;
    this.#tools = new ReadingTools(`/api/runs/${encodeURIComponent(run.id)}`, {
      goTo: (name) => this.goTo(name),
      firstSeen: () => this.#view?.firstSeen ?? "",
      deselect: () => this.#view?.deselect?.(),
    });
    this.#fold.setAttribute("aria-pressed", String(wordOf("tools") === "folded"));
    this.element = el(
      "section",
      { class: "output", "aria-labelledby": "output-title" },
      el("div", { class: "section-head output-head" }, el("h2", { id: "output-title" }, "Output"), this.#tools.buttons.slice(0, 3), this.#fold, this.#kinds, this.#tools.buttons.slice(3), this.#earlier),
      this.#tools.panel,
      el("div", { class: "pane-frame" }, this.#pane, this.#empty, this.#toEnd, this.#tools.bar),
    );
    addEventListener("hashchange", () => {
      const line = lineOfAddress();
      if (line) this.goTo(`${line.event}.${line.line}`).catch((error) => fail(error.message));
    });
  }

  /** The id of the newest event that is known: where the live stream goes on. */
  get newestId() {
    return this.#newestId;
  }

  /** Load the end of the output, or what is around the line that the address names. */
  async load() {
    const line = lineOfAddress();
    if (!line) return this.#loadEnd();
    this.#goal = line;
    await this.#loadAround(line.event);
  }

  /** Go to a line, by "event.line", wherever in the run it is. */
  goTo(name) {
    const [event, line] = name.split(".").map(Number);
    return this.#enqueue(async () => {
      const isHere = this.#events.length && this.#events[0].id <= event && event <= this.#events.at(-1).id;
      if (!isHere) await this.#loadAround(event);
      await this.#reveal(event, line, !isHere);
    });
  }

  /** Show it; the element has to be in the page. How long that takes, the run decides. */
  async draw() {
    this.#pane.setAttribute("aria-busy", "true");
    try {
      await this.#enqueue(async () => this.#show(await this.#fittingKind(wordOf("as"))));
      await this.#offerKinds();
      // What does not fill the pane cannot be scrolled.
      if (this.#isShort && this.#view.isAtStart) await this.#loadEarlier();
      this.#tools.start().catch((error) => fail(error.message));
    } catch (error) {
      this.#isLive = false; // nothing takes what comes, so none of it is held
      throw error;
    } finally {
      this.#pane.removeAttribute("aria-busy");
    }
  }

  /** Learn what the run is like now. */
  update(run) {
    const isOtherMode = run.mode !== this.#run.mode || run.layout !== this.#run.layout;
    this.#run = run;
    this.#tools.update(run);
    this.#tell();
    // Of a run that has not started the mode is not known, and the first view was a guess. It may be
    // on its way still.
    if (isOtherMode) {
      this.#enqueue(async () => this.#show(await this.#fittingKind(wordOf("as")))).catch((error) => fail(error.message));
      this.#offerKinds();
    }
  }

  /** Take an event that has just arrived. */
  append(event) {
    this.#newestId = event.id;
    this.#onEvents([event]);
    if (this.#isLive) {
      this.#hold([event]);
      if (!this.#isDrawing) this.#drawTo(this.#events.length);
      // Who reads further up keeps what he reads for a while longer.
      if (this.#view && this.#excess() > (this.#view.isAtEnd ? 1 : 2)) this.#enqueueOnce(() => this.#dropEarliest());
    }
    this.#tell();
  }

  // --- the window ----------------------------------------------------------------------------

  async #page(query, limit = PAGE_EVENTS) {
    const page = await get(`${this.#path}?${query}&limit=${limit}`);
    this.#onEvents(page.events);
    return page;
  }

  #hold(events) {
    this.#events.push(...events);
    this.#chars += chars(events);
  }

  /** How full the window is without its first events: 1 is as full as it should be. */
  #excess(gone = 0) {
    return Math.max((this.#events.length - gone) / MAX_EVENTS, this.#chars / MAX_CHARS);
  }

  /** Load the newest events: few of a text, which go on above, and more of a session, for its screen. */
  async #loadEnd() {
    const first = this.#first;
    this.#first = null;
    const page = (await first?.catch(() => null)) ?? (await get(`${this.#path}?limit=${FIRST_EVENTS}`));
    this.#isShort = page.has_before && this.#run.mode !== "interactive";
    if (page.has_before && !this.#isShort) {
      const { events, has_before } = await get(`${this.#path}?before=${page.events[0].id}&limit=${PAGE_EVENTS - page.events.length}`);
      page.events.unshift(...events);
      page.has_before = has_before;
    }
    this.#onEvents(page.events);
    const events = page.events;
    await this.#catchUp(events);
    this.#events = [];
    this.#chars = 0;
    this.#hold(events);
    this.#hasBefore = page.has_before;
    this.#isLive = true;
    this.#newestId = Math.max(this.#newestId, events.at(-1)?.id ?? 0);
    this.#takeLead();
  }

  /** Take the lead away from the window's beginning. */
  #takeLead() {
    const most = this.#hasBefore && this.#isReadable ? this.#events.length >> 2 : 0;
    this.#lead = this.#events.splice(0, Math.min(LEAD_EVENTS, most));
    this.#chars -= chars(this.#lead);
  }

  /** Add what came live meanwhile, which may be newer than a page. */
  async #catchUp(events) {
    while (events.length && events.at(-1).id < this.#newestId) {
      const more = await this.#page(`after=${events.at(-1).id}`);
      if (!more.events.length) break;
      events.push(...more.events);
    }
  }

  /** Hold what is around an event: some before it, and a page from it on. */
  async #loadAround(event) {
    this.#isShort = false;
    const [from, before] = await Promise.all([this.#page(`after=${event - 1}`), this.#page(`before=${event}`, BEFORE_EVENTS)]);
    const events = [...before.events, ...from.events];
    if (!from.has_after) await this.#catchUp(events);
    this.#events = [];
    this.#chars = 0;
    this.#hold(events);
    this.#hasBefore = before.has_before;
    this.#newestId = Math.max(this.#newestId, this.#run.last_event_id, this.#events.at(-1)?.id ?? 0);
    this.#isLive = !from.has_after;
    this.#takeLead();
  }

  async #reveal(event, line, isNew) {
    const name = `${event}.${line}`;
    if (this.#view.reveal) {
      if (isNew) await this.#drawAround(0, 0);
      if (!this.#view.reveal(name, wordOf("find"))) say("This line is not there.");
      return;
    }
    const index = this.#events.findIndex(({ id }) => id >= event);
    if (index < 0) return say("This line is not there.");
    await this.#drawAround(index, 0, line);
    this.#view.mark?.(wordOf("find"));
  }

  #loadEarlier() {
    return this.#enqueueOnce(async () => {
      if (!this.#hasBefore) return;
      const page = await this.#page(`before=${this.#events[0].id}`, this.#isShort ? NEXT_EVENTS : PAGE_EVENTS);
      const top = this.#view.distanceFromStart;
      if (this.#isShort) {
        this.#isShort = false;
        this.#dropBegin(page);
        if (!page.events.length) return;
      }
      this.#events.unshift(...page.events);
      this.#chars += chars(page.events);
      this.#hasBefore = page.has_before;
      const most = page.events.length + 1; // what is seen now stands behind the page
      while (this.#excess() > 1 && this.#events.length > most) {
        this.#chars -= chars([this.#events.pop()]);
        this.#isLive = false;
      }
      this.#takeLead();
      await this.#drawAround(page.events.length - this.#lead.length, top);
    });
  }

  /** Leave out the beginning of a page for which there is no room: who reads near the end keeps that. */
  #dropBegin(page) {
    let room = MAX_CHARS - this.#chars;
    let kept = page.events.length;
    while (kept && (room -= chars([page.events[kept - 1]])) > 0) kept -= 1;
    page.has_before ||= kept > 0;
    page.events.splice(0, kept);
  }

  #loadLater() {
    return this.#enqueueOnce(async () => {
      if (this.#isLive) return;
      const page = await this.#page(`after=${this.#events.at(-1).id}`);
      const fromEnd = this.#view.distanceFromStart - this.#view.extent;
      this.#hold(page.events);
      this.#isLive = this.#events.at(-1).id >= this.#newestId;
      await this.#dropEarliest(page.events.length, fromEnd);
    });
  }

  /** Let go of the earliest events, and keep what is seen in its place. */
  async #dropEarliest(added = 0, fromEnd = this.#view.distanceFromStart - this.#view.extent) {
    const isAtEnd = this.#view.isAtEnd && !added;
    let gone = 0;
    while (this.#excess(gone) > 0.75 && this.#events.length - gone > added + 1) {
      this.#chars -= chars([this.#events[gone]]);
      gone += 1;
    }
    this.#lead = [...this.#lead, ...this.#events.splice(0, gone)].slice(-LEAD_EVENTS);
    this.#hasBefore ||= gone > 0;
    await this.#drawAround(this.#events.length - added, fromEnd);
    if (isAtEnd) this.#view.scrollToEnd();
  }

  #goToEnd() {
    return this.#enqueue(async () => {
      if (!this.#isLive) {
        await this.#loadEnd();
        await this.#drawAround(0, 0);
      }
      this.#view.scrollToEnd();
      this.#view.focus();
      this.#tell();
    });
  }

  #enqueue(task) {
    const result = this.#queue.then(task).finally(() => this.#tell());
    this.#queue = result.catch(() => {});
    return result;
  }

  /** Do it unless something of this kind is waiting already: scrolling asks many times. */
  async #enqueueOnce(task) {
    if (this.#isQueued) return;
    this.#isQueued = true;
    await this.#enqueue(task).finally(() => (this.#isQueued = false));
  }

  // --- the view ------------------------------------------------------------------------------

  async #fittingKind(wanted) {
    const finer = await this.#finerKind();
    if (wanted === "text" || (wanted && wanted === finer?.[0])) return wanted;
    if (this.#isReadable) return "reading";
    // A run without a terminal of its own is text, which fits any width; only a session needs a screen.
    if (this.#run.mode !== "interactive") return "text";
    // What a program has left on its screen when it ended is little; its text is all there is.
    if (this.#run.status === "running") return finer[0];
    return finer[0] === "terminal" && !this.#events.some(({ data }) => data.includes(LEFT_SCREEN)) ? finer[0] : "text";
  }

  async #show(kind) {
    const view = await this.#makeView(kind);
    // A screen is drawn over and over: a place in it is a line of what both views show, not of the events.
    const lines = this.#run.mode === "interactive" && !this.#view?.isAtEnd ? this.#view?.linesToEnd : undefined;
    const place = lines === undefined ? this.#place : null;
    this.#view?.dispose();
    this.#view = view;
    this.#kind = kind;
    this.#pane.replaceChildren(view.element);
    view.attached?.();
    view.onScroll = () => this.#onScroll();
    const index = place ? this.#events.findIndex(({ id }) => id >= place.event) : 0;
    await this.#drawAround(Math.max(0, index), 0, place?.line);
    if (lines !== undefined && "linesToEnd" in view) view.linesToEnd = lines;
    else if (!place) view.scrollToEnd();
    else if (view.redraw) view.place = `${place.event}.${place.line}`;
    const goal = this.#goal;
    this.#goal = null;
    if (goal) await this.#reveal(goal.event, goal.line, false);
    this.#tell();
  }

  /** The line that is seen first, as `{event, line}`; null at the end, or where it is not known. */
  get #place() {
    const view = this.#view;
    if (!view || view.isAtEnd) return null;
    if (view.lineSeen !== undefined) return lineNumbered(this.#events, view.lineSeen);
    const [event, line] = (view.place ?? "").split(".").map(Number);
    return event ? { event, line } : null;
  }

  async #makeView(kind) {
    if (kind === "screen") return new ScreenView(this.#runPath);
    // Before what the window holds a session may have drawn half of its screen.
    const isLate = kind === "terminal" && this.#hasBefore && this.#run.mode === "interactive";
    this.#screen = isLate ? await screenOf(this.#runPath) : null;
    if (kind === "terminal") return XtermView.create(this.#size);
    if (kind === "text") return new TextView(this.#size);
    return new ReadingView({
      isFolded: wordOf("tools") === "folded",
      onSelect: (name, block, text) => this.#tools.choose(name, block, text),
    });
  }

  get #runPath() {
    return `/api/runs/${encodeURIComponent(this.#run.id)}`;
  }

  get #isReadable() {
    return this.#run.layout === LAYOUT && this.#run.mode !== "interactive";
  }

  /** The other view than the text; null where there is none. */
  async #finerKind() {
    if (this.#isReadable) return ["reading", "Reading"];
    if (await isXtermInstalled()) return ["terminal", "Terminal"];
    return this.#run.mode === "interactive" ? ["screen", "Screen"] : null;
  }

  async #offerKinds() {
    const finer = await this.#finerKind();
    const fitting = await this.#fittingKind("");
    this.#kinds.replaceChildren(
      ...(finer ? [["text", "Text"], finer] : []).map(([kind, label]) => {
        const show = () => {
          setWord("as", kind === fitting ? "" : kind);
          return this.#enqueue(() => this.#show(kind));
        };
        return actionButton(label, { "data-kind": kind }, show, fail);
      }),
    );
    this.#kinds.hidden = !finer;
    this.#tell();
  }

  #foldTools() {
    const isFolded = this.#fold.getAttribute("aria-pressed") !== "true";
    this.#fold.setAttribute("aria-pressed", String(isFolded));
    setWord("tools", isFolded ? "folded" : "");
    this.#view?.fold?.(isFolded);
  }

  /** The size at the window's beginning, as far as it is known. */
  get #size() {
    const marked = this.#events.map(sizeOf).find(Boolean);
    const size = marked ?? asSize(this.#run.columns, this.#run.lines) ?? DEFAULT_SIZE;
    return { ...size, isFixed: this.#run.mode === "interactive" };
  }

  /**
   * Draw all anew, so that the view begins `offset` behind the place before event number `index`, or
   * behind so many lines of that event. A view that knows its place by itself stays there.
   */
  async #drawAround(index, offset, lines = 0) {
    const view = this.#view;
    this.#isDrawing = this.#isMoving = true;
    try {
      if (view.redraw) {
        const { length } = this.#events;
        await view.redraw(this.#events.slice(), this.#hasBefore ? this.#lead : null);
        this.#isDrawing = false;
        this.#drawn = length;
        return this.#drawTo(this.#events.length);
      }
      view.reset(this.#size);
      this.#drawn = 0;
      this.#due = this.#screen;
      this.#drawTo(index);
      const cut = lines ? beginOf(this.#events[index], lines) : 0;
      if (cut) this.#draw({ ...this.#events[index], data: this.#events[index].data.slice(0, cut) });
      await view.flush();
      const place = view.extent;
      this.#isDrawing = false;
      if (cut) {
        this.#draw({ ...this.#events[index], data: this.#events[index].data.slice(cut) });
        this.#drawn += 1;
      }
      this.#drawTo(this.#events.length);
      await view.flush();
      view.distanceFromStart = place + offset;
    } finally {
      this.#isDrawing = this.#isMoving = false;
    }
  }

  #drawTo(end) {
    if (!this.#view) return;
    for (; this.#drawn < end; this.#drawn += 1) {
      const event = this.#events[this.#drawn];
      if (this.#due && event.id > this.#due.after) this.#drawScreen();
      if (this.#screen && !this.#due && event.id <= this.#screen.after) continue; // it is in the picture
      attempt(() => this.#draw(event));
    }
    // Of what the picture has the rest is on its way.
    if (this.#due && end === this.#events.length) this.#drawScreen();
  }

  /** Draw a session's screen as the gateway knows it, where the events come that are not in it. */
  #drawScreen() {
    const screen = this.#due;
    this.#due = null;
    if (this.#events[0]?.id <= screen.after) attempt(() => this.#view.write(redrawing(screen), "stdout"));
  }

  #draw(event) {
    if (this.#view.take) {
      this.#view.take(event);
    } else if (isOutput(event)) {
      this.#view.write(event.data, event.type);
    } else {
      const size = sizeOf(event);
      if (size) this.#view.resize(size.columns, size.rows);
    }
  }

  #onScroll() {
    if (this.#isMoving) return;
    if (this.#hasBefore && (this.#view.isAtStart || (this.#isShort && !this.#view.isAtEnd))) this.#loadEarlier().catch((error) => fail(error.message));
    else if (this.#view.isAtEnd && !this.#isLive) this.#loadLater().catch((error) => fail(error.message));
    this.#tell();
  }

  #tell() {
    this.#earlier.hidden = !this.#hasBefore || this.#kind === "screen";
    this.#toEnd.hidden = !this.#view || (this.#isLive && this.#view.isAtEnd);
    this.#empty.hidden = this.#hasBefore || this.#events.some(isOutput);
    this.#fold.hidden = this.#kind !== "reading";
    setText(this.#empty, EMPTY[this.#run.status] ?? EMPTY.done);
    for (const button of this.#kinds.children) {
      button.setAttribute("aria-pressed", String(button.dataset.kind === this.#kind));
    }
  }
}

const EMPTY = {
  pending: "Nothing here yet: the run has not begun.",
  running: "It has started. What it prints appears here.",
  done: "It printed nothing.",
};

const isOutput = (event) => event.type === "stdout" || event.type === "stderr";

/** Return where a line of an event begins. */
function beginOf({ data }, lines) {
  let at = 0;
  for (let number = 0; number < lines; number += 1) {
    const end = data.indexOf("\n", at);
    if (end < 0) return at;
    at = end + 1;
  }
  return at;
}

/** Return the line before which so many line ends stand in all of the output. */
function lineNumbered(events, number) {
  let left = number;
  for (const { id, data } of events.filter(isOutput)) {
    const here = linesOf(data);
    // With its last line end an event ends, and the next one has the line.
    if (left < here || (left === here && !data.endsWith("\n"))) return { event: id, line: left };
    left -= here;
  }
  return null;
}

/** How much there is to draw, in characters: a line costs as much as many of them. */
const chars = (events) => events.reduce((sum, { data }) => sum + data.length + LINE_CHARS * linesOf(data), 0);

function linesOf(text) {
  let lines = 0;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) lines += 1;
  return lines;
}

/** Return the size that a marker tells, or null. */
function sizeOf({ type, data }) {
  if (type !== "marker" || !data.includes('"columns"')) return null;
  try {
    const { columns, lines } = JSON.parse(data);
    return asSize(columns, lines);
  } catch {
    return null;
  }
}
