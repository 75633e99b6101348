/**
 * What a run has changed: the list of files first, then the diff of each, drawn when it is opened.
 *
 * The runner sends the diff anew while it changes; what is open stays open. A diff may be as large
 * as a gateway keeps: the gateway finds its files, and the page asks for the lines that somebody opens.
 */

import { get } from "./api.js";
import { diffLines } from "./diff.js";
import { actionButton, el, setText } from "./dom.js";
import { download } from "./download.js";
import { fail } from "./toast.js";
import { legible } from "./values.js";
import { many, moment, size } from "./words.js";

const NAME = /^changes(?:\.(\d+))?\.diff$/;
// Its parts, if it has several, come one after the other.
const SETTLES_MS = 300;
const MAX_FILES = 300;
// Of a file in one answer of the gateway.
const MAX_LINES = 1000;
const WORDS = { added: "new", removed: "deleted", renamed: "renamed", changed: "changed" };
const SIGNS = { added: "+", removed: "−", renamed: "→", changed: "•" };

const counted = (count, noun) => `${many(count)} ${noun}${count === 1 ? "" : "s"}`;

export class Changes {
  #path;
  #parts = [];
  #isLoaded = false;
  #isOver = false;
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

  /** `path` is that of the run in the API; `onNews` is told of the number of files. */
  constructor(path, onNews) {
    this.#path = `${path}/changes`;
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

  /** Take note that the run has sent a file. */
  show({ id, name }) {
    if (!NAME.test(name) || this.#parts.some((part) => part.id === id)) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.load(), SETTLES_MS);
  }

  /** Say that there are none, if that is so. */
  update(run) {
    this.#isOver = run.status === "done" || run.status === "failed";
    if (this.#isLoaded && !this.#parts.length) this.#tellNone();
  }

  /** Be looked at, and at one file if the address names it; or not any more. */
  open(isShown, path) {
    this.#isShown = isShown;
    this.#wanted = path;
    if (!isShown) return;
    for (const entry of this.#entries.values()) entry.draw();
    if (this.#number) this.#goToWanted();
    else this.load();
  }

  /** Load the list of files. */
  async load() {
    const number = (this.#number += 1);
    try {
      const { parts, files } = await get(this.#path);
      if (number === this.#number) this.#draw(parts, files);
    } catch (error) {
      if (number === this.#number) setText(this.#summary, error.message);
    }
  }

  #tellNone() {
    setText(this.#summary, this.#isOver ? "This run has sent no changes: it made none, or its folder is in no git repository." : "No changes so far. They come here after the first edit, if the folder is in a git repository.");
  }

  async #download() {
    for (const part of this.#parts) await download(part, `/api/artifacts/${encodeURIComponent(part.id)}`);
  }

  #draw(parts, files) {
    this.#parts = parts;
    this.#isLoaded = true;
    if (!parts.length) return this.#tellNone();
    const [added, removed] = ["added", "removed"].map((name) => files.reduce((sum, file) => sum + file[name], 0));
    const bytes = parts.reduce((sum, part) => sum + part.size, 0);
    this.#summary.replaceChildren(`${counted(files.length, "file")}, `, countsOf({ added, removed }), `, ${size(bytes)}, as of ${moment(parts.at(-1).created_at)}`);
    this.#save.hidden = false;
    const known = this.#entries;
    this.#entries = new Map();
    for (const [index, file] of files.entries()) {
      const before = known.get(file.path);
      if (before && before.file.key === file.key && before.file.status === file.status) {
        before.file = file;
        this.#entries.set(file.path, before);
        continue;
      }
      const isOpen = before ? before.isOpen : !known.size && file.text !== undefined;
      this.#entries.set(file.path, new Entry(file, index, isOpen, () => this.#isShown, (from) => this.#lines(file, from)));
    }
    this.#place();
    this.#onNews(files.length);
    this.#goToWanted();
  }

  /** Load lines of a file. Since it was drawn a newer diff may have come, with the same lines elsewhere. */
  async #lines(file, from) {
    const { begin, end } = this.#entries.get(file.path)?.file ?? file;
    const { text, next } = await get(`${this.#path}/lines?of=${encodeURIComponent(this.#parts[0].id)}&begin=${begin + from}&end=${end}`);
    return { text, next: next && next - begin };
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
  #lines;
  #body = el("div", { class: "changed-body" });

  /**
   * `isSeen` says whether anybody looks: what is open is drawn only then. `lines` loads lines from so
   * many bytes behind the first one on.
   */
  constructor(file, index, isOpen, isSeen, lines) {
    this.file = file;
    this.#isSeen = isSeen;
    this.#lines = lines;
    const href = `?tab=changes&file=${encodeURIComponent(file.path)}`;
    const name = [...(file.from ? [el("span", { class: "hint" }, `${legible(file.from)} → `)] : []), ...pathOf(file.path)];
    const mark = el("span", { class: `changed-mark ${file.status}`, title: WORDS[file.status] }, el("span", { "aria-hidden": "true" }, SIGNS[file.status]), el("span", { class: "unseen" }, `${WORDS[file.status]}: `));
    this.row = el("li", {}, el("a", { class: "changed-row", href, "data-file": file.path }, mark, el("span", { class: "changed-path" }, name, file.was_changed && el("span", { class: "hint" }, " changed before the run too")), countsOf(file)));
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

  async show() {
    const summary = this.element.querySelector("summary");
    this.element.open = true;
    const drawn = this.draw();
    this.element.scrollIntoView({ block: "start" });
    summary.focus({ preventScroll: true });
    // Of the last file only its lines make room below it.
    await drawn;
    if (document.activeElement === summary) this.element.scrollIntoView({ block: "start" });
  }

  async draw() {
    if (this.#isDrawn || !this.element.open || !this.#isSeen()) return;
    this.#isDrawn = true;
    const { is_binary: isBinary, was_changed: wasChanged, status, lines, text } = this.file;
    if (wasChanged) this.#body.append(el("p", { class: "hint" }, "It was changed before the run began too: not all of this is the run’s."));
    if (isBinary) this.#body.append(el("p", { class: "hint" }, "A binary file: only its name is sent."));
    else if (!lines) this.#body.append(el("p", { class: "hint" }, status === "renamed" ? "Renamed, and not changed." : "No lines were changed."));
    else if (text !== undefined) this.#add(text, 0, null);
    else await this.#load(0, 0);
  }

  /** Load lines, and show them; `number` is how many are shown. */
  async #load(from, number) {
    const state = el("p", { class: "hint", role: "status" }, "Loading…");
    this.#body.append(state);
    try {
      const { text, next } = await this.#lines(from);
      state.remove();
      this.#add(text, number, next);
    } catch (error) {
      const again = el("button", { type: "button", class: "plain" }, "Try again");
      again.addEventListener("click", () => {
        state.remove();
        this.#load(from, number);
      });
      state.replaceChildren(`${error.message} `, again);
    }
  }

  #add(text, number, next) {
    const { path, lines } = this.file;
    const shown = text.split("\n").map(legible);
    const end = number + shown.length;
    const label = number ? `Lines ${number + 1} to ${end} of the changes in ${path}` : `Changes in ${path}`;
    this.#body.append(el("pre", { class: "file changed-lines", tabindex: "0", role: "region", "aria-label": label }, diffLines(shown.join("\n"), true)));
    if (next === null) return;
    const more = el("button", { type: "button", class: "plain" }, `Show ${counted(Math.min(MAX_LINES, lines - end), "more line")}`);
    more.addEventListener("click", () => {
      more.remove();
      this.#load(next, end);
    });
    this.#body.append(more);
  }
}

function pathOf(path) {
  const cut = path.lastIndexOf("/") + 1;
  return [cut > 0 && el("span", { class: "changed-folder" }, legible(path.slice(0, cut))), el("span", { class: "changed-name" }, legible(path.slice(cut)))];
}

function countsOf({ added, removed, is_binary: isBinary }) {
  if (isBinary) return el("span", { class: "changed-counts" }, "binary");
  if (!added && !removed) return el("span", { class: "changed-counts" });
  return el(
    "span",
    { class: "changed-counts" },
    el("span", { class: "added" }, `+${many(added)}`),
    " ",
    el("span", { class: "removed" }, `−${many(removed)}`),
  );
}
