/** Folders that wait for runs (`claude-runner wait`): to choose one, let one in, and send it a run. */

import { get, post } from "./api.js";
import { BASE } from "./base.js";
import { actionButton, el, setText } from "./dom.js";
import { asText } from "./values.js";
import { folderName } from "./words.js";

const LOOK_MS = 3000;
const HERE = ""; // the choice that is no folder: a line to paste
const MODES = { plan: "Plan only", default: "Ask before each change", acceptEdits: "Edit files without asking" };

export const nameOf = ({ name, machine }) => (machine ? `${name} on ${machine}` : name);

/** The choice where a new run is started. `onChoice` is called whenever it has changed. */
export class WaitingFolders {
  #offers = [];
  #chosen = HERE;
  #isTouched = false;
  #isKnown = false; // whether an answer has come
  #asked = 0; // counts the questions, whose answers may overtake each other
  // What was sent last, with its key: repeated after a lost answer, it is no other run.
  #sent = { text: "", key: "" };
  #list = el("div", { class: "where" });
  #status = el("p", { class: "hint", role: "status" });
  #code = el("input", { id: "folder-code", autocomplete: "off", autocapitalize: "characters", spellcheck: "false", maxlength: "12" });
  #letIn;
  #title = el("input", { id: "run-title", autocomplete: "off", maxlength: "200" });
  #mode = el("select", { id: "run-mode" });
  #ask = el("input", { id: "run-asks", type: "checkbox", checked: true });
  #asking;
  #summary = el("summary", {});
  #onChoice;
  #before;
  #resumes;

  /** Choose the first folder; with a run `before` this one that in which it was, and begin as it
   * did. If this one `resumes` its session, only folders that can are shown. */
  constructor(onChoice, before = null, resumes = false) {
    this.#onChoice = onChoice;
    this.#before = before;
    this.#resumes = resumes;
    this.#isTouched = Boolean(before);
    const pair = actionButton("Let in", {}, () => this.#pair(), (sentence) => this.#tell(sentence));
    this.#code.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault(); // it would send the form around it
      pair.click();
    });
    this.#letIn = el(
      "div",
      { class: "let-in", hidden: true },
      el("label", { for: "folder-code" }, "A folder waits to be let in. The code in its terminal:"),
      el("div", { class: "let-in-row" }, this.#code, pair),
    );
    this.element = el("fieldset", { class: "ask-choice", hidden: true }, el("legend", {}, "Where"), this.#list, this.#letIn, this.#status);
    this.#asking = el(
      "div",
      { class: "stack" },
      el("label", { class: "check", for: "run-asks" }, this.#ask, "Ask here before what needs a permission"),
      el("label", { for: "run-mode" }, "Begin in"),
      this.#mode,
    );
    this.#ask.addEventListener("change", () => (this.#mode.disabled = !this.#ask.checked));
    const forget = actionButton("Forget this folder", { class: "plain forget" }, () => this.#forget(this.chosen), (sentence) => this.#tell(sentence));
    // Closed, so that Start is in sight on a phone.
    this.options = el("details", { class: "more", hidden: true }, this.#summary, el("div", { class: "stack" }, el("label", { for: "run-title" }, "Title ", el("span", { class: "hint" }, "(optional)")), this.#title, this.#asking, forget));
    this.#list.addEventListener("change", (event) => {
      this.#isTouched = true;
      this.#choose(event.target.value);
    });
  }

  /** The folder that is chosen, or undefined. */
  get chosen() {
    return this.#offers.find((offer) => offer.id === this.#chosen);
  }

  /** Look now, and then every few seconds, as long as it is shown. */
  async follow() {
    try {
      await this.#look();
    } catch {
      // It is asked again; what is sent tells what is wrong.
    }
    await new Promise((wake) => setTimeout(wake, LOOK_MS));
    if (this.element.isConnected) this.follow();
  }

