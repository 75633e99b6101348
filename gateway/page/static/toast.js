/** What became of a tap, in sight at once, wherever on the page it was. */

import { el } from "./dom.js";
import { announce } from "./notices.js";

const SHOWN_MS = 6000;

const text = el("p", {});
const element = el("section", { class: "toast", "aria-label": "What became of it", hidden: true }, text, el("button", { type: "button", class: "plain", "aria-label": "Hide this", onclick: () => (element.hidden = true) }, "✕"));
let timer;

/** Say what became of an action. A failure stays until it is hidden, or something else is said. */
export function say(sentence, isBad = false, shownMs = SHOWN_MS) {
  if (!element.isConnected) document.body.append(element);
  clearTimeout(timer);
  text.textContent = sentence;
  element.classList.toggle("bad", isBad);
  element.hidden = false;
  announce(sentence);
  if (!isBad) timer = setTimeout(() => (element.hidden = true), shownMs);
}

/** Say that something did not work. */
export const fail = (sentence) => say(sentence, true);
