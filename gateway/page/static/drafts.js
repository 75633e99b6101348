/**
 * What was typed and is not sent yet: it outlives a reload and a way back, in this tab alone. Without
 * storage it is lost then, as in any form.
 */

import { BASE } from "./base.js";

const PREFIX = `draft${BASE}:`;

/**
 * Put into a field what was typed there before, if anything, and keep what is typed from now on. Return
 * what notes that the field was changed by a script.
 */
export function keepDraft(field, name) {
  const key = PREFIX + name;
  const note = () => {
    try {
      if (field.value) sessionStorage.setItem(key, field.value);
      else sessionStorage.removeItem(key);
    } catch {
      // forbidden, or full
    }
  };
  field.addEventListener("input", note);
  try {
    field.value = sessionStorage.getItem(key) ?? field.value;
  } catch {
    // as above
  }
  return note;
}

/** Forget all: somebody else may be next in this tab. */
export function forgetDrafts() {
  try {
    for (const key of Object.keys(sessionStorage)) if (key.startsWith(PREFIX)) sessionStorage.removeItem(key);
  } catch {
    // as above
  }
}
