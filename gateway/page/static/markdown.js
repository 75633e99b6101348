/**
 * Markdown, which the gateway makes a tree of: here it becomes elements, of a few kinds that are named
 * here. A text without a tree stays as it is.
 */

import { post } from "./api.js";
import { el } from "./dom.js";
import { legible } from "./values.js";

const TAGS = new Set(["p", "ul", "ol", "li", "blockquote", "thead", "tbody", "tr", "th", "td", "em", "strong", "s", "code", "br", "hr"]);
const HEADING = /^h[1-6]$/;
const SAFE = /^(?:https?:\/\/|mailto:)/i;
const ALIGNED = new Set(["left", "right", "center"]);
// What the gateway takes at once, and what is kept of what it gave.
const MAX_TEXTS = 40;
const MAX_TEXTS_CHARS = 90_000;
const MAX_KEPT = 400;
const SOON_MS = 30;
const RETRY_MS = 5000;

const kept = new Map(); // text -> tree, or null
const wanted = new Map(); // text -> what to call with its tree
let timer = null;

/** Return the tree of a text if it is known: null if it has none, undefined if nobody has asked yet. */
export const knownTree = (text) => kept.get(text);

/** Ask for the tree of a text, and call `then` when it is known. */
export function wantTree(text, then) {
  wanted.set(text, [...(wanted.get(text) ?? []), then]);
  timer ??= setTimeout(ask, SOON_MS);
}

async function ask() {
  const texts = [];
  let room = MAX_TEXTS_CHARS;
  for (const text of wanted.keys()) {
    room -= text.length;
    if (texts.length && (room < 0 || texts.length === MAX_TEXTS)) break;
    texts.push(text);
  }
  let pauseMs = SOON_MS;
  try {
    const { trees } = await post("/api/markdown", { texts });
    texts.forEach((text, index) => keep(text, trees[index] ?? null));
  } catch (error) {
    // The text is there as it is. What is too much for the gateway is not asked again.
    if (error.status >= 400 && error.status < 500) for (const text of texts) keep(text, null);
    else pauseMs = RETRY_MS;
  }
  timer = wanted.size ? setTimeout(ask, pauseMs) : null;
}

function keep(text, tree) {
  kept.set(text, tree);
  if (kept.size > MAX_KEPT) kept.delete(kept.keys().next().value);
  const waiting = wanted.get(text) ?? [];
  wanted.delete(text);
  for (const then of waiting) then(tree);
}

/** Return the elements of a tree; `nameOf(line)` is the name of a line of the source. */
export const elementsOf = (tree, nameOf) => tree.map((node) => elementOf(node, nameOf));

function elementOf(node, nameOf) {
  if (typeof node === "string") return legible(node);
  const { tag, line, children = [] } = node;
  const place = line === undefined ? {} : { "data-line": nameOf(line) };
  const inside = () => elementsOf(children, nameOf);
  // One level for all: what it says of itself does not fit into the headings of the page.
  if (HEADING.test(tag)) return el("h3", { ...place, class: `md-heading md-${tag}` }, inside());
  if (tag === "a") return linkOf(node, inside());
  if (tag === "pre") return codeOf(node, nameOf);
  if (tag === "table") return el("div", { ...place, class: "md-wide", tabindex: "0", role: "region", "aria-label": "Table" }, el("table", {}, inside()));
  if (!TAGS.has(tag)) return el("span", {}, inside());
  const attributes = { ...place };
  if (ALIGNED.has(node.align)) attributes.class = `md-${node.align}`;
  if (tag === "ol" && Number.isInteger(node.start)) attributes.start = node.start;
  return el(tag, attributes, inside());
}

/** A link says where it leads if its text names another place. */
function linkOf({ href, title }, children) {
  if (!SAFE.test(href)) return el("span", {}, children);
  const link = el("a", { href, rel: "noreferrer noopener", target: "_blank", title: title ? `${title}: ${href}` : href }, children);
  const isMisleading = /^\s*(?:[a-z]+:\/\/|www\.)/i.test(link.textContent) && link.textContent.trim() !== href;
  return isMisleading ? el("span", {}, link, ` (${href})`) : link;
}

function codeOf({ line, language, children }, nameOf) {
  const lines = legible(children.join("")).replace(/\n$/, "").split("\n");
  return el(
    "div",
    { class: "md-code" },
    language && el("span", { class: "md-language" }, language),
    el("pre", { class: "md-wide", tabindex: "0", "aria-label": language ? `Code, ${language}` : "Code" }, lines.map((text, index) => el("span", { class: "ln", "data-line": line !== undefined && nameOf(line + index) }, text))),
  );
}
