/** The dialog that makes a run, and shows the line that starts it. */

import { post } from "./api.js";
import { BASE } from "./base.js";
import { copyButton } from "./copy.js";
import { el } from "./dom.js";
import { keepDraft } from "./drafts.js";
import { asText } from "./values.js";
import { pageOf, WaitingFolders } from "./waiting.js";

const HELP = "With a prompt the run is a job that ends by itself. Without one, at a terminal, it is a session that you use as always.";
const HELP_THERE = "The run is a job that ends by itself. The folder above starts it, in its own terminal.";
const MAX_PROMPT = 1_000_000;

/** Show the dialog; with a run in `again` to repeat it, with one in `resume` to go on with its session. */
export function openNewRun({ again = null, resume = null } = {}) {
  const dialog = el("dialog", { class: "new-run", "aria-labelledby": "new-run-title" });
  dialog.addEventListener("close", () => dialog.remove());
  dialog.append(form(dialog, again, resume));
  document.body.append(dialog);
  dialog.showModal();
}

function form(dialog, again, resume) {
  const folder = asText((again ?? resume)?.working_dir);
  const problem = el("p", { class: "notice bad", role: "alert", hidden: true });
  const prompt = el("textarea", { id: "prompt", rows: "4", autofocus: true, "aria-describedby": "prompt-help" });
  prompt.value = again ? asText(again.command ?? again.prompt, MAX_PROMPT) : "";
  const noteDraft = keepDraft(prompt, again ? `again ${again.id}` : resume ? `go on ${resume.id}` : "new run");
  const forget = () => {
    prompt.value = "";
    noteDraft();
  };
  const create = el("button", { type: "submit", class: "primary" }, "Create the run");
  const line = folder && el("p", { class: "hint" }, "Its line goes to the folder ", el("code", {}, folder), ".");
  const optional = el("span", { class: "hint" }, "(optional)");
  const help = el("p", { id: "prompt-help", class: "hint" }, HELP);
  const folders = new WaitingFolders((offer) => {
    create.textContent = offer ? "Start" : "Create the run";
    optional.hidden = Boolean(offer);
    help.textContent = offer ? HELP_THERE : HELP;
    prompt.required = Boolean(offer);
    if (line) line.hidden = Boolean(offer);
  }, again ?? resume, Boolean(resume));
  folders.follow();
  const element = el(
    "form",
    { class: "stack" },
    el("h2", { id: "new-run-title" }, again ? "Run it again" : resume ? "Go on with the session" : "New run"),
    folders.element,
    el("label", { for: "prompt" }, "Prompt ", optional),
    prompt,
    help,
    line,
    folders.options,
    problem,
    el("div", { class: "button-row end" }, el("button", { type: "button", onclick: () => (forget(), dialog.close()) }, "Cancel"), create),
  );
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    create.disabled = true;
    try {
      const command = prompt.value.trim();
      const model = again ? { again: again.id } : resume ? { resume: resume.id } : {};
      const started = folders.chosen && pageOf(await folders.send(command, model));
      const created = started ? null : await post("/api/runs", { command, ...model });
      forget();
      if (started) location.assign(started);
      else showLine(dialog, created);
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      create.disabled = false;
      prompt.focus();
    }
  });
  return element;
}

/** Show in a dialog the line that starts a run; `hint` says what else there is to know. */
export function showLine(dialog, run, hint = "") {
  const copy = copyButton(() => run.start_command, "Copy the line");
  copy.classList.replace("plain", "primary");
  dialog.replaceChildren(
    el(
      "div",
      { class: "stack" },
      el("h2", { id: "new-run-title" }, "Start it"),
      el("p", {}, run.start_command.startsWith(" cd ") ? "Paste this line into a terminal:" : "Paste this line into a terminal, in the folder of your project:"),
      el("code", { class: "line", id: "start-line", tabindex: "0" }, run.start_command),
      el("p", { class: "hint" }, "It holds the run’s token, which is shown only here. Anyone who has it can send output for this run. The blank in front keeps it out of the history of fish, and of many setups of bash."),
      hint && el("p", { class: "hint" }, hint),
      el(
        "div",
        { class: "button-row end" },
        el("button", { type: "button", onclick: () => dialog.close() }, "Close"),
        el("a", { class: "button", href: `${BASE}/runs/${encodeURIComponent(run.id)}` }, "Watch the run"),
        copy,
      ),
    ),
  );
  copy.focus();
}
