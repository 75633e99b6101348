/**
 * Lets xterm.js style itself under a policy of `style-src 'self'`.
 *
 * It makes style elements and sets `style` attributes, which the policy refuses as inline styles. The
 * same rules in a constructed style sheet, and the same declarations through the CSSOM, are allowed:
 * what xterm.js asks for takes that way here. So the policy needs no nonce and no 'unsafe-inline'.
 * (The `documentOverride` of xterm.js would be the place for this, but does not reach all its parts.)
 */

/** Change what the document makes for `style` and `span`. Nothing else of the page is concerned. */
export function allowXtermStyles() {
  document.createElement = function (name, options) {
    if (name === "style") return sheetElement();
    const element = Document.prototype.createElement.call(document, name, options);
    if (name === "span") element.setAttribute = setAttribute;
    return element;
  };
}

/** Return an element that stands where a style element would, and keeps its text as a sheet. */
function sheetElement() {
  const sheet = new CSSStyleSheet();
  const element = document.createElement("template");
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(element, "textContent", { set: (rules) => sheet.replaceSync(rules) });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((each) => each !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}

function setAttribute(name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}
