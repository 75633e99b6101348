/**
 * Talking with a run that listens: its questions, the box for messages with those that wait, the
 * interrupt, the permission mode. What is open comes from the gateway, which knows it after a reload
 * and a restart; it is asked whenever the run says that something has changed.
 */

import { ApiError, get, post } from "./api.js";
import { actionButton, el, setText } from "./dom.js";
import { keepDraft } from "./drafts.js";
import { announce } from "./notices.js";
import { cardSummary, closedAbout, closedSentence, Questions } from "./questions.js";
import { secondPress } from "./second-press.js";
import { asText, legible, unmasked } from "./values.js";
import { clock } from "./words.js";

const RETRY_MS = 3000;
const ENDS_RUN = "Interrupt ends this run: it does not stay (--stay), and no message waits.";
// What was done is no news any more.
const TOLD_MS = 6000;
const MAX_MESSAGE_CHARS = 100_000;
const MODE = "__MODE__:";
const MODES = new Map([
  ["plan", "Plan only"],
  ["default", "Ask for each"],
  ["acceptEdits", "Accept edits"],
  ["dontAsk", "Refuse what is not allowed"],
]);

/** Return the same with texts that can be drawn. The gateway has seen to its depth. */
function legibleAll(value) {
  if (typeof value === "string") return unmasked(legible(value));
  if (Array.isArray(value)) return value.map(legibleAll);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, legibleAll(each)]));
}