  async #look() {
    const asked = (this.#asked += 1);
    const own = this.#before && !this.#isKnown ? await get(`/api/runs/${encodeURIComponent(this.#before.id)}/order`) : null;
    const { offers, unpaired } = await get("/api/offers");
    if (asked !== this.#asked) return;
    const able = offers.filter((offer) => offer.resumes || !this.#resumes);
    // Of a session the folder counts, and a folder that waits tells only its name.
    const namesake = this.#resumes && able.find(({ name }) => name === folderName(this.#before.working_dir));
    this.#show({ offers: able, unpaired }, own?.order?.offer ?? namesake?.id);
  }

  /** Send a run to the chosen folder; return its id. */
  async send(prompt, model = {}) {
    const offer = this.chosen;
    const body = { prompt, title: this.#title.value.trim() || null, ...model };
    if (offer.asks) {
      body.ask = this.#ask.checked;
      if (body.ask && this.#mode.value) body.mode = this.#mode.value;
    }
    const text = JSON.stringify([offer.id, body]);
    if (text !== this.#sent.text) this.#sent = { text, key: randomKey() };
    return (await post(`/api/offers/${encodeURIComponent(offer.id)}/runs`, { ...body, key: this.#sent.key })).id;
  }

  async #pair() {
    const offer = await post("/api/offers/pair", { code: this.#code.value });
    this.#code.value = "";
    this.#isTouched = true;
    await this.#look();
    this.#choose(offer.id);
    this.#tell(`${nameOf(offer)} is let in.`);
  }

  async #forget(offer) {
    await post(`/api/offers/${encodeURIComponent(offer.id)}/forget`);
    this.#tell(`${nameOf(offer)} needs its code again.`);
    await this.#look();
  }

  #show({ offers, unpaired }, own) {
    const gone = this.chosen && !offers.some((offer) => offer.id === this.#chosen) ? this.chosen : null;
    const isSame = JSON.stringify(offers) === JSON.stringify(this.#offers);
    this.#offers = offers;
    this.#letIn.hidden = !unpaired;
    this.element.hidden = !offers.length && !unpaired && !gone;
    if (gone) this.#tell(`${nameOf(gone)} does not wait any more.`);
    if (!isSame || !this.#list.childElementCount) this.#draw();
    if (gone) this.#choose(HERE);
    // Only once: later the choice would change under the hand of somebody who is about to press Start.
    else if (!this.#isTouched && !this.#isKnown && offers.length) this.#choose(offers[0].id);
    else if (own && offers.some(({ id }) => id === own)) this.#choose(own);
    this.#isKnown = true;
  }

  #draw() {
    const focused = this.#list.contains(document.activeElement) ? document.activeElement.value : null;
    const choice = (value, label, hint) => {
      const radio = el("input", { type: "radio", name: "where", value, checked: value === this.#chosen });
      return el("label", { class: "ask-option" }, radio, el("span", {}, el("span", { class: "where-name" }, label), el("span", { class: "hint" }, hint)));
    };
    const folders = this.#offers.map((offer) => choice(offer.id, nameOf(offer), standing(offer)));
    this.#list.replaceChildren(...folders, choice(HERE, "In a terminal", "You get a line to paste."));
    if (focused !== null) this.#radio(focused)?.focus();
  }

  #radio(value) {
    return [...this.#list.querySelectorAll("input")].find((each) => each.value === value);
  }

  #choose(value) {
    const before = this.#chosen;
    this.#chosen = value;
    const radio = this.#radio(value);
    if (radio) radio.checked = true;
    const offer = this.chosen;
    this.options.hidden = !offer;
    this.#asking.hidden = !offer?.asks;
    setText(this.#summary, offer?.asks ? "Title, permissions" : "Title");
    if (before !== value && offer) {
      const modes = offer.modes.map((mode) => el("option", { value: mode }, MODES[mode] ?? asText(mode)));
      this.#mode.replaceChildren(el("option", { value: "" }, "The mode of its owner"), ...modes);
      const { ask, permissionMode } = this.#before?.options ?? {};
      this.#mode.value = offer.modes.includes(permissionMode) ? permissionMode : "";
      this.#ask.checked = ask !== "never";
      this.#mode.disabled = !this.#ask.checked;
    }
    this.#onChoice(offer);
  }

  #tell(sentence) {
    setText(this.#status, sentence);
  }
}

/** Return what a folder is doing, in words. */
function standing({ running, queued }) {
  const others = queued ? `${queued} queued` : "";
  return [running ? "a run goes on there" : "waits", others].filter(Boolean).join(", ");
}

/** Return the address of a run's page. */
export const pageOf = (id) => `${BASE}/runs/${encodeURIComponent(id)}`;

function randomKey() {
  // Not crypto.randomUUID, which plain http does not have.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
