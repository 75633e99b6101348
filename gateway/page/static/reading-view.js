/**
 * A run's text in blocks that can be read on a phone: tools fold, results are shortened, changes have
 * colours, answers are Markdown.
 *
 * The blocks are a function of the events in the window. When the window moves they are made anew,
 * but the element of a block that is in both stays, with what the reader has unfolded in it. Elements
 * out of sight are not laid out (`content-visibility`), and Markdown is asked for what comes near.
 */

import { Blocks } from "./blocks.js";
import { diffLines } from "./diff.js";
import { el } from "./dom.js";
import { elementsOf, knownTree, wantTree } from "./markdown.js";
import { mark, occurrences, rangeOf } from "./marks.js";
import { say } from "./toast.js";
import { attempt, nextFrame, pauseAfter, TURN_MS } from "./turns.js";

const AT_END_PX = 24;
const RESULT_LINES = 8;
const DIFF_LINES = 40;
const INPUT_LINES = 6;
const NOTICE_LINES = 12;
// An answer that is still being written is Markdown once it has paused for so long.
const WRITTEN_MS = 400;
const NEAR = "1200px 0px";
// A guess for what was never laid out: of a line, and of the frame around it.
const LINE_PX = 21;
const FRAME_PX = 20;

const PEOPLE = new Map([["operator", "Operator"], ["keyboard", "At the keyboard"]]);

export class ReadingView {
  #blocks = new Blocks();
  #shown = new Map(); // a block's key -> {block, element, text, isAll, tree}
  #isDrawing = false;
  #isFollowing = true;
  #height = 0; // as the observer has it
  #isFolded;
  #held = null; // the line that stays first or in the middle until the reader moves
  #marked = null; // what is marked in a line: {name, wanted, range}
  #selected = "";
  #writing = null;
  #body = el("div", { class: "blocks" });
  #resizes = new ResizeObserver(() => this.#keepPlace());
  #near;

