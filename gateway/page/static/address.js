/** What of a view stands in the page's address: words behind `?`, and the name of a line behind `#`. */

const LINE = /^#e(\d{1,16})\.(\d{1,9})$/;

/** Return a word of the address, or "". */
export const wordOf = (name) => new URLSearchParams(location.search).get(name) ?? "";

/** Set a word of the address, or take it away; the page stays. */
export function setWord(name, value) {
  const url = new URL(location.href);
  if (value) url.searchParams.set(name, value);
  else url.searchParams.delete(name);
  if (url.href !== location.href) history.replaceState(null, "", url);
}

/** Return the line that the address names, as `{event, line}`; null if it names none. */
export function lineOfAddress() {
  const [, event, line] = LINE.exec(location.hash) ?? [];
  return event ? { event: Number(event), line: Number(line) } : null;
}

/** Name a line in the address, by "event.line"; the page stays. */
export function setLine(name) {
  const url = new URL(location.href);
  url.hash = name ? `#e${name}` : "";
  if (url.href !== location.href) history.replaceState(null, "", url);
}

/** Return the whole address of a line. */
export function addressOf(name) {
  const url = new URL(location.href);
  url.search = "";
  url.hash = `#e${name}`;
  return url.href;
}
