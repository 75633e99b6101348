/**
 * The files in a diff, found without building anything: where each begins and ends, what became of
 * it, and how many lines were added and removed. Pure.
 */

const FILE = "diff --git ";
const NAME = /^(?:rename to|copy to|\+\+\+|---) (.*)$/;
const NUL = "/dev/null";
const ESCAPED = /\\([0-7]{3}|.)/g;
const LETTERS = { a: 7, b: 8, t: 9, n: 10, v: 11, f: 12, r: 13 };

/**
 * Return the files of a diff. Each is `{path, from, status, isBinary, added, removed, lines, start,
 * end}`: `from` is its name before if it had another; `start` and `end` are of its hunks.
 */
export function filesOf(text) {
  const files = [];
  let at = text.startsWith(FILE) ? 0 : text.indexOf(`\n${FILE}`) + 1;
  if (!at && !text.startsWith(FILE)) return files;
  while (at < text.length) {
    const next = text.indexOf(`\n${FILE}`, at);
    const end = next < 0 ? text.length : next + 1;
    files.push(fileOf(text, at, end));
    at = end;
  }
  return files;
}

function fileOf(text, begin, end) {
  const hunks = text.indexOf("\n@@", begin);
  const start = hunks >= 0 && hunks < end ? hunks + 1 : end;
  const head = text.slice(begin, start).split("\n");
  const file = { path: namedTwice(head[0].slice(FILE.length)), from: null, status: "changed", isBinary: false, start, end };
  for (const line of head.slice(1)) {
    const name = NAME.exec(line)?.[1];
    if (name && !unquoted(name).startsWith(NUL)) file.path = withoutPrefix(unquoted(name), line);
    if (line.startsWith("new file")) file.status = "added";
    else if (line.startsWith("deleted file")) file.status = "removed";
    else if (line.startsWith("rename from ")) {
      file.status = "renamed";
      file.from = unquoted(line.slice("rename from ".length));
    } else if (line.startsWith("Binary files") || line.startsWith("GIT binary")) file.isBinary = true;
  }
  return { ...file, ...counts(text, start, end) };
}

/** The whole of a 5 MB diff is counted, so no line is cut out of it. */
function counts(text, start, end) {
  let [added, removed, lines] = [0, 0, 0];
  for (let at = start; at < end; ) {
    const first = text.charCodeAt(at);
    if (first === 43) added += 1;
    else if (first === 45) removed += 1;
    lines += 1;
    const newline = text.indexOf("\n", at);
    at = newline < 0 ? end : newline + 1;
  }
  return { added, removed, lines };
}

/** Return the one name in `a/name b/name`, of a file whose head says no more. */
function namedTwice(names) {
  if (names.startsWith('"')) return unquoted(/^"(?:[^"\\]|\\.)*"/.exec(names)?.[0] ?? names).slice(2);
  return names.slice(2, (names.length - 1) / 2);
}

const withoutPrefix = (name, line) => (line.startsWith("+++") || line.startsWith("---") ? name.slice(2) : name);

/** Return a name as it is: git quotes some, with the bytes of UTF-8 as octal numbers. */
function unquoted(name) {
  if (!name.startsWith('"')) return name.replace(/\t$/, "");
  const parts = name.slice(1, name.lastIndexOf('"'));
  const bytes = [];
  let from = 0;
  for (const match of parts.matchAll(ESCAPED)) {
    bytes.push(...new TextEncoder().encode(parts.slice(from, match.index)));
    const [whole, what] = match;
    bytes.push(what.length === 3 ? Number.parseInt(what, 8) & 255 : (LETTERS[what] ?? what.codePointAt(0)));
    from = match.index + whole.length;
  }
  bytes.push(...new TextEncoder().encode(parts.slice(from)));
  return new TextDecoder().decode(new Uint8Array(bytes));
}
