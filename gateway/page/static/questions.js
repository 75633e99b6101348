/**
 * What a run asks, as cards: a permission, a question with options, a plan. The gateway has checked
 * and cut what they say; here it becomes text and nothing else.
 */

import { post } from "./api.js";
import { diffLines } from "./diff.js";
import { actionButton, el, setText } from "./dom.js";
import { elementsOf, wantTree } from "./markdown.js";
import { fail, say } from "./toast.js";
import { attempt } from "./turns.js";
import { asText } from "./values.js";
import { when } from "./words.js";

// More are shown as they are: each line of its own is work for the browser.
const MAX_COLOURED_LINES = 2000;
const OWN_WORDS_MAX = 10_000;
const MAX_TOLD = 200;
// A card that has just appeared under a thumb takes no tap that was meant for something else.
const SETTLE_MS = 600;
const LEAD_PX = 12; // what is seen above a choice that is led to

// What a tool does, as a question. All others are named.
const TOOL_QUESTIONS = new Map([
  ["Bash", "Run this command?"],
  ["Edit", "Change this file?"],
  ["MultiEdit", "Change this file?"],
  ["NotebookEdit", "Change this notebook?"],
  ["Write", "Write this file?"],
  ["Read", "Read this file?"],
  ["WebFetch", "Fetch this page?"],
  ["WebSearch", "Search the web?"],
]);
// What the card shows in a way of its own.
const SHOWN_APART = { permission: [], question: ["questions"], plan: ["plan"] };
const IN_DIFF = ["old_string", "new_string", "edits"];
const MAIN_FIELDS = ["command", "file_path", "notebook_path", "url", "query"];

const DECISIONS = new Map([["allow", "Allowed"], ["deny", "Denied"], ["answers", "Answered"]]);

const WITHDRAWALS = new Map([
  ["answered elsewhere", "Withdrawn: it was answered elsewhere"],
  ["interrupted", "Withdrawn: the turn was interrupted"],
  ["ended", "Not answered: the run has ended"],
]);

/** Return in a few words what a card asks. */
export function cardTitle({ kind, tool }) {
  if (kind === "plan") return "Approve this plan?";
  if (kind === "question") return "A question for you";
  return TOOL_QUESTIONS.get(tool) ?? `Use ${tool || "a tool"}?`;
}

/** Return in one line what is asked, for those who hear it or are notified. */
export function cardSummary(card) {
  const main = card.fields.find(({ name }) => MAIN_FIELDS.includes(name));
  const what = card.kind === "question" ? card.questions[0]?.question : card.kind === "plan" ? "" : (main?.text ?? card.title);
  return [cardTitle(card), (what ?? "").slice(0, 200)].filter(Boolean).join(" ");
}

/** Return a few words on how a question was closed. */
export function closedSentence({ decision, by, scope, reason, person }) {
  if (decision === null) return WITHDRAWALS.get(reason) ?? "Withdrawn";
  const who = by === "keyboard" ? " at the keyboard" : person ? ` by ${person}` : by ? ` by the ${by}` : "";
  return `${DECISIONS.get(decision) ?? "Answered"}${who}${scope && `, for this run: ${scope}`}`;
}

/** Return in a few words what a closed question was about. */
export const closedAbout = ({ kind, tool, summary }) => (kind === "plan" ? "the plan" : [kind === "permission" && tool, summary].filter(Boolean).join(" "));

/** Return what a marker of such a talk tells, in a line for the log; null for any other marker. */
export function describeTalk({ event, kind, tool, decision, by, scope, reason, text }) {
  switch (event) {
    case "asked": return `Asks: ${cardTitle({ kind, tool: asText(tool) })}`;
    case "answered": return closedSentence({ decision: asText(decision), by: asText(by), scope: asText(scope) });
    case "withdrawn": return closedSentence({ decision: null, reason });
    case "queued": return `A message waits: ${asText(text)}`;
    case "taken": return `Claude Code has read: ${asText(text)}`;
    case "taken back": return `Taken back: ${asText(text)}`;
    default: return null;
  }
}

