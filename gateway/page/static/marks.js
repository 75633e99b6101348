/** The mark on what was looked for, in a text that is drawn already. */

const NAME = "find";

/** Return the places of a text in another, whatever the case of its letters. */
export const occurrences = (text, wanted) => [...text.matchAll(new RegExp(wanted.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"), "giu"))];

/** Return where a text is in an element, behind so many others of its kind; null if it is not there. */
export function rangeOf(element, wanted, skipped = 0) {
  const nodes = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (nodes.nextNode()) texts.push(nodes.currentNode);
  const found = occurrences(texts.map(({ data }) => data).join(""), wanted);
  const { index, 0: match } = found[skipped] ?? found.at(-1) ?? {};
  if (!match) return null;
  const range = new Range();
  let at = 0;
  for (const node of texts) {
    const end = at + node.length;
    if (at <= index && index < end) range.setStart(node, index - at);
    if (at < index + match.length && index + match.length <= end) range.setEnd(node, index + match.length - at);
    at = end;
  }
  return range;
}

/** Mark a range, and nothing else; null takes the mark away. A browser without it shows the line alone. */
export function mark(range) {
  if (range) CSS.highlights?.set(NAME, new Highlight(range));
  else CSS.highlights?.delete(NAME);
}
