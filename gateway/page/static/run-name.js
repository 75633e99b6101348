/** The field in which a run gets a name of its own. */

import { post } from "./api.js";
import { el } from "./dom.js";
import { asText } from "./values.js";
import { title } from "./words.js";

/**
 * Put the field in the place of an element, and the element back when it is done. Escape leaves the
 * name as it was; an empty one takes it away.
 */
export function rename(run, element, onFailure) {
  const field = el("input", { type: "text", maxlength: "200", "aria-label": "Name of the run", value: asText(run.title) });
  field.placeholder = (asText(run.command ?? run.prompt) || title(run)).slice(0, 100);
  const end = () => {
    form.replaceWith(element);
    (element.querySelector("button") ?? element).focus();
  };
  const form = el("form", { class: "rename" }, field, el("button", { type: "submit", class: "primary" }, "Save"), el("button", { type: "button", class: "plain", onclick: end }, "Cancel"));
  form.addEventListener("keydown", (event) => event.key === "Escape" && end());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await post(`/api/runs/${encodeURIComponent(run.id)}/title`, { title: field.value.trim() });
      end();
    } catch (error) {
      onFailure(error.message);
    }
  });
  element.replaceWith(form);
  field.focus();
  field.select();
}
