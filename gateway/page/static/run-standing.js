/** How a run stands, in a line for its head: what it costs, its turns, its model, where it works. */

import { el } from "./dom.js";
import { asNumber, asText } from "./values.js";
import { dollars, folderName } from "./words.js";

// The date at its end says nothing to a person.
const modelName = (model) => asText(model, 60).replace(/-\d{8}$/, "");

export class RunStanding {
  element = el("ul", { class: "standing", tabindex: "0", "aria-label": "How it stands", hidden: true });
  /** Whether all that was sent is here: a tick, with words behind it. */
  tick = el("details", { class: "verdict", hidden: true });
  #shown = "";
  #ticked = "";

  /** Show how it stands now. */
  update(run) {
    const facts = standingOf(run);
    if (JSON.stringify(facts) !== this.#shown) {
      this.#shown = JSON.stringify(facts);
      this.element.replaceChildren(...facts.map(([name, text]) => el("li", { "data-fact": name, title: name }, el("span", { class: "unseen" }, `${name}: `), text)));
      this.element.hidden = !facts.length;
    }
    const { ok, sentence } = run.verdict ?? {};
    const isTold = run.verdict && ok !== false;
    this.tick.hidden = !isTold;
    if (!isTold || sentence === this.#ticked) return;
    this.#ticked = sentence;
    this.tick.replaceChildren(el("summary", {}, ok ? "✓ complete" : "received"), el("p", {}, asText(sentence)));
  }
}

/** Return what is known, as `[name, text]` pairs: of the run as it goes on, and as it ended. */
function standingOf({ progress, result, working_dir: folder, branch }) {
  const known = { ...progress, ...result };
  const cost = asNumber(known.totalCostUsd);
  const turns = asNumber(known.numTurns);
  const limits = [known.limits ?? known.limit].flat().map((each) => asText(each, 80)).filter(Boolean);
  return [
    ["Cost", cost === null ? "" : dollars(cost)],
    ["Turns", turns === null ? "" : `${turns} ${turns === 1 ? "turn" : "turns"}`],
    ["Model", modelName(known.model)],
    ["Limits", limits.join(", ")],
    ["Branch", asText(branch, 60)],
    ["Folder", folderName(folder)],
  ].filter(([, text]) => text);
}
