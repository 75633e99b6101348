/** A button that copies a text. */

import { el } from "./dom.js";
import { announce } from "./notices.js";

const SHOWN_MS = 2000;

/** Return a button that copies what `text()` returns at the moment of the press. */
export function copyButton(text, label = "Copy") {
  const button = el("button", { type: "button", class: "plain copy" }, label);
  let timer;
  button.addEventListener("click", async () => {
    const done = await copy(text());
    const word = done ? "Copied" : "Select it and copy";
    button.textContent = word;
    announce(done ? "Copied to the clipboard." : "Copying is not possible here. Select the text and copy it.");
    clearTimeout(timer);
    timer = setTimeout(() => (button.textContent = label), SHOWN_MS);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // over plain http on another host there is no clipboard API
  }
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const field = el("textarea", { class: "unseen", readonly: true, "aria-hidden": "true", tabindex: "-1" });
  field.value = text;
  // Inside an open dialog everything else is inert, and cannot be selected.
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  try {
    return document.execCommand("copy");
  } finally {
    field.remove();
    focused?.focus();
  }
}
