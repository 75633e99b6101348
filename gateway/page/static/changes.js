/**
 * What a run has changed: the list of files first, then the diff of each, drawn when it is opened.
 *
 * The runner sends the diff anew while it changes; what is open stays open. A diff may be as large
 * as a gateway keeps: it is searched for its files, and no more of it becomes a part of the page
 * than somebody looks at.
 */

import { request } from "./api.js";
import { diffLines } from "./diff.js";
import { filesOf } from "./diff-files.js";
import { actionButton, el, setText } from "./dom.js";
import { download } from "./download.js";
import { fail } from "./toast.js";
import { legible } from "./values.js";
import { moment, size } from "./words.js";

const NAME = /^changes(?:\.(\d+))?\.diff$/;
// Its parts, if it has several, come one after the other.
const SETTLES_MS = 300;
// So much is loaded for the number in the tab; of a larger one when somebody looks.
const MAX_UNASKED_BYTES = 256_000;
const MAX_FILES = 300;
const MAX_LINES = 1000;
const MAX_LINE_CHARS = 2000;
// What is open at the beginning: small files, until there are so many lines.
const OPEN_LINES = 120;
const OPEN_LINES_OF_ALL = 400;
const WORDS = { added: "new", removed: "deleted", renamed: "renamed", changed: "changed" };
const SIGNS = { added: "+", removed: "−", renamed: "→", changed: "•" };

/** Whether a file of a run is a part of what it has changed. */
export const isChanges = (name) => NAME.test(name);

const counted = (count, noun) => `${count.toLocaleString()} ${noun}${count === 1 ? "" : "s"}`;

export class Changes {
  #parts = [];
  #text = "";
  #isLoaded = false;
  #isShown = false;
  #wanted = null; // the path that the address names
  #timer = 0;
  #number = 0; // of the newest request
  #entries = new Map(); // path -> what stands for it
  #most = MAX_FILES;
  #onNews;
  #summary = el("p", { class: "hint" }, "Loading…");
  #save = actionButton("Download", { hidden: true }, () => this.#download(), fail);
  #list = el("ol", { class: "changed-list" });
  #diffs = el("div", { class: "changed-diffs" });
  #more = el("button", { type: "button", class: "plain", hidden: true, onclick: () => this.#showMore() });