export class Talk {
  #path;
  #run = {};
  #shownEvent = 0;
  #isLoading = false;
  #questions;
  #acks = new Map(); // command id -> what to do with its outcome
  #outcomes = new Map(); // of commands whose request has not been answered yet
  #problem = el("p", { class: "notice bad", role: "alert", hidden: true });
  #status = el("p", { class: "hint", role: "status" });
  #field = el("textarea", { id: "message", rows: "2", placeholder: "Message…", maxlength: MAX_MESSAGE_CHARS, "aria-describedby": "message-hint" });
  #hint = el("p", { id: "message-hint", class: "hint" });
  #message;
  #interrupt;
  #interrupting = el("p", { id: "interrupt-hint", class: "hint", hidden: true });
  /** The permission modes, which are changed seldom. */
  modes = el("section", { class: "card modes", "aria-labelledby": "modes-title", hidden: true });
  #offeredModes = "[]";
  #mode = ""; // the one in force
  #toldMode = "";
  #waiting = el("ul", { class: "waiting-list", "aria-label": "Messages that wait" });
  #answered = el("ol", { class: "answered" });
  /** The last answers, for those who look later. */
  history = el("section", { class: "card", "aria-labelledby": "answered-title", hidden: true }, el("h2", { id: "answered-title" }, "Questions so far"), this.#answered);

  constructor(id) {
    this.#path = `/api/runs/${encodeURIComponent(id)}`;
    this.#questions = new Questions(this.#path);
    this.cards = this.#questions.element;
    const send = actionButton("Send", { class: "primary" }, () => this.#sendMessage(), (sentence) => this.#fail(sentence));
    this.#field.addEventListener("keydown", (event) => {
      // On a phone Enter is for a new line: there is no Shift to hold.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || matchMedia("(pointer: coarse)").matches) return;
      event.preventDefault();
      send.click();
    });
    const asking = { asked: "End the run?", question: `${ENDS_RUN} Press again.`, isNeeded: () => !this.#interrupting.hidden };
    [this.#interrupt] = secondPress("Interrupt", { class: "interrupt", "aria-describedby": "interrupt-hint" }, asking, () => this.#command("escape", {}), (sentence) => this.#fail(sentence));
    keepDraft(this.#field, `message ${id}`);
    growing(this.#field);
    this.#field.addEventListener("input", () => (this.#problem.hidden = true));
    this.#message = el("div", { class: "stack" }, el("label", { for: "message" }, "Message to Claude Code"), this.#field, this.#hint);
    this.element = el(
      "section",
      { class: "card talk", "aria-label": "Talk", hidden: true },
      this.#message,
      this.#waiting,
      this.#problem,
      this.#status,
      this.#interrupting,
      el("div", { class: "button-row" }, send, this.#interrupt),
    );
    this.#send = send;
  }

  #send;
  #telling;

  /** Offer what the run takes at this moment, and look whether it asks something. */
  update(run) {
    this.#run = run;
    const isRunning = run.status === "running";
    const takesMessages = run.listens && run.remote_input;
    this.element.hidden = !isRunning || !run.listens || run.mode === "interactive";
    this.#message.hidden = this.#send.hidden = !takesMessages;
    // Nothing runs that could be interrupted while it waits for the next message.
    this.#interrupt.hidden = run.state === "waiting" && !run.open_questions;
    const isIdle = run.state === "waiting" && !run.open_questions;
    setText(this.#hint, isIdle ? "It has nothing to do, and waits for your message." : "While it works, a message waits until Claude Code reads it.");
    const told = asText(run.progress?.permissionMode);
    if (told !== this.#toldMode) this.#mode = this.#toldMode = told;
    const endsRun = !run.stays && !run.waiting_messages;
    setText(this.#interrupting, endsRun ? ENDS_RUN : "");
    this.#interrupting.hidden = !endsRun || this.#interrupt.hidden;
    this.#offerModes(isRunning && run.remote_answers && Array.isArray(run.modes) ? run.modes.map((mode) => asText(mode)) : []);
    if (run.talk_event_id !== this.#shownEvent) this.#load();
  }

  /** Learn what became of a command. */
  showCommand(command) {
    this.#questions.showCommand(command);
    if (command.status === "pending") return;
    if (command.status === "done" && command.command.startsWith(MODE)) {
      this.#mode = command.command.slice(MODE.length);
      this.#markMode();
    }
    const act = this.#acks.get(command.id);
    if (act) act(command);
    else this.#outcomes.set(command.id, command);
    this.#acks.delete(command.id);
  }

  /** Ask what is open until nothing has changed meanwhile. */
  async #load() {
    if (this.#isLoading) return;
    this.#isLoading = true;
    try {
      for (let wanted = null; wanted !== this.#run.talk_event_id; ) {
        wanted = this.#run.talk_event_id;
        this.#show(legibleAll(await get(`${this.#path}/conversation`)));
      }
    } catch (error) {
      if (!(error instanceof ApiError)) console.error(error);
      setTimeout(() => this.#load(), RETRY_MS);
    } finally {
      this.#isLoading = false;
    }
  }

  #show(conversation) {
    // An answer that was overtaken by a later one tells nothing new.
    if (conversation.event_id < this.#shownEvent) return;
    this.#shownEvent = conversation.event_id;
    const added = this.#questions.show(conversation);
    this.#showWaiting(conversation.waiting);
    this.#showAnswered(conversation.closed);
    if (added.length) {
      const sentence = added.length === 1 ? cardSummary(added[0]) : `${added.length} questions for you`;
      announce(sentence);
    }
  }

  #showWaiting(messages) {
    this.#waiting.replaceChildren(
      ...messages.map(({ id, text }) =>
        el(
          "li",
          {},
          el("span", { class: "waiting-text" }, el("span", { class: "hint" }, "Waits: "), text),
          this.#run.remote_input &&
            actionButton("Take back", { class: "plain", "aria-label": `Take back: ${text.slice(0, 60)}` }, () => this.#command("take-back", { id }), (sentence) => this.#fail(sentence)),
        ),
      ),
    );
    this.#waiting.hidden = !messages.length;
  }

  #showAnswered(closed) {
    this.#answered.replaceChildren(
      ...closed.map((each) =>
        el(
          "li",
          { class: `answered-entry ${each.decision ?? "withdrawn"}` },
          el("time", { class: "hint", datetime: new Date(each.closed_at * 1000).toISOString() }, clock(each.closed_at)),
          el("span", {}, el("strong", {}, closedSentence(each)), ` ${closedAbout(each)}`),
        ),
      ),
    );
    this.history.hidden = !closed.length;
  }

  #offerModes(modes) {
    const known = modes.length > 1 ? modes : [];
    this.modes.hidden = !known.length;
    this.#markMode();
    if (JSON.stringify(known) === this.#offeredModes) return;
    this.#offeredModes = JSON.stringify(known);
    this.modes.replaceChildren(
      el("h2", { id: "modes-title" }, "Permission mode"),
      el(
        "div",
        { class: "button-row", role: "group", "aria-labelledby": "modes-title" },
        known.map((mode) => actionButton(MODES.get(mode) ?? mode, { "data-mode": mode }, () => this.#command("mode", { mode }), (sentence) => this.#fail(sentence))),
      ),
    );
    this.#markMode();
  }

  #markMode() {
    for (const button of this.modes.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", String(button.dataset.mode === this.#mode));
  }

  async #sendMessage() {
    const text = this.#field.value;
    if (!text.trim()) return this.#field.focus();
    await this.#command("input", { text });
    // What was typed meanwhile stays.
    if (this.#field.value === text) this.#field.value = "";
    this.#field.dispatchEvent(new Event("input"));
    this.#field.focus();
  }

  /** Send something, and show what the runner says about it. */
  async #command(what, body) {
    this.#problem.hidden = true;
    clearTimeout(this.#telling);
    setText(this.#status, "Waiting for the runner…");
    try {
      const { id } = await post(`${this.#path}/${what}`, body);
      const act = (command) => this.#showOutcome(command);
      if (this.#outcomes.has(id)) act(this.#outcomes.get(id));
      else this.#acks.set(id, act);
    } catch (error) {
      setText(this.#status, "");
      throw error;
    }
  }

  #showOutcome({ status, result, error }) {
    if (status === "failed") {
      setText(this.#status, "");
      this.#fail(`It did nothing: ${asText(error || "the runner refused it").replace(/^refused: /, "")}.`);
    } else {
      setText(this.#status, `${asText(result) || "Done"}.`);
      this.#telling = setTimeout(() => setText(this.#status, ""), TOLD_MS);
    }
  }

  #fail(sentence) {
    setText(this.#problem, sentence);
    this.#problem.hidden = false;
  }
}

/** Let a field grow with its text where the style sheet cannot say so. */
function growing(field) {
  if (CSS.supports("field-sizing", "content")) return;
  const grow = () => {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight + 2}px`;
  };
  field.addEventListener("input", grow);
  new IntersectionObserver(grow).observe(field); // with what was typed before
}
