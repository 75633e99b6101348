/** What can be done with a run apart from what it does itself: its line, again, go on, delete. */

import { get, post } from "./api.js";
import { BASE } from "./base.js";
import { actionButton, el, setText } from "./dom.js";
import { openNewRun, showLine } from "./new-run.js";
import { rename } from "./run-name.js";
import { fail } from "./toast.js";
import { asText } from "./values.js";
import { folderName, title, when } from "./words.js";

const MAX_NAMED = 5;
const MAX_TITLE = 80;
const GOES_ON = /^[A-Za-z0-9][A-Za-z0-9_-]{0,199}$/;

const pathOf = (id) => `/api/runs/${encodeURIComponent(id)}`;

/** Whether a run can be deleted: it does not go on, or nothing is heard of it. */
export const canRemove = (run) => run.status !== "running" || run.silent === true;

/** Whether a run has left a session that another one can go on with. */
export const canGoOn = (run) => (run.status === "done" || run.status === "failed") && run.runner === "claude" && GOES_ON.test(asText(run.session_id));

/** Open the list of what can be done with a run of the list; `row` is where its name can be changed. */
export async function openMenu(line, row) {
  const problem = el("p", { class: "notice bad", role: "alert", hidden: true });
  const tell = (sentence) => {
    problem.textContent = sentence;
    problem.hidden = false;
  };
  const dialog = openDialog("run-menu", shortened(line));
  const choose = (label, action, attributes = {}) =>
    actionButton(label, attributes, async () => {
      await action();
      dialog.close();
    }, tell);
  dialog.append(
    problem,
    el(
      "div",
      { class: "menu" },
      line.status === "pending" && choose("Show the line that starts it", () => openStart(line), { class: "primary" }),
      choose("Rename", () => {
        dialog.close(); // which gives the focus back, and the field takes it then
        row.rename(fail);
      }),
      choose(keepLabel(line), () => keep(line)),
      choose("Again: the same prompt and folder", async () => openNewRun({ again: await get(pathOf(line.id)) })),
      line.stage === "done" && line.runner === "claude" && choose("Go on with its session", async () => {
        const run = await get(pathOf(line.id));
        if (!canGoOn(run)) throw new Error("This run has left no session to go on with.");
        openNewRun({ resume: run });
      }),
      canRemove(line)
        ? choose("Delete…", () => confirmRemoval([line]), { class: "danger" })
        : el("p", { class: "hint" }, "A run that goes on cannot be deleted. Open it, and stop it first."),
    ),
    el("div", { class: "button-row end" }, el("button", { type: "button", onclick: () => dialog.close() }, "Close")),
  );
  dialog.showModal();
}

const keepLabel = (run) => (run.kept ? "No longer keep" : "Keep for ever");

/** Keep a run when others of its age are removed, or no longer. */
async function keep(run) {
  // Noted here too: the menu may be opened again before the stream tells it.
  run.kept = (await post(`${pathOf(run.id)}/keep`, { keep: !run.kept })).kept;
}

/** Make a new token for a run that was not started, and show its line again. */
export async function openStart(run) {
  const made = await post(`${pathOf(run.id)}/start-line`);
  const dialog = openDialog("new-run", "");
  showLine(dialog, made, "A line that was shown before does not work any more.");
  dialog.showModal();
}

/** Ask whether these runs are to be deleted; `onRemoved` gets the ids of those that are. */
export function confirmRemoval(lines, onRemoved = () => {}) {
  const one = lines.length === 1;
  const dialog = openDialog("removal", one ? "Delete this run?" : `Delete ${lines.length} runs?`);
  const problem = el("div", { role: "alert" });
  const named = lines.slice(0, MAX_NAMED).map((line) => el("li", {}, shortened(line), " ", el("span", { class: "hint" }, [folderName(line.working_dir), when(line.created_at)].filter(Boolean).join(" · "))));
  if (lines.length > MAX_NAMED) named.push(el("li", {}, `and ${lines.length - MAX_NAMED} more`));
  const tell = (sentences) => problem.replaceChildren(...sentences.map((each) => el("p", { class: "notice bad" }, each)));
  const remove = actionButton(one ? "Delete the run" : `Delete ${lines.length} runs`, { class: "primary danger" }, async () => {
    const { removed, refused } = await post("/api/runs/delete", { ids: lines.map((line) => line.id) });
    if (removed.length) onRemoved(removed);
    if (!refused.length) return dialog.close();
    const names = new Map(lines.map((line) => [line.id, shortened(line)]));
    tell(refused.map(({ id, error }) => `${names.get(id)}: ${error}`));
    remove.hidden = true;
  }, (sentence) => tell([sentence]));
  dialog.append(
    el("ul", { class: "named" }, named),
    ...lines.filter((line) => line.silent).slice(0, 1).map(() => el("p", {}, "A run of which nothing is heard may go on all the same; the gateway takes nothing from it any more.")),
    el("p", {}, `${one ? "Its" : "Their"} output, questions, commands and files are deleted here too. This cannot be undone. What lies in the project’s folder stays.`),
    problem,
    el("div", { class: "button-row end" }, el("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, one ? "Keep it" : "Keep them"), remove),
  );
  dialog.showModal();
}

function openDialog(kind, heading) {
  const dialog = el("dialog", { class: kind, "aria-labelledby": `${kind}-title` });
  if (heading) dialog.append(el("h2", { id: `${kind}-title` }, heading));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  return dialog;
}

function shortened(line) {
  const name = title(line);
  return name.length > MAX_TITLE ? `${name.slice(0, MAX_TITLE - 1)}…` : name;
}

/** The card of these actions on a run's own page. It also notes that somebody has looked at the end. */
export class RunActions {
  #run = null;
  #isNoting = false;
  #standing = el("p", {});
  #again = actionButton("Again…", {}, () => openNewRun({ again: this.#run }), fail);
  #keep = actionButton("Keep for ever", {}, () => keep(this.#run), fail);
  #remove = actionButton("Delete…", { class: "danger" }, () => confirmRemoval([this.#run], () => location.assign(`${BASE}/`)), fail);

  constructor() {
    const buttons = el("div", { class: "button-row" }, actionButton("Rename", {}, () => rename(this.#run, buttons, fail), fail), this.#again, this.#keep, this.#remove);
    this.element = el("section", { class: "card run-actions", "aria-label": "This run", hidden: true }, buttons);
    /** What is there to start the run with, as long as it has not begun. */
    this.start = el(
      "div",
      { class: "start-place", hidden: true },
      this.#standing,
      actionButton("Show the line that starts it", { class: "primary" }, () => openStart(this.#run), fail),
    );
    document.addEventListener("visibilitychange", () => this.#noteSeen());
  }

  /** Offer what can be done with the run as it is now. */
  update(run) {
    this.#run = run;
    this.#noteSeen();
    this.element.hidden = false;
    this.start.hidden = run.status !== "pending";
    setText(this.#standing, run.reason ? "This run was stopped before it began. It will not be started." : "This run was not started yet.");
    // Not made anew: somebody may be typing a name in their place.
    this.#again.hidden = run.status === "pending";
    this.#keep.textContent = keepLabel(run);
    this.#remove.hidden = !canRemove(run);
  }

  async #noteSeen() {
    const run = this.#run;
    if (run?.stage !== "done" || run.seen_at != null || this.#isNoting || document.visibilityState !== "visible") return;
    this.#isNoting = true;
    try {
      await post(`${pathOf(run.id)}/seen`);
    } catch {
      // It stays marked as new, which is no harm.
    } finally {
      this.#isNoting = false;
    }
  }
}