  /** `onNews` is told of what the tab says: the number of files, null if it is not known. */
  constructor(onNews) {
    this.#onNews = onNews;
    this.element = el(
      "section",
      { class: "changes", "aria-labelledby": "changes-title", tabindex: "-1" },
      el("div", { class: "section-head" }, el("h2", { id: "changes-title" }, "Changes"), this.#save),
      this.#summary,
      this.#list,
      this.#diffs,
      this.#more,
    );
  }

  /** Whether the run has sent any. */
  get isThere() {
    return this.#parts.length > 0;
  }

  /** Take a file of the run, if it is the one with its changes. */
  show(artifact) {
    const [, number = "1"] = NAME.exec(artifact.name) ?? [null, "0"];
    const place = Number(number);
    if (!place || this.#parts.some(({ id }) => id === artifact.id)) return;
    // An answer may be overtaken by what comes live.
    if (this.#parts[0]?.created_at > artifact.created_at) return;
    if (place === 1) this.#parts = [artifact];
    else if (place === this.#parts.length + 1) this.#parts.push(artifact);
    else return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#load().catch((error) => this.#tell(error.message)), SETTLES_MS);
  }

  /** Say that there are none, if that is so. */
  update(run) {
    if (this.isThere) return;
    const isOver = run.status === "done" || run.status === "failed";
    this.#tell(isOver ? "This run has sent no changes: it made none, or its folder is in no git repository." : "No changes so far. They come here after the first edit, if the folder is in a git repository.");
  }

  /** Be looked at, and at one file if the address names it; or not any more. */
  open(isShown, path) {
    this.#isShown = isShown;
    this.#wanted = path;
    if (!isShown) return;
    for (const entry of this.#entries.values()) entry.draw();
    if (this.isThere && !this.#isLoaded) this.#load().catch((error) => this.#tell(error.message));
    else this.#goToWanted();
  }

  #tell(sentence) {
    setText(this.#summary, sentence);
  }

  async #download() {
    for (const part of this.#parts) await download(part, addressOf(part));
  }

  async #load() {
    const bytes = this.#parts.reduce((sum, part) => sum + part.size, 0);
    this.#isLoaded = false;
    if (!this.#isShown && bytes > MAX_UNASKED_BYTES) return this.#onNews(null);
    const number = (this.#number += 1);
    const parts = [...this.#parts];
    const texts = await Promise.all(parts.map(async (part) => (await request(`${addressOf(part)}?view=1`)).text()));
    if (number !== this.#number) return;
    this.#isLoaded = true;
    this.#text = texts.join("");
    this.#draw(filesOf(this.#text), parts.at(-1).created_at, bytes);
  }

  #draw(files, at, bytes) {
    const [added, removed] = ["added", "removed"].map((name) => files.reduce((sum, file) => sum + file[name], 0));
    this.#summary.replaceChildren(`${counted(files.length, "file")}, `, countsOf({ added, removed }), `, ${size(bytes)}, as of ${moment(at)}`);
    this.#save.hidden = false;
    let open = 0;
    const known = this.#entries;
    this.#entries = new Map();
    for (const [index, file] of files.entries()) {
      const text = this.#text.slice(file.start, file.end);
      const before = known.get(file.path);
      if (before && before.text === text && before.file.status === file.status) {
        this.#entries.set(file.path, before);
        continue;
      }
      open += file.lines;
      const isSmall = file.lines <= OPEN_LINES && open <= OPEN_LINES_OF_ALL;
      this.#entries.set(file.path, new Entry(file, text, index, before ? before.isOpen : !known.size && isSmall, () => this.#isShown));
    }
    this.#place();
    this.#onNews(files.length);
    this.#goToWanted();
  }

  #place() {
    const shown = [...this.#entries.values()].slice(0, this.#most);
    this.#list.replaceChildren(...shown.map((entry) => entry.row));
    this.#diffs.replaceChildren(...shown.map((entry) => entry.element));
    this.#more.hidden = shown.length === this.#entries.size;
    setText(this.#more, `Show ${counted(Math.min(MAX_FILES, this.#entries.size - shown.length), "more file")}`);
  }

  #showMore() {
    this.#most += MAX_FILES;
    this.#place();
  }

  #goToWanted() {
    const entry = this.#wanted !== null && this.#entries.get(this.#wanted);
    if (!entry) return;
    this.#wanted = null;
    while (!entry.element.isConnected && this.#most < this.#entries.size) this.#showMore();
    entry.show();
  }
}

/** One file: its line in the list, and its diff, which is drawn when it is opened. */
class Entry {
  #isDrawn = false;
  #isSeen;
  #body = el("div", { class: "changed-body" });

  /** `isSeen` says whether anybody looks: what is open is drawn only then. */
  constructor(file, text, index, isOpen, isSeen) {
    this.file = file;
    this.text = text;
    this.#isSeen = isSeen;
    const href = `?tab=changes&file=${encodeURIComponent(file.path)}`;
    const name = [...(file.from ? [el("span", { class: "hint" }, `${legible(file.from)} → `)] : []), ...pathOf(file.path)];
    const mark = el("span", { class: `changed-mark ${file.status}`, title: WORDS[file.status] }, el("span", { "aria-hidden": "true" }, SIGNS[file.status]), el("span", { class: "unseen" }, `${WORDS[file.status]}: `));
    this.row = el("li", {}, el("a", { class: "changed-row", href, "data-file": file.path }, mark, el("span", { class: "changed-path" }, name), countsOf(file)));
    this.element = el(
      "details",
      { class: "changed-file", id: `change-${index}`, open: isOpen, ontoggle: () => this.draw() },
      el("summary", {}, el("span", { class: "changed-path" }, pathOf(file.path)), countsOf(file)),
      this.#body,
    );
    this.draw();
  }

  get isOpen() {
    return this.element.open;
  }

  show() {
    this.element.open = true;
    this.draw();
    this.element.scrollIntoView({ block: "start" });
    this.element.querySelector("summary").focus({ preventScroll: true });
  }

  draw() {
    if (this.#isDrawn || !this.element.open || !this.#isSeen()) return;
    this.#isDrawn = true;
    if (this.file.isBinary) this.#body.append(el("p", { class: "hint" }, "A binary file: only its name is sent."));
    else if (!this.text) this.#body.append(el("p", { class: "hint" }, this.file.status === "renamed" ? "Renamed, and not changed." : "No lines were changed."));
    else this.#drawLines(0);
  }

  #drawLines(from) {
    const lines = this.text.split("\n");
    if (lines.at(-1) === "") lines.pop();
    const end = Math.min(lines.length, from + MAX_LINES);
    const shown = lines.slice(from, end).map((line) => legible(line.length > MAX_LINE_CHARS ? `${line.slice(0, MAX_LINE_CHARS)}… (${line.length - MAX_LINE_CHARS} more characters)` : line));
    const label = from ? `Lines ${from + 1} to ${end} of the changes in ${this.file.path}` : `Changes in ${this.file.path}`;
    this.#body.append(el("pre", { class: "file changed-lines", tabindex: "0", role: "region", "aria-label": label }, diffLines(shown.join("\n"), true)));
    if (end === lines.length) return;
    const more = el("button", { type: "button", class: "plain" }, `Show ${counted(Math.min(MAX_LINES, lines.length - end), "more line")}`);
    more.addEventListener("click", () => {
      more.remove();
      this.#drawLines(end);
    });
    this.#body.append(more);
  }
}

const addressOf = ({ id }) => `/api/artifacts/${encodeURIComponent(id)}`;

function pathOf(path) {
  const cut = path.lastIndexOf("/") + 1;
  return [cut > 0 && el("span", { class: "changed-folder" }, legible(path.slice(0, cut))), el("span", { class: "changed-name" }, legible(path.slice(cut)))];
}

function countsOf({ added, removed, isBinary }) {
  if (isBinary) return el("span", { class: "changed-counts" }, "binary");
  if (!added && !removed) return el("span", { class: "changed-counts" });
  return el(
    "span",
    { class: "changed-counts" },
    el("span", { class: "added" }, `+${added.toLocaleString()}`),
    " ",
    el("span", { class: "removed" }, `−${removed.toLocaleString()}`),
  );
}
