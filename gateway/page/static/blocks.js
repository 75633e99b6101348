/**
 * A run's text in blocks: a tool with its input, its result and its change is one, an answer is one, a
 * thought, a notice. Pure: events in, blocks out.
 *
 * A line is named by the event in which it begins and by the line ends that stand before it there
 * ("12.3"), so its name does not depend on where the reading began.
 */

import { closedSentence } from "./questions.js";
import { readLine } from "./text-layout.js";
import { attempt } from "./turns.js";
import { asText, legible } from "./values.js";

// Longer ones are cut in two: what changes in a block, all of it is drawn anew.
const MAX_LINES = 400;
const MAX_CHARS = 16_000; // less than the gateway takes as Markdown
// The text view has all of such a line.
const MAX_LINE_CHARS = 4000;
// How far back a result looks for its tool.
const MAX_OPEN_TOOLS = 50;
const FENCE = /^\s*(`{3,}|~{3,})(.*)$/;
const TALKS = /"(?:asked|answered|withdrawn)"/;
const OF_A_TOOL = new Set(["input", "result", "diff", "failure"]);

/** One thing that a run shows: its kind, and its lines with their own kinds. */
class Block {
  lines = [];
  chars = 0;
  isClosed = false; // whether an empty line has ended it
  isGone = false;
  // What followed before it, should its only line turn out to be another kind of line.
  before = null;
  fence = ""; // of the code block that goes on here from the block before
  isDenied = false; // whether it failed because a person said no
  isUnsure = false; // whether it is not known if a code block goes on here

  constructor(kind, isSubagent, isMore) {
    this.kind = kind;
    this.isSubagent = isSubagent;
    this.isMore = isMore; // whether it goes on with the block before it
  }

  get key() {
    return this.lines[0].name;
  }

  get isFull() {
    return this.lines.length >= MAX_LINES || this.chars >= MAX_CHARS;
  }

  /** Whether something went wrong here. */
  get isProblem() {
    return this.kind === "stderr" || this.lines.some(({ kind }) => kind === "failure");
  }

  /** Its text, without the signs. */
  get text() {
    return this.lines.map(({ text }) => text).join("\n");
  }
}

export class Blocks {
  /** All blocks, in the order of their first lines. */
  list = [];
  /** Those that have changed since they were taken from here. */
  changed = new Set();
  #open = new Map(); // stream -> its line without an end: {line, block, raw}
  #current = null;
  #tools = []; // the last ones
  #asked = new Map(); // question id -> what was asked
  #denied = []; // the tools that were denied, and whose failure is still to come: {tool, id}

  /** Take the next event. */
  take(event) {
    if (event.type === "stdout" || event.type === "stderr") this.#takeText(event);
    else if (event.type === "marker") this.#takeMarker(event);
    else if (event.type === "error") this.#addBeside("failure", event.id, event.data.split("\n", MAX_LINES));
  }

  /**
   * Take what comes before the first event. None of it is listed; what it leaves open goes on: a line,
   * a code block. If these are too few to say that, what goes on is `isUnsure`.
   */
  lead(events) {
    for (const event of events) attempt(() => this.take(event));
    for (const begun of this.#open.values()) {
      begun.block?.lines.pop();
      begun.block = null;
    }
    let first = this.#current ?? new Block("words", false, false);
    this.#current = first.kind === "words" ? first : null;
    while (first.isMore) first = first.before;
    if (this.#current) this.#current.isUnsure = !first.before;
    this.list = [];
    this.changed.clear();
    this.#tools = [];
  }

  /** The block that has a line of this name, and the line's number in it; null if there is none. */
  find(name) {
    for (const block of this.list) {
      const index = block.lines.findIndex((line) => line.name === name);
      if (index >= 0) return { block, index };
    }
    return null;
  }

  #takeText({ id, type, data }) {
    let from = 0;
    for (let number = 0; from <= data.length; number += 1) {
      const end = data.indexOf("\n", from);
      const part = data.slice(from, end < 0 ? undefined : end);
      const begun = this.#open.get(type);
      this.#open.delete(type);
      if (begun || part || end >= 0) this.#takeLine(type, begun, part, begun?.name ?? `${id}.${number}`, end >= 0);
      if (end < 0) return;
      from = end + 1;
    }
  }

  #takeLine(stream, begun, part, name, isEnded) {
    const raw = (begun?.raw ?? "") + part;
    const line = stream === "stderr" ? { kind: "stderr", text: raw, isSubagent: false } : readLine(raw);
    line.isCut = line.text.length > MAX_LINE_CHARS;
    line.text = shown(line.text);
    line.name = name;
    let block = begun?.block ?? null;
    if (block && (block.lines.at(-1).kind !== line.kind || block.isSubagent !== line.isSubagent)) {
      this.#takeAway(block);
      block = null;
    }
    if (block) {
      block.lines[block.lines.length - 1] = line;
      block.chars += part.length;
      this.changed.add(block);
    } else if (isEnded || (raw.trim() && line.kind !== "whose")) {
      // Which tool is meant, only the whole line says.
      block = this.#add(line);
    }
    if (!isEnded) this.#open.set(stream, { raw: raw.slice(0, 2 * MAX_LINE_CHARS), block, name });
  }

  /** Take away the last line of a block, which is another kind of line than it seemed. */
  #takeAway(block) {
    block.lines.pop();
    this.changed.add(block);
    if (block.lines.length) return;
    block.isGone = true;
    this.list.splice(this.list.lastIndexOf(block), 1);
    if (this.#current === block) this.#current = block.before;
    if (this.#tools.at(-1) === block) this.#tools.pop();
  }

  #add(line) {
    const block = line.kind === "stderr" ? this.#blockOfErrors() : this.#blockFor(line);
    if (!block) return null;
    if (line.kind === "failure" && block.kind === "tool") this.#noteDenial(block);
    block.lines.push(line);
    block.chars += line.text.length;
    this.changed.add(block);
    return block;
  }

  #noteDenial(block) {
    const [head] = block.lines;
    const place = head ? this.#denied.findIndex(({ tool, id }) => head.text.split(":", 1)[0] === tool && Number.parseInt(head.name, 10) < id) : -1;
    if (place < 0) return;
    this.#denied.splice(place, 1);
    block.isDenied = true;
  }

  /** Between the lines of a tool there may be error output, which belongs to nothing. */
  #blockOfErrors() {
    const last = this.list.at(-1);
    if (last?.kind === "stderr" && !last.isFull) return last;
    const block = new Block("stderr", false, last?.kind === "stderr");
    this.list.push(block);
    return block;
  }

  #blockFor(line) {
    const current = this.#current;
    if (line.kind === "words" && !line.text.trim() && current?.kind !== "words") {
      // An empty line begins another thing.
      if (current) current.isClosed = true;
      return null;
    }
    if (line.kind === "whose") return this.#toolNamed(line);
    const kind = kindOf(line, current);
    const fits = current?.kind === kind && !current.isClosed && current.isSubagent === line.isSubagent && line.kind !== "tool";
    if (fits && !current.isFull && (kind === "tool" || this.list.at(-1) === current)) return current;
    return this.#begin(kind, line.isSubagent, fits);
  }

  #begin(kind, isSubagent, isMore) {
    const block = new Block(kind, isSubagent, isMore);
    block.before = this.#current;
    if (isMore && kind === "words") {
      block.fence = openFence(this.#current);
      block.isUnsure = this.#current.isUnsure;
    }
    this.list.push(block);
    this.#current = block;
    if (kind === "tool") {
      this.#tools.push(block);
      if (this.#tools.length > MAX_OPEN_TOOLS) this.#tools.shift();
    }
    return block;
  }

  /** Return the block of a tool whose result follows: of several with one name the first without one. */
  #toolNamed(line) {
    const known = this.#tools.find((tool) => tool.isSubagent === line.isSubagent && tool.lines[0].text === line.text && !hasResult(tool));
    if (!known) return this.#begin("tool", line.isSubagent, false);
    known.isClosed = false;
    this.#current = known;
    return known;
  }

  #takeMarker({ id, data }) {
    if (!TALKS.test(data)) return;
    let fields;
    try {
      fields = JSON.parse(data);
    } catch {
      return;
    }
    if (fields?.event === "asked") this.#asked.set(fields.id, fields);
    if (fields?.event !== "answered" && fields?.event !== "withdrawn") return;
    const { kind, tool, title } = this.#asked.get(fields.id) ?? {};
    if (fields.decision === "deny" && kind) this.#denied = [...this.#denied, { tool: asText(tool), id }].slice(-MAX_OPEN_TOOLS);
    const what = kind === "plan" ? "the plan" : kind === "question" ? "" : [asText(tool), asText(title, 200)].filter(Boolean).join(": ");
    const isAnswer = fields.event === "answered";
    const said = closedSentence({ decision: isAnswer ? asText(fields.decision) : null, by: asText(fields.by), scope: asText(fields.scope), reason: fields.reason });
    const lines = [[said, what].filter(Boolean).join(" · "), asText(fields.message)].filter(Boolean);
    this.#addBeside("answer", id, lines);
  }

  /** Add what is no output, and so comes between nothing. */
  #addBeside(kind, id, texts) {
    const block = new Block(kind, false, false);
    texts.forEach((text, index) => block.lines.push({ kind: kind === "answer" ? "person" : kind, text: shown(text), isSubagent: false, name: `${id}.${index}` }));
    this.list.push(block);
    this.changed.add(block);
  }
}

/** Return the fence of the code block that a block of Markdown leaves open, or "". */
function openFence({ fence, lines }) {
  for (const { text } of lines) {
    const [, mark, rest] = FENCE.exec(text) ?? [];
    if (!mark) continue;
    if (!fence) fence = mark[0] === "`" && rest.includes("`") ? "" : mark;
    else if (mark.startsWith(fence) && !rest.trim()) fence = "";
  }
  return fence;
}

/** Return the kind of the block that a line belongs to. */
function kindOf(line, current) {
  if (line.kind === "left out") return current && !current.isClosed ? current.kind : "notice";
  if (line.kind === "tool") return "tool";
  const isOfTool = OF_A_TOOL.has(line.kind) && (line.kind !== "failure" || (current?.kind === "tool" && !current.isClosed && current.isSubagent === line.isSubagent));
  return isOfTool ? "tool" : line.kind;
}

const hasResult = (tool) => tool.lines.some(({ kind }) => kind === "result" || kind === "failure" || kind === "diff");

function shown(text) {
  if (text.length <= MAX_LINE_CHARS) return legible(text);
  return `${legible(text.slice(0, MAX_LINE_CHARS))}… (${(text.length - MAX_LINE_CHARS).toLocaleString("en")} more characters)`;
}
