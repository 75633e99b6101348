/** What the operator may do with a run: its commands with their results, typing, stopping. */

import { post } from "./api.js";
import { resultNodes } from "./command-result.js";
import { actionButton, el, setText } from "./dom.js";
import { announce } from "./notices.js";
import { secondPress } from "./second-press.js";
import { say } from "./toast.js";
import { asText } from "./values.js";
import { age, talkName } from "./words.js";

const LONG_RESULT_LINES = 12;
const SPECIAL = new Map([["__STOP__", "Stop"], ["__HALT__", "Halt"], ["__ESCAPE__", "Ctrl-C"]]);
const SENT = { stop: "Stop", halt: "Halt", escape: "Ctrl-C" };
const ENDINGS = [
  ["stop", "Press again to stop the run.", "It is asked to end, and killed after 10 seconds.", "stop"],
  ["halt", "Press again to kill it at once.", "Everything that the run started is killed at once.", "plain danger"],
];
const MAX_OFFERED = 200;
const MAX_RESULT_CHARS = 400_000; // more than the gateway gives
const INPUT = "__INPUT__:";
// Which kind of project a command is for, by its program; others fit everywhere.
const NEEDS = new Map([["git", "git"], ["npm", "npm"], ["pnpm", "pnpm"], ["yarn", "yarn"], ["pytest", "python"], ["cargo", "cargo"], ["go", "go"]]);
// What a phone's keyboard does not have: the label, what it is called, what a terminal sends for it.
const KEYS = [
  ["Esc", "Esc", "\x1b"],
  ["↑", "Arrow up", "\x1b[A"],
  ["↓", "Arrow down", "\x1b[B"],
];

export class RunControls {
  #path;
  #active;
  #offered = "";
  #problem = el("p", { class: "notice bad", role: "alert", hidden: true });
  /** The buttons that end the run; the page puts them where they are always at hand. */
  stopping = el("div", { class: "button-row stopping" });
  #commands = el("div", { class: "commands" });
  /** What types into a session; the page puts it there too. */
  typing;
  #repeat;
  #last = ""; // the program that was run last
  #history = el("ol", { class: "history" });
  #entries = new Map();
  #disarm = [];

