/**
 * Building the page. Whatever a run says becomes a text node or an attribute's value here, never
 * markup: there is no other way in.
 */

/**
 * Return a new element. `attributes` maps names to values: `true` sets an empty attribute; `false`,
 * null and undefined leave it out; a function under `onclick` and its like becomes a listener.
 * Children are nodes or texts; null and false are left out.
 */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.flat(2).filter((child) => child != null && child !== false));
  return element;
}

/** Show a text in an element, and touch nothing if it is there already. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Return a button that is busy while its action runs. A failure goes to `onFailure` as a sentence. */
export function actionButton(label, attributes, action, onFailure) {
  const button = el("button", { type: "button", ...attributes }, label);
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    // Not `disabled`: a button that was pressed by keyboard would lose the focus.
    button.setAttribute("aria-disabled", "true");
    try {
      await action();
    } catch (error) {
      onFailure(error.message);
    } finally {
      button.removeAttribute("aria-disabled");
    }
  });
  return button;
}