/** The cards of a run, oldest first. */
export class Questions {
  #path;
  #cards = new Map(); // "id event" -> Card
  #sent = new Map(); // a question's id -> the command that answers it
  #list = el("div", { class: "asks-list" });
  #title = el("h2", { id: "asks-title" });
  #more = el("p", { class: "hint", hidden: true });
  #toggle = el("button", { type: "button", class: "plain asks-toggle", "aria-expanded": "true", "aria-controls": "asks-list", onclick: () => this.#fold() }, "Hide");
  #settling;

  constructor(path) {
    this.#path = path;
    this.#list.id = "asks-list";
    this.element = el("section", { class: "asks", "aria-labelledby": "asks-title", hidden: true }, el("div", { class: "asks-head" }, this.#title, this.#toggle), this.#list, this.#more);
  }

  /** Show what is open, and what became of what was; return the cards that are new. */
  show({ open, more, closed }) {
    const keys = new Set(open.map(keyOf));
    const gone = [...this.#cards].filter(([key]) => !keys.has(key));
    const hadFocus = gone.some(([, card]) => card.element.contains(document.activeElement));
    for (const [key, card] of gone) {
      card.element.remove();
      this.#cards.delete(key);
    }
    const added = open.filter((each) => !this.#cards.has(keyOf(each)));
    for (const each of added) attempt(() => this.#add(each));
    const count = open.length + more;
    this.element.hidden = !this.#cards.size;
    setText(this.#title, `Claude Code asks${count > 1 ? ` (${count})` : ""}`);
    setText(this.#more, `${more} more ${more === 1 ? "question" : "questions"} will come when these are answered.`);
    this.#more.hidden = !more;
    if (added.length || gone.length) this.#settle();
    if (gone.length) this.#tellClosed(gone.map(([key]) => closed.find((each) => keyOf(each) === key)));
    // Who answers by keyboard goes on with the next card, or with the output.
    if (hadFocus) (this.#list.querySelector("h3") ?? document.querySelector(".pane > [tabindex]"))?.focus({ preventScroll: true });
    return added;
  }

  /** Learn of a command that answers a question, from here or from another page. */
  showCommand({ id, command, status, error }) {
    const answer = readAnswer(command);
    if (answer) this.#sent.set(answer.id, { ...answer, commandId: id });
    for (const [questionId, sent] of this.#sent) {
      if (sent.commandId !== id) continue;
      sent.status = status;
      sent.error = error;
      const cards = [...this.#cards.values()].filter((card) => card.id === questionId);
      for (const card of cards) card.showSent(sent);
      if (status === "failed" && !cards.length) this.#tellFailed(sent);
    }
  }

  /** Say for a moment what became of cards that are gone; the output and the last answers keep it. */
  #tellClosed(closed) {
    const known = closed.filter(Boolean);
    const sentences = new Set(known.map(closedSentence));
    const about = known.length === 1 ? `: ${closedAbout(known[0])}` : "";
    const words = known.length === 1 && known[0].message ? ` “${known[0].message}”` : "";
    say(sentences.size === 1 ? `${[...sentences][0]}${about}${words}`.slice(0, MAX_TOLD) : `${closed.length} questions are no longer open`);
    for (const { id } of known) if (this.#sent.get(id)?.status === "failed") this.#tellFailed(this.#sent.get(id));
  }

  #tellFailed(sent) {
    if (!sent.isTold) fail(failedSentence(sent));
    sent.isTold = true;
  }

  #add(data) {
    const card = new Card(data, (answer) => this.#answer(data, answer));
    this.#cards.set(keyOf(data), card);
    this.#list.append(card.element);
    const sent = this.#sent.get(data.id);
    if (sent) card.showSent(sent);
  }

  async #answer({ id, digest }, answer) {
    const { id: commandId, status } = await post(`${this.#path}/answer`, { id, digest, ...answer });
    // The news of it may have been here first, with its end.
    const known = this.#sent.get(id);
    if (known?.commandId === commandId) return known;
    const sent = { id, commandId, decision: answer.decision, status };
    this.#sent.set(id, sent);
    return sent;
  }

  #fold() {
    const isOpen = this.element.classList.toggle("folded");
    this.#toggle.setAttribute("aria-expanded", String(!isOpen));
    setText(this.#toggle, isOpen ? "Show" : "Hide");
  }

  #settle() {
    clearTimeout(this.#settling);
    this.element.classList.add("settling");
    this.#settling = setTimeout(() => this.element.classList.remove("settling"), SETTLE_MS);
  }
}

const keyOf = ({ id, event_id: eventId }) => `${id} ${eventId}`;

function readAnswer(command) {
  if (!command.startsWith("__ANSWER__:{")) return null;
  try {
    const { id, decision } = JSON.parse(command.slice("__ANSWER__:".length));
    return { id, decision };
  } catch {
    return null;
  }
}

const failedSentence = ({ error }) => `That answer did nothing. ${capital(asText(error).replace(/^refused: /, "")) || "The runner refused it"}.`;

class Card {
  #data;
  #send;
  #sent = null;
  #head;
  #problem = el("p", { class: "notice bad", role: "alert", hidden: true });
  #status = el("p", { class: "ask-status", role: "status" });
  #actions = el("div", { class: "ask-actions" });
  #denying;
  #widening;
  #choices = [];

  /** `send` passes an answer on, and returns the command that carries it. */
  constructor(data, send) {
    this.#data = data;
    this.#send = send;
    this.#denying = this.#buildDenying();
    this.#widening = this.#buildWidening();
    this.#head = el("h3", { id: `ask-${data.id}-${data.event_id}`, tabindex: "-1" }, cardTitle(data));
    this.#fillActions();
    this.element = el(
      "article",
      { class: `ask ${data.kind}`, "aria-labelledby": this.#head.id, "data-question": data.id },
      el("div", { class: "ask-head" }, this.#head, data.code && el("span", { class: "ask-code", title: "The question’s code" }, data.code)),
      this.#notes(),
      this.#body(),
      el("div", { class: "ask-foot" }, this.#problem, this.#status, this.#denying, this.#widening, this.#actions),
    );
  }

  get id() {
    return this.#data.id;
  }

  /** Learn how an answer to it fares: `pending`, `done`, `failed`. */
  showSent(sent) {
    this.#sent = sent;
    const { status, decision } = sent;
    if (status === "failed") this.#fail(failedSentence(sent));
    const isUnderWay = this.#isUnderWay;
    // A moment later, when the button that was pressed is not busy any more.
    setTimeout(() => this.#drawButtons());
    const what = decision === "deny" ? "Denied" : this.#data.kind === "permission" ? "Allowed" : this.#data.kind === "plan" ? "Approved" : "Answered";
    setText(this.#status, isUnderWay ? `${what}. ${status === "done" ? "The runner has it." : "Waiting for the runner to take it…"}` : "");
  }

  /** Whether an answer has been sent that may still close it. */
  get #isUnderWay() {
    return this.#sent !== null && this.#sent.status !== "failed";
  }

  // Not `disabled`: a button that was pressed by keyboard would lose the focus.
  #drawButtons() {
    for (const button of this.element.querySelectorAll(".ask-actions button, .ask-panel button")) {
      if (this.#isUnderWay) button.setAttribute("aria-disabled", "true");
      else button.removeAttribute("aria-disabled");
    }
  }

  #fail(sentence) {
    setText(this.#problem, sentence);
    this.#problem.hidden = false;
  }

  async #answer(answer) {
    if (this.#isUnderWay) return;
    this.#problem.hidden = true;
    this.showSent(await this.#send(answer));
  }

  #button(label, attributes, answer) {
    return actionButton(
      label,
      attributes,
      async () => {
        const given = answer();
        if (given) await this.#answer(given);
      },
      (sentence) => this.#fail(sentence),
    );
  }

  // --- what is asked ---

  #body() {
    const { kind, title, reason, agent, questions, plan, diff, fields } = this.#data;
    const apart = SHOWN_APART[kind];
    const rest = fields.filter(({ name }) => !apart.includes(name) && !(diff && IN_DIFF.includes(name)));
    return [
      agent && el("p", { class: "hint" }, `A subagent asks this (${agent}).`),
      title && kind === "permission" && !fields.some(({ text }) => text === title) && el("p", { class: "ask-about" }, title),
      kind === "question" && questions.map((asked, index) => this.#choice(asked, index)),
      kind === "plan" && el("div", { class: "ask-plan", tabindex: "0", role: "region", "aria-label": "The plan" }, plan ? markdown(plan) : "Claude Code gave no text of the plan."),
      fieldList(rest.filter(isMain)),
      diff && el("pre", { class: "ask-text", tabindex: "0", "aria-label": "The change" }, lines(diff, (text) => diffLines(text, true))),
      fieldList(rest.filter((each) => !isMain(each))),
      diff && fields.length > rest.length && el("details", {}, el("summary", {}, "The texts as they are"), fieldList(fields.filter((each) => !rest.includes(each)))),
      reason && el("p", { class: "ask-reason" }, el("span", { class: "hint" }, "Why it asks: "), reason),
    ].flat();
  }

  #notes() {
    const { hidden, whole, defaults_to_no: defaultsToNo, input_characters: size, until } = this.#data;
    return [
      until && el("p", { class: "hint" }, `Without an answer it is denied at ${when(until)}.`),
      hidden && el("p", { class: "ask-note" }, "A secret in it is hidden here. Claude Code has it whole."),
      defaultsToNo && el("p", { class: "ask-note" }, "Look closely before you allow this: Claude Code would rather not do it unasked."),
      !whole && el("p", { class: "ask-note bad" }, `It is too long to be shown whole${size ? ` (${size.toLocaleString()} characters)` : ""}, so it can only be denied here.`),
    ];
  }

  #choice(asked, index) {
    const name = `${this.#head.id}-${index}`;
    const type = asked.multiple ? "checkbox" : "radio";
    const words = el("textarea", { rows: "2", maxlength: OWN_WORDS_MAX, "aria-label": "Your own words", hidden: true });
    const inputs = asked.options.map(() => el("input", { type, name }));
    const own = el("input", { type, name });
    const missing = el("p", { id: `${name}-missing`, class: "notice bad", role: "alert", hidden: true });
    const listen = (input, isOwn) =>
      input.addEventListener("change", () => {
        missing.hidden = true;
        if (asked.multiple && input.checked) for (const each of isOwn ? inputs : [own]) each.checked = false;
        words.hidden = !own.checked;
        if (isOwn && own.checked) words.focus();
      });
    inputs.forEach((input) => listen(input, false));
    listen(own, true);
    words.addEventListener("input", () => (missing.hidden = true));
    const pick = () => {
      const options = inputs.flatMap((input, place) => (input.checked ? [place] : []));
      const picked = own.checked ? words.value.trim() && { text: words.value } : options.length && { options };
      if (picked) return picked;
      setText(missing, own.checked ? "Write your answer." : asked.multiple ? "Choose at least one." : "Choose one.");
      missing.hidden = false;
      return null;
    };
    const lead = () => leadTo(choice, own.checked ? words : (inputs[0] ?? own));
    this.#choices.push({ pick, lead });
    const choice = el(
      "fieldset",
      { class: "ask-choice", "aria-describedby": missing.id },
      el("legend", {}, asked.header && el("span", { class: "ask-header" }, asked.header), asked.question, asked.multiple && el("span", { class: "hint" }, " (several may be chosen)")),
      missing,
      asked.options.map(({ label, description }, place) =>
        el("label", { class: "ask-option" }, inputs[place], el("span", {}, label, description && el("span", { class: "hint" }, description))),
      ),
      el("label", { class: "ask-option" }, own, el("span", {}, "Something else, in my own words")),
      words,
    );
    return choice;
  }

  // --- what is answered ---

  #fillActions() {
    const { kind, whole, scopes, defaults_to_no: defaultsToNo } = this.#data;
    const label = { permission: "Deny…", question: "Decline…", plan: "Keep planning…" }[kind];
    const deny = this.#opener(label, this.#denying);
    const yes = defaultsToNo ? {} : { class: "primary" };
    const allow = {
      permission: () => this.#button("Allow once", yes, () => ({ decision: "allow" })),
      question: () => this.#button("Send", yes, () => this.#picked()),
      plan: () => this.#button("Approve", yes, () => ({ decision: "allow" })),
    }[kind];
    // Several would fill the window of a phone, and what is asked would be out of sight.
    const wider = scopes.length > 1 ? [this.#opener("Allow for this run…", this.#widening)] : scopes.map((scope) => this.#scopeButton(scope));
    if (whole) this.#actions.append(...wider, deny, allow());
    else this.#actions.append(deny);
  }

  /** Return a button that shows a panel in the place of the buttons. */
  #opener(label, panel) {
    const button = el("button", { type: "button", class: panel === this.#widening && "ask-wider" }, label);
    button.addEventListener("click", () => {
      if (this.#isUnderWay) return;
      panel.hidden = false;
      this.#actions.hidden = true;
      panel.opener = button;
      panel.querySelector("textarea, button").focus();
    });
    return button;
  }

  /** Return a panel with a way back, by a button and by Escape. */
  #panel(...content) {
    const close = () => {
      panel.hidden = true;
      this.#actions.hidden = false;
      panel.opener.focus();
    };
    const back = el("button", { type: "button", class: "plain", onclick: close }, "Back");
    const panel = el("div", { class: "ask-panel", hidden: true }, content.flat(), el("div", { class: "ask-row" }, back));
    panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      close();
    });
    return panel;
  }

  #buildWidening() {
    return this.#panel(el("p", {}, "Allow it, and for the rest of this run:"), this.#data.scopes.map((scope) => this.#scopeButton(scope)));
  }

  #scopeButton({ id, label }) {
    const button = this.#button("", { class: "ask-scope" }, () => ({ decision: "allow", scope: id }));
    button.append(el("span", {}, "Allow for this run "), el("span", { class: "ask-scope-label" }, label));
    return button;
  }

  #picked() {
    const answers = this.#choices.map(({ pick }) => pick());
    if (answers.every(Boolean)) return { decision: "allow", answers };
    this.#choices[answers.indexOf(null)].lead();
    return null;
  }

  #buildDenying() {
    const label = { permission: "What should it do instead? (optional)", question: "What should it know instead? (optional)", plan: "What is missing in the plan?" }[this.#data.kind];
    const name = { permission: "Deny", question: "Decline", plan: "Keep planning" }[this.#data.kind];
    const words = el("textarea", { rows: "2", maxlength: OWN_WORDS_MAX });
    const send = this.#button(name, { class: this.#data.kind === "plan" ? "primary" : "primary danger" }, () => ({
      decision: "deny",
      ...(words.value.trim() && { message: words.value.trim() }),
    }));
    const panel = this.#panel(el("label", { class: "stack" }, label, words));
    panel.lastChild.append(send);
    return panel;
  }
}

const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

/** Return a text with the looks of its lines, or as it is if it has too many. */
const lines = (text, draw) => (text.split("\n", MAX_COLOURED_LINES + 1).length > MAX_COLOURED_LINES ? text : draw(text));

/** Show the beginning of a choice in the list of cards, and focus what is to be chosen or written there. */
function leadTo(choice, input) {
  const list = choice.closest(".asks-list");
  input.focus({ preventScroll: true });
  // Not `scrollIntoView`, which would scroll the page behind the cards too.
  list.scrollTop += choice.getBoundingClientRect().top - list.getBoundingClientRect().top - LEAD_PX;
}

const isMain = ({ name }) => name === "" || MAIN_FIELDS.includes(name);

/** Return what a tool is called with: the main thing as it is, the rest with names. */
function fieldList(fields) {
  return fields.map((field) => {
    const { name, text } = field;
    const content = el("pre", { class: "ask-text", tabindex: "0", "aria-label": name || "What it is called with" }, text || "(empty)");
    if (isMain(field)) return content;
    if (text.length <= 80 && !text.includes("\n")) return el("p", { class: "ask-field" }, el("span", { class: "hint" }, `${name}: `), text);
    return el("div", { class: "ask-field" }, el("span", { class: "hint" }, name), content);
  });
}

/** Return Markdown: as it is written, until its tree is known, and for good if it has none. */
function markdown(text) {
  const element = el("div", { class: "as-it-is" }, text);
  wantTree(text, (tree) => {
    if (!tree) return;
    element.className = "prose";
    element.replaceChildren(...elementsOf(tree, () => undefined));
  });
  return element;
}