  /** The buttons that end the run are there at once, whatever is known of it. */
  constructor(id) {
    this.#path = `/api/runs/${encodeURIComponent(id)}`;
    const fail = (sentence) => this.#tellProblem(sentence);
    for (const [what, question, meaning, kind] of ENDINGS) {
      const [button, disarm] = secondPress(SENT[what], { class: kind, title: meaning }, { asked: `${SENT[what]} the run?`, question, room: this.stopping }, () => this.#send(what), fail);
      this.stopping.append(button);
      this.#disarm.push(disarm);
    }
    this.typing = this.#buildTyping(fail);
    this.#repeat = actionButton("Repeat the last one", { class: "repeat", hidden: true }, () => this.#send("command", { command: this.#last }), fail);
    this.#active = el("div", { class: "stack", hidden: true }, this.#commands, this.#repeat);
    this.element = el(
      "section",
      { class: "card", "aria-labelledby": "controls-title" },
      el("h2", { id: "controls-title" }, "Commands"),
      this.#problem,
      this.#active,
      this.#history,
    );
    this.element.hidden = true;
  }

  /** Take back what types into a session. */
  takeTyping() {
    this.#active.prepend(this.typing);
  }

  /** Offer what the run takes at this moment. */
  update(run) {
    const isActive = run.status === "running" || run.status === "pending";
    this.#isSession = run.mode === "interactive";
    this.#isPending = run.status === "pending";
    this.#active.hidden = !isActive;
    this.stopping.hidden = !isActive || (this.#isPending && Boolean(run.reason));
    // In print mode nobody reads the terminal, whatever is allowed.
    this.typing.hidden = !run.remote_input || run.mode !== "interactive" || run.status !== "running";
    if (!isActive) for (const disarm of this.#disarm) disarm();
    const commands = run.status === "running" && Array.isArray(run.commands) ? run.commands : [];
    const offered = commands.filter((each) => typeof each === "string").slice(0, MAX_OFFERED);
    this.element.hidden = !offered.length && (this.typing.hidden || !this.element.contains(this.typing)) && !this.#entries.size;
    // Only when it has changed: new buttons would take the focus away.
    const kinds = Array.isArray(run.project) ? run.project : null;
    const content = JSON.stringify([offered, kinds]);
    this.#isOffered = (command) => offered.includes(command);
    this.#offerRepeat();
    if (content === this.#offered) return;
    this.#offered = content;
    const isFitting = (command) => fits(command, kinds);
    const rest = offered.filter((command) => !isFitting(command));
    this.#commands.replaceChildren(
      ...offered.filter(isFitting).map((command) => this.#commandButton(command)),
      rest.length
        ? el("details", { class: "more-commands" }, el("summary", {}, `More (${rest.length})`), el("div", { class: "commands" }, rest.map((command) => this.#commandButton(command))))
        : "",
    );
  }

  #isSession = false;
  #isPending = false;
  #isOffered = () => false;

  #offerRepeat() {
    this.#repeat.hidden = !this.#last || !this.#isOffered(this.#last);
    this.#repeat.title = this.#last;
  }

  #commandButton(command) {
    return actionButton(command, { class: "command" }, () => this.#send("command", { command }), (sentence) => this.#tellProblem(sentence));
  }

  /** Show one command and what became of it, which may come before the answer that has it waiting. */
  show(command) {
    const known = this.#entries.get(command.id);
    if (known && (known.status === command.status || command.status === "pending")) return;
    const element = historyEntry(command, this.#isSession);
    if (known) known.element.replaceWith(element);
    else this.#history.prepend(element);
    this.#entries.set(command.id, { element, status: command.status });
    this.element.hidden = false;
    if (!known && !command.command.startsWith("__")) {
      this.#last = command.command;
      this.#offerRepeat();
    }
    if (known && command.status !== "pending") {
      const isBad = command.status !== "done";
      // What a person says to a run has its own place, which tells what became of it.
      const isTalk = talkName(command.command) !== null || command.command.startsWith(INPUT) || (command.command === "__ESCAPE__" && !this.#isSession);
      const tell = isTalk ? announce : say;
      tell(`${nameOf(command.command, this.#isSession)}: ${isBad ? `failed. ${asText(command.error, 200)}` : "done."}`, isBad);
    }
  }

  async #send(what, body = {}) {
    this.#problem.hidden = true;
    await post(`${this.#path}/${what}`, body);
    if (what !== "input") say(this.#isPending ? "It will not be started." : `${SENT[what] ?? body.command}: sent. Waiting for the runner…`);
  }

  #tellProblem(sentence) {
    this.element.hidden = false;
    setText(this.#problem, sentence);
    this.#problem.hidden = false;
    say(sentence, true);
  }

  #buildTyping(fail) {
    const field = el("textarea", { id: "input", rows: "2", placeholder: "Type…", autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
    const send = actionButton("Send", { class: "primary" }, async () => {
      // Enter is what a terminal sends for the key, and not a line feed.
      await this.#send("input", { text: `${field.value}\r` });
      field.value = "";
      field.focus();
    }, fail);
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      send.click();
    });
    return el(
      "div",
      { class: "stack typing", hidden: true },
      el("label", { for: "input" }, "Type into the session"),
      field,
      el(
        "div",
        { class: "button-row keys" },
        send,
        actionButton("Ctrl-C", {}, () => this.#send("escape"), fail),
        KEYS.map(([label, name, text]) => actionButton(label, { "aria-label": name }, () => this.#send("input", { text }), fail)),
      ),
    );
  }
}

/** Whether a command fits a project of these kinds; null if they are not known. */
function fits(command, kinds) {
  const needed = NEEDS.get(/^\S*/.exec(command)[0]);
  return !kinds || !needed || kinds.includes(needed);
}

const nameOf = (command, isSession) => {
  // Until it is delivered; the gateway does not keep what was typed.
  const typed = command.startsWith(INPUT) && command.slice(INPUT.length).trimEnd();
  if (typed) return `${isSession ? "Typed" : "Message"}: ${typed}`;
  if (typed === "") return isSession ? "Typed into the session" : "Message";
  // A session has the key on its terminal; a job has a button.
  if (command === "__ESCAPE__" && !isSession) return "Interrupt";
  return talkName(command) ?? SPECIAL.get(command) ?? command;
};

const STATUS_WORDS = { pending: "waiting for the runner", done: "done", failed: "failed" };

function historyEntry({ command, status, result, error, created_at: createdAt, person }, isSession) {
  const isSpecial = command.startsWith("__");
  // Of what is no program there is nothing to say but that it was done.
  const outcome = isSpecial && status === "done" ? [] : [result, error];
  const text = asText(outcome.filter(Boolean).join("\n").trimEnd(), MAX_RESULT_CHARS);
  const isSilent = !text && status === "done" && !isSpecial;
  return el(
    "li",
    { class: `history-entry ${status}` },
    el(
      "p",
      { class: "history-head" },
      el(isSpecial ? "span" : "code", { class: "history-name" }, nameOf(command, isSession)),
      el("span", { class: `outcome ${status}` }, STATUS_WORDS[status] ?? status),
      el("span", { class: "hint", title: new Date(createdAt * 1000).toLocaleString() }, [person, age(createdAt)].filter(Boolean).join(", ")),
    ),
    text && resultBlock(text, error ? "bad" : "", nameOf(command, isSession), isSpecial ? [text] : resultNodes(command, text)),
    isSilent && el("p", { class: "hint" }, "It printed nothing."),
  );
}

function resultBlock(text, kind, name, nodes) {
  const block = el("pre", { class: `result ${kind}`, tabindex: "0", "aria-label": `Result of ${name}` }, nodes);
  const lines = text.split("\n").length;
  if (lines <= LONG_RESULT_LINES) return block;
  return el("details", { open: lines < 4 * LONG_RESULT_LINES }, el("summary", {}, `${lines} lines`), block);
}