  /** `onSelect(name, text)` is told of the line that is chosen, and of what its block holds. */
  constructor({ isFolded = false, onSelect }) {
    this.#isFolded = isFolded;
    this.onSelect = onSelect;
    this.element = el("div", { class: "reading", tabindex: "0", role: "region", "aria-label": "Output. Keys: j next line, k previous line" }, this.#body);
    this.element.addEventListener("scroll", () => {
      // Of a height that is news to the observer the scrolling is the browser's, and not the reader's.
      if (this.element.clientHeight === this.#height) this.#isFollowing = this.#isNearEnd;
      this.onScroll?.();
    });
    // A reader who scrolls leaves the line that the address names.
    for (const name of ["wheel", "touchmove", "pointerdown", "keydown"]) this.element.addEventListener(name, () => (this.#held = null), { passive: true });
    this.element.addEventListener("click", (event) => this.#onClick(event));
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    this.#near = new IntersectionObserver((entries) => this.#onNear(entries), { root: this.element, rootMargin: NEAR });
    this.#resizes.observe(this.element);
    this.#resizes.observe(this.#body);
  }

  // --- what Output asks of a view ---

  reset() {
    this.#blocks = new Blocks();
  }

  resize() {}

  take(event) {
    this.#blocks.take(event);
    this.#drawSoon();
  }

  async flush() {
    await this.#drawAll();
  }

  /** Show these events, which come after `lead`; who reads stays at the line that he reads. */
  async redraw(events, lead) {
    const { list } = this.#blocks;
    const blocks = new Blocks();
    if (lead) blocks.lead(lead);
    let began = performance.now();
    for (const event of events) {
      attempt(() => blocks.take(event));
      if (performance.now() - began < TURN_MS) continue;
      await pauseAfter(performance.now() - began);
      began = performance.now();
    }
    this.#blocks = blocks;
    let place;
    await this.#drawAll(() => (place = this.#place(list)));
    if (place) this.#goBack(place);
  }

  get isAtStart() {
    return this.element.scrollTop < AT_END_PX;
  }

  get isAtEnd() {
    return this.#isFollowing;
  }

  get extent() {
    return 0;
  }

  get distanceFromStart() {
    return this.element.scrollTop;
  }

  scrollToEnd() {
    this.#held = null;
    this.element.scrollTop = this.element.scrollHeight;
    this.#isFollowing = true;
  }

  focus() {
    this.element.focus();
  }

  dispose() {
    clearTimeout(this.#writing);
    this.#resizes.disconnect();
    this.#near.disconnect();
    this.element.remove();
  }

  // --- going to a line ---

  /** Show a line, unfold what hides it, mark `wanted` in it, and return whether the line is there. */
  reveal(name, wanted = "") {
    const found = this.#blocks.find(name) ?? this.#nearest(name);
    const shown = found && this.#shown.get(found.block.key);
    if (!shown) return false;
    shown.element.open = true;
    if (!shown.isAll && !shown.element.querySelector(`[data-line="${name}"]`)) {
      shown.isAll = true;
      this.#fill(shown);
    }
    this.#isFollowing = false;
    this.#select(name);
    this.#held = { name, isFirst: false };
    this.#mark({ name, wanted });
    this.#keepPlace();
    if (wanted && !this.#marked.range && found.block.lines[found.index].isCut) say("This line is longer than what is shown of it. Text shows it whole.");
    // The page, where it is higher than the window.
    this.element.scrollIntoView({ block: "nearest" });
    return true;
  }

  /** The name of the first line that is seen. */
  get place() {
    const { top } = this.element.getBoundingClientRect();
    for (const { element, block } of this.#inOrder()) {
      if (element.getBoundingClientRect().bottom <= top + 1) continue;
      const lines = [...element.querySelectorAll("[data-line]")];
      return lines.find((line) => line.getBoundingClientRect().bottom > top + 1)?.dataset.line ?? block.key;
    }
    return "";
  }

  /** Begin with a line of this name, or with what it is part of. */
  set place(name) {
    this.#isFollowing = false;
    this.#held = { name, isFirst: true };
    this.#keepPlace();
  }

  /** Return the name of the block that is seen first. */
  get firstSeen() {
    const top = this.element.getBoundingClientRect().top;
    for (const { element, block } of this.#inOrder()) if (element.getBoundingClientRect().bottom > top + 1) return block.key;
    return "";
  }

  /** Fold all tools, or none. */
  fold(isFolded) {
    this.#isFolded = isFolded;
    const place = this.#place();
    for (const { element, block } of this.#shown.values()) if (block.kind === "tool") element.open = !isFolded;
    if (place) this.#goBack(place);
  }

  #nearest(name) {
    const [event, line] = name.split(".").map(Number);
    let best = null;
    for (const block of this.#blocks.list) {
      const [its, number] = block.key.split(".").map(Number);
      if (its < event || (its === event && number <= line)) best = block;
    }
    return best && { block: best, index: 0 };
  }

  #elementOf(name) {
    const exact = this.#body.querySelector(`[data-line="${name}"]`);
    if (exact) return exact;
    // Of Markdown each part has the name of its first line.
    const found = this.#blocks.find(name) ?? this.#nearest(name);
    const shown = found && this.#shown.get(found.block.key);
    if (!shown) return null;
    for (let index = found.index; index >= 0; index -= 1) {
      const part = shown.element.querySelector(`[data-line="${found.block.lines[index].name}"]`);
      if (part) return part;
    }
    return shown.element;
  }

  #select(name, isTold = true) {
    for (const each of this.#body.querySelectorAll(".here")) each.classList.remove("here");
    this.#selected = name;
    const element = name && this.#elementOf(name);
    if (!element) return;
    element.classList.add("here");
    if (!isTold) return;
    const { block } = this.#blocks.find(name) ?? this.#nearest(name);
    const code = block.kind === "words" ? element.closest("pre") : null;
    this.onSelect?.(name, code ? Array.from(code.children, (line) => line.textContent).join("\n") : block.text, textOf(element));
  }

  /** Mark what was looked for in a line: Markdown makes one paragraph of many lines. */
  #mark(marked) {
    const element = laidOut(this.#elementOf(marked.name));
    const { block, index } = this.#blocks.find(marked.name) ?? {};
    marked.range = null;
    if (marked.wanted && element && block) {
      const first = Math.max(0, block.lines.findIndex(({ name }) => name === element.dataset.line));
      const before = block.lines.slice(first, index).map(({ text }) => text).join("\n");
      marked.range = rangeOf(element, marked.wanted, occurrences(before, marked.wanted).length);
    }
    this.#marked = marked;
    mark(marked.range);
  }

  /** Choose no line. */
  deselect() {
    this.#mark({ name: "", wanted: "" });
    this.#select("");
    this.#held = null;
  }

  #onClick(event) {
    const line = event.target.closest("[data-line]");
    if (!line || event.target.closest("a, button, summary, input") || !getSelection().isCollapsed) return;
    this.#select(line.dataset.line);
  }

  #onKey(event) {
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { j: 1, k: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const lines = [...this.#body.querySelectorAll("[data-line]")].filter((each) => !each.closest("details:not([open])"));
    const known = this.#selected ? lines.indexOf(this.#elementOf(this.#selected)) : -1;
    const first = lines.findIndex((each) => each.closest("[data-block]").dataset.block === this.firstSeen);
    const next = lines[known < 0 ? Math.max(0, first) : known + step];
    if (!next) return;
    this.#isFollowing = false;
    this.#select(next.dataset.line);
    next.scrollIntoView({ block: "nearest" });
  }

  // --- drawing ---

  async #drawSoon() {
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    await nextFrame();
    this.#isDrawing = false;
    attempt(() => this.#drawChanged());
  }

  /** Draw what has changed at the end; a block is where the list has it. */
  #drawChanged() {
    const isFollowing = this.#isNearEnd && !this.#held;
    for (const block of this.#blocks.changed) {
      this.#blocks.changed.delete(block);
      if (block.isGone || !block.lines.length) {
        this.#forget(block);
        continue;
      }
      const shown = this.#record(block);
      if (!shown.element.isConnected) this.#insert(shown);
    }
    if (isFollowing) this.scrollToEnd();
    this.#renderSoon();
  }

  #insert(shown) {
    const { list } = this.#blocks;
    let after = list.lastIndexOf(shown.block) + 1;
    while (after < list.length && !this.#shown.get(list[after].key)?.element.isConnected) after += 1;
    this.#body.insertBefore(shown.element, after < list.length ? this.#shown.get(list[after].key).element : null);
  }

  #forget(block) {
    for (const [key, shown] of this.#shown) {
      if (shown.block !== block) continue;
      this.#near.unobserve(shown.element);
      shown.element.remove();
      this.#shown.delete(key);
    }
  }

  /** Draw all, and keep what is there already; `beforeMoving` is called before anything has its new place. */
  async #drawAll(beforeMoving = () => {}) {
    const { list, changed } = this.#blocks;
    let began = performance.now();
    for (const block of [...list]) {
      if (block.lines.length) attempt(() => this.#record(block));
      changed.delete(block);
      if (performance.now() - began < TURN_MS) continue;
      await pauseAfter(performance.now() - began);
      began = performance.now();
    }
    beforeMoving();
    const keys = new Set(list.map(({ key }) => key));
    for (const [key, { element }] of this.#shown) {
      if (keys.has(key)) continue;
      this.#near.unobserve(element);
      element.remove();
      this.#shown.delete(key);
    }
    let next = this.#body.firstChild;
    for (const { element } of this.#inOrder()) {
      if (element === next) next = next.nextSibling;
      else this.#body.insertBefore(element, next);
    }
    if (this.#selected) this.#select(this.#selected, false);
    this.#renderLast();
  }

  *#inOrder(list = this.#blocks.list) {
    for (const block of list) {
      const shown = this.#shown.get(block.key);
      if (shown) yield shown;
    }
  }

  /** Return what is shown of a block, drawn as it is now. */
  #record(block) {
    const { key, text } = block;
    let shown = this.#shown.get(key);
    if (shown && shown.element.dataset.kind !== block.kind) {
      shown.element.remove();
      shown = null;
    }
    if (!shown) {
      shown = { element: this.#build(block), text: null, isAll: false, tree: undefined };
      this.#shown.set(key, shown);
    }
    shown.block = block;
    const signature = block.lines.length + text;
    if (shown.text === signature) return shown;
    shown.text = signature;
    shown.tree = undefined;
    this.#fill(shown);
    return shown;
  }

  #build({ kind, isSubagent, isMore, key }) {
    const isFolding = kind === "tool" || kind === "thought";
    const attributes = { class: `block b-${kind}${kind === "words" ? " prose" : ""}${isSubagent ? " b-subagent" : ""}${isMore ? " b-more" : ""}`, "data-kind": kind, "data-block": key };
    const element = el(isFolding ? "details" : "div", attributes);
    if (kind === "tool") element.open = !this.#isFolded;
    if (kind === "words") this.#near.observe(element);
    return element;
  }

  #fill(shown) {
    const { block, element } = shown;
    const draw = { words: wordsOf, tool: toolOf, thought: thoughtOf, person: personOf, answer: personOf, end: endOf }[block.kind] ?? noticeOf;
    element.style.containIntrinsicSize = `auto ${FRAME_PX + LINE_PX * Math.min(block.lines.length, 40)}px`;
    element.classList.toggle("b-problem", block.isProblem);
    element.replaceChildren(...draw(shown, () => {
      shown.isAll = true;
      this.#fill(shown);
    }));
    if (this.#selected && block.lines.some(({ name }) => name === this.#selected)) this.#select(this.#selected, false);
    if (this.#marked?.wanted && block.lines.some(({ name }) => name === this.#marked.name)) this.#mark(this.#marked);
  }

  #onNear(entries) {
    for (const { target, isIntersecting } of entries) {
      const shown = this.#shown.get(target.dataset.block);
      if (shown) shown.isNear = isIntersecting;
      if (isIntersecting && shown) this.#render(shown);
    }
    this.#renderSoon(); // the last one may have been written long ago
  }

  #renderSoon() {
    clearTimeout(this.#writing);
    this.#writing = setTimeout(() => this.#renderLast(), WRITTEN_MS);
  }

  /** Make Markdown of an answer that nothing follows, if it has paused. */
  #renderLast() {
    for (const shown of this.#shown.values()) if (shown.isNear && shown.tree === undefined) this.#render(shown, true);
  }

  #render(shown, isPaused = false) {
    const { block } = shown;
    const isLast = this.#blocks.list.at(-1) === block;
    if (block.kind !== "words" || block.isUnsure || shown.tree !== undefined || (isLast && !isPaused)) return;
    const text = sourceOf(block);
    const known = knownTree(text);
    const use = (tree) => {
      if (sourceOf(shown.block) !== text || this.#shown.get(block.key) !== shown) return;
      shown.tree = tree;
      if (tree) this.#fill(shown);
    };
    if (known !== undefined) return use(known);
    wantTree(text, (tree) => attempt(() => use(tree)));
  }

  // --- the place ---

  /** Return the block that is seen first, of a list of those that are drawn, and where it is. */
  #place(list = this.#blocks.list) {
    const top = this.element.getBoundingClientRect().top;
    for (const { element, block } of this.#inOrder(list)) {
      const { top: its, bottom } = element.getBoundingClientRect();
      if (bottom > top) return { key: block.key, offset: its - top };
    }
    return null;
  }

  #goBack({ key, offset }) {
    // A block that the window had cut in two is a part of another one now.
    const element = laidOut(this.#shown.get(key)?.element ?? this.#elementOf(key));
    if (!element) return;
    const move = () => {
      this.element.scrollTop += element.getBoundingClientRect().top - this.element.getBoundingClientRect().top - offset;
    };
    move();
    move(); // what has come into sight has its own height now
  }

  /** Stay at the end, or at the line that was gone to, when heights change. */
  #keepPlace() {
    this.#height = this.element.clientHeight;
    const element = this.#held && laidOut(this.#elementOf(this.#held.name));
    const range = !this.#held?.isFirst && this.#marked?.name === this.#held?.name ? this.#marked?.range : null;
    const held = (range ?? element)?.getBoundingClientRect();
    // Not `scrollIntoView`, which would scroll the page too, under somebody who looks elsewhere in it.
    const middle = held && !this.#held.isFirst ? (held.height - this.element.clientHeight) / 2 : 0;
    if (held) this.element.scrollTop += held.top - this.element.getBoundingClientRect().top + middle;
    else if (this.#isFollowing) this.scrollToEnd();
  }

  get #isNearEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    return scrollHeight - scrollTop - clientHeight < AT_END_PX;
  }
}

/** Return the text of a line; a tool's name stands apart from what it does. */
const textOf = (element) => (element.matches("summary") ? Array.from(element.children, (part) => part.textContent).join(" ") : element.textContent.trim());

/** Have a block laid out wherever it is, of which a part is gone to: with a guessed height nothing in it has a place. */
function laidOut(element) {
  element?.closest(".block").classList.add("laid-out");
  return element;
}

// --- one block -----------------------------------------------------------------------------------

const lineOf = ({ name, text }, attributes = {}) => el("span", { class: "ln", ...attributes, "data-line": name }, text);

function wordsOf({ block, tree }) {
  const nameOf = (index) => block.lines[index - (block.fence ? 1 : 0)]?.name;
  if (tree) return elementsOf(tree, nameOf);
  return [el("div", { class: "as-it-is" }, block.lines.map((line) => lineOf(line)))];
}

/** Return the Markdown of a block; where a code block goes on from the one before, it begins with a fence. */
const sourceOf = ({ fence, text }) => (fence ? `${fence}\n${text}` : text);

function toolOf(shown, showAll) {
  const { block, isAll } = shown;
  const [head] = block.lines;
  const hasHead = head.kind === "tool" || head.kind === "whose";
  const [, name, what] = hasHead ? /^([^:]*)(?:: (.*))?$/s.exec(head.text) : [null, "Result", ""];
  const lines = (hasHead ? block.lines.slice(1) : block.lines).filter(({ kind }) => kind !== "whose");
  const place = lines.findIndex(({ kind }) => kind === "failure");
  if (place >= 0 && block.isDenied) lines[place] = { ...lines[place], text: lines[place].text.replace(/^failed\b/, "denied") };
  const failed = lines[place];
  const left = { isAll, hidden: 0 };
  const parts = runsOf(lines).map(([kind, part]) => partOf(kind, part, left));
  const summary = el(
    "summary",
    { "data-line": hasHead && head.name },
    el("span", { class: "tool-name" }, name),
    what && el("code", { class: "tool-what" }, what),
    failed && el("span", { class: "tool-failed" }, failed.text || "failed"),
  );
  return [summary, ...parts, left.hidden > 0 && el("button", { type: "button", class: "plain show-all", onclick: showAll }, `Show all ${lines.length} lines`)].filter(Boolean);
}

/** Group lines that follow each other by their kinds; what was left out belongs to what is before it. */
function runsOf(lines) {
  const runs = [];
  for (const line of lines) {
    const last = runs.at(-1);
    if (last && (last[0] === line.kind || line.kind === "left out")) last[1].push(line);
    else runs.push([line.kind, [line]]);
  }
  return runs;
}

const LIMITS = { input: INPUT_LINES, result: RESULT_LINES, diff: DIFF_LINES, failure: RESULT_LINES };
const NAMES = { input: "Input", result: "Result", diff: "Change", failure: "What went wrong" };

function partOf(kind, lines, left) {
  const limit = left.isAll ? Infinity : (LIMITS[kind] ?? RESULT_LINES);
  // A few more are shown rather than counted.
  const part = lines.length > limit + 2 ? lines.slice(0, limit) : lines;
  left.hidden += lines.length - part.length;
  const attributes = { class: `part part-${kind.replace(" ", "-")}`, tabindex: "0", role: "group", "aria-label": NAMES[kind] ?? "Output" };
  if (kind !== "diff") return el("pre", attributes, part.map((line) => lineOf(line, line.kind === "left out" ? { class: "ln left-out" } : {})));
  const drawn = diffLines(part.map(({ text }) => text).join("\n"), true);
  drawn.forEach((element, index) => {
    element.textContent = part[index].text; // without a line end, which would be copied as a second one
    element.dataset.line = part[index].name;
    element.classList.add("ln");
    if (part[index].kind === "left out") element.className = "ln left-out";
  });
  return el("pre", attributes, drawn);
}

function thoughtOf({ block }) {
  return [el("summary", {}, el("span", { class: "thought-word" }, "Thought"), el("span", { class: "thought-first" }, block.lines[0].text)), el("div", { class: "as-it-is" }, block.lines.map((line) => lineOf(line)))];
}

function personOf({ block }) {
  const [first, ...rest] = block.lines;
  const [, by, said] = block.kind === "person" ? (/^(operator|keyboard): (.*)$/s.exec(first.text) ?? []) : [];
  const lines = by ? [{ ...first, text: said }, ...rest] : block.lines;
  const who = by ? PEOPLE.get(by) : block.kind === "answer" ? "" : "A person";
  return [who && el("span", { class: "who" }, who), el("div", { class: "as-it-is" }, lines.map((line) => lineOf(line)))].filter(Boolean);
}

const endOf = ({ block }) => [el("div", { class: "as-it-is" }, block.lines.map((line) => lineOf(line)))];

function noticeOf({ block, isAll }, showAll) {
  const lines = isAll || block.lines.length <= NOTICE_LINES + 2 ? block.lines : block.lines.slice(0, NOTICE_LINES);
  return [
    block.kind === "stderr" && !block.isMore && el("span", { class: "who" }, "Error output"),
    el("div", { class: "as-it-is" }, lines.map((line) => lineOf(line))),
    lines.length < block.lines.length && el("button", { type: "button", class: "plain show-all", onclick: showAll }, `Show all ${block.lines.length} lines`),
  ].filter(Boolean);
}
