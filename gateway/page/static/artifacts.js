/** A run's files: each can be viewed here or downloaded. */

import { request } from "./api.js";
import { diffLines } from "./diff.js";
import { actionButton, el } from "./dom.js";
import { download } from "./download.js";
import { legible } from "./values.js";
import { size } from "./words.js";

// A larger file is downloaded, and read in an editor.
const MAX_VIEWED_BYTES = 2_000_000;
const MAX_SHOWN_CHARS = 500_000;
const MAX_SHOWN_LINES = 20_000;
const MAX_JSON_DEPTH = 50;
// What a run has changed has a view of its own.
const CHANGES = /^changes(?:\.\d+)?\.diff$/;

export class Artifacts {
  #list = el("ul", { class: "artifacts" });
  #empty = el("p", { class: "hint" });
  #known = new Map();
  #viewer = el("dialog", { class: "viewer", "aria-labelledby": "viewer-title" });

  constructor(run) {
    this.element = el(
      "section",
      { class: "card", "aria-labelledby": "artifacts-title" },
      el("h2", { id: "artifacts-title" }, "Files"),
      this.#empty,
      this.#list,
      this.#viewer,
    );
    this.update(run);
  }

  /** Say when files come, while there are none. */
  update(run) {
    const isOver = run.status === "done" || run.status === "failed";
    this.#empty.textContent = isOver ? "This run left no files." : "The log comes when the run ends; git diff brings latest.diff.";
    this.#empty.hidden = this.#known.size > 0;
  }

  /** Show one file. Of several with one name the latest comes first. */
  show(artifact) {
    if (this.#known.has(artifact.id) || CHANGES.test(artifact.name)) return;
    const address = `/api/artifacts/${encodeURIComponent(artifact.id)}`;
    const problem = el("p", { class: "notice bad", role: "alert", hidden: true });
    const fail = (sentence) => {
      problem.textContent = sentence;
      problem.hidden = false;
    };
    const view = actionButton("View", { "aria-label": `View ${artifact.name}` }, () => this.#view(artifact, address, fail), fail);
    const item = el(
      "li",
      {},
      el("div", { class: "artifact-name" }, el("span", { class: "file-name" }, artifact.name), el("span", { class: "hint" }, size(artifact.size))),
      el(
        "div",
        { class: "button-row" },
        artifact.size <= MAX_VIEWED_BYTES && artifact.type !== "file" && view,
        actionButton("Download", { "aria-label": `Download ${artifact.name}` }, () => download(artifact, address), fail),
      ),
      problem,
    );
    this.#list.prepend(item);
    this.#known.set(artifact.id, item);
    this.#empty.hidden = true;
  }

  async #view(artifact, address, fail) {
    const text = await (await request(`${address}?view=1`)).text();
    this.#viewer.replaceChildren(
      el(
        "div",
        { class: "section-head" },
        el("h2", { id: "viewer-title", class: "file-name" }, artifact.name),
        actionButton("Download", {}, () => download(artifact, address), fail),
        el("button", { type: "button", autofocus: true, onclick: () => this.#viewer.close() }, "Close"),
      ),
      el("pre", { class: "file", tabindex: "0", "aria-label": `Content of ${artifact.name}` }, shown(text, artifact.type)),
    );
    this.#viewer.showModal();
  }
}

/** Return what is shown of a file: so much that a browser draws it at once. */
function shown(text, type) {
  const whole = type === "json" ? readable(text) : text;
  const part = whole.slice(0, MAX_SHOWN_CHARS).split("\n", MAX_SHOWN_LINES).join("\n");
  const note = part.length < whole.length && el("span", { class: "hint" }, "\nThis is its beginning. Download it to see all.");
  return [type === "diff" ? diffLines(legible(part)) : legible(part) || "(empty)", note].flat();
}

function depthOf(text) {
  let deepest = 0;
  let depth = 0;
  for (const bracket of text.match(/[[\]{}]/g) ?? []) {
    depth += bracket === "[" || bracket === "{" ? 1 : -1;
    deepest = Math.max(deepest, depth);
  }
  return deepest;
}

function readable(text) {
  // Each level indents what is in it, so deep ones would become a thousand times as long.
  if (depthOf(text) > MAX_JSON_DEPTH) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // one document a line, or none at all
  }
}
