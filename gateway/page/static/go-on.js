/** How to go on with the session of a run that is over. */

import { el } from "./dom.js";
import { openNewRun } from "./new-run.js";
import { asText } from "./values.js";

// What can stand in a command line as it is.
const PLAIN = /^[A-Za-z0-9][A-Za-z0-9_-]{0,199}$/;

export class GoOn {
  #shown = "";
  #run = null;
  /** The same in a button, for a thumb. */
  button = el("button", { type: "button", class: "primary go-on", hidden: true, onclick: () => openNewRun({ resume: this.#run }) }, "Go on with this session…");

  constructor() {
    this.element = el("section", { class: "card", "aria-labelledby": "go-on-title", hidden: true });
  }

  /** Show it for a run that has ended and left a session. */
  update(run) {
    this.#run = run;
    const isOver = run.status === "done" || run.status === "failed";
    const known = asText(run.session_id);
    const session = isOver && run.runner === "claude" && PLAIN.test(known) ? known : "";
    if (session === this.#shown) return;
    this.#shown = session;
    this.element.hidden = this.button.hidden = !session;
    this.element.replaceChildren(
      el("h2", { id: "go-on-title" }, "Go on with this session"),
      el("p", { class: "hint" }, "A new run takes it up where it ended, in the same folder. You get the line that starts it, or send it to a folder that waits."),
      el("div", { class: "button-row" }, el("button", { type: "button", onclick: () => openNewRun({ resume: this.#run }) }, "New run…")),
    );
  }
}
