/** One line of the list of runs: what it says, and its name, which can be changed in its place. */

import { BASE } from "./base.js";
import { el } from "./dom.js";
import { canRemove } from "./run-actions.js";
import { rename } from "./run-name.js";
import { asNumber, asText } from "./values.js";
import { age, dollars, folderName, lasted, moment, refusedTools, status, title, when } from "./words.js";

const MAX_FOUND = 300;
const MAX_NAME = 60;
const MAX_BRANCH = 28;
// No line begins with the dot.
const BETWEEN = "\u00a0· ";

export class RunRow {
  #shown = "";
  #line = null;
  #href;
  #link;
  #more;
  #check;
  #body;

  /** `onMenu` opens what can be done with the run; `onPick` is told that it was chosen or not. */
  constructor(id, onMenu, onPick) {
    this.#href = `${BASE}/runs/${encodeURIComponent(id)}`;
    this.#link = el("a", { class: "run" });
    this.#more = el("button", { type: "button", class: "plain run-more", "aria-haspopup": "dialog", onclick: () => onMenu(this.#line, this) }, "⋯");
    this.#check = el("input", { type: "checkbox", hidden: true, onchange: () => onPick(id, this.#check.checked) });
    this.#link.addEventListener("click", (event) => {
      if (this.#check.hidden) return;
      event.preventDefault();
      this.#check.click();
    });
    this.#body = el("div", { class: "run-body" }, this.#link, this.#more);
    this.element = el("li", {}, this.#check, this.#body);
  }

  /** Show the run as it is; `isDouble` if another one in sight has the same name. The last `names` say
   * which folder is meant, and `looked` what is looked for: the run opens where that was found. */
  update(line, isDouble, names, looked = "") {
    this.#line = line;
    const content = describe(line, isDouble, names);
    // A session draws its words anywhere on a screen: only its search over all runs puts them together.
    content.find = line.mode !== "interactive" && content.found && wordIn(content.found, looked);
    if (this.#shown === JSON.stringify(content)) return;
    this.#shown = JSON.stringify(content);
    fill(this.#link, content);
    this.#link.setAttribute("href", content.find ? `${this.#href}?${new URLSearchParams({ find: content.find })}` : this.#href);
    this.element.classList.toggle("unseen-run", content.isNew);
    this.#more.setAttribute("aria-label", `More for ${content.title}`);
    this.#check.setAttribute("aria-label", `Select ${content.title}`);
  }

  /** Show or hide the box to choose it by; what goes on cannot be chosen. */
  offerPick(isOffered, isPicked) {
    this.#check.hidden = !isOffered;
    this.#check.disabled = !canRemove(this.#line);
    this.#check.checked = isPicked && !this.#check.disabled;
    this.#more.hidden = isOffered;
  }

  /** Let the name be changed where it stands. */
  rename(onFailure) {
    rename(this.#line, this.#body, onFailure);
  }
}

/** Return what to find in a run, where a search has found some words: all that was looked for, or one word. */
function wordIn(found, looked) {
  const words = looked.split(/\s+/).sort((one, other) => other.length - one.length);
  return [looked, ...words].find((each) => found.toLowerCase().includes(each.toLowerCase())) ?? "";
}

function describe(line, isDouble, names) {
  const [kind, word] = status(line);
  const isOver = line.stage === "done";
  const since = asNumber(line.stage_at) ?? line.created_at;
  const cost = asNumber(line.cost);
  return {
    kind,
    word,
    title: title(line),
    folder: asText(folderName(line.working_dir, names) || line.sent_to, MAX_NAME),
    branch: asText(line.branch, MAX_BRANCH),
    time: age(since),
    moment: moment(since),
    lasted: lasted(line),
    cost: cost === null ? "" : dollars(cost),
    code: isOver && line.exit_code ? `exit code ${asText(line.exit_code)}` : "",
    asks: line.stage === "needs" && line.open_questions > 1 ? `${line.open_questions} questions` : "",
    refused: isOver ? (line.refused ?? refusedTools(line)) : 0,
    isBad: line.incomplete === true,
    silent: line.silent ? "its runner is not heard of" : "",
    isNew: isOver && line.seen_at == null,
    found: asText(line.found, MAX_FOUND),
    told: isDouble ? `${when(line.created_at)}, …${asText(line.id).slice(-4)}` : "",
  };
}

function fill(link, content) {
  const facts = [content.folder, content.branch, content.lasted, content.cost, content.asks, content.code, content.told].filter(Boolean);
  const trouble = [content.silent, content.refused > 0 && `${content.refused} ${content.refused === 1 ? "tool" : "tools"} refused`, content.isBad && "output incomplete"].filter(Boolean);
  link.replaceChildren(
    el("span", { class: `badge ${content.kind}` }, content.word),
    el("span", { class: "run-title" }, content.isNew && el("span", { class: "new-mark" }, "New"), content.title),
    el("span", { class: "run-facts" }, facts.map((each, index) => [index > 0 && BETWEEN, el("bdi", {}, each)]).flat(), trouble.map((each, index) => [facts.length + index > 0 && BETWEEN, el("span", { class: "run-trouble" }, each)])),
    el("span", { class: "run-age", title: content.moment }, content.time),
    content.found && el("span", { class: "run-found" }, content.found),
  );
}
