/** The lines of a diff, each with its kind as a class. */

import { el } from "./dom.js";

/** Headers are told from removed lines by where they stand; `isInHunk` for a diff without headers. */
export function diffLines(text, isInHunk = false) {
  return text.split("\n").map((line) => {
    if (line.startsWith("@@")) isInHunk = true;
    else if (line.startsWith("diff ")) isInHunk = false;
    return el("span", { class: `diff-line ${diffKind(line, isInHunk)}` }, `${line}\n`);
  });
}

function diffKind(line, isInHunk) {
  if (line.startsWith("@@")) return "hunk";
  if (!isInHunk) return "header";
  if (line.startsWith("+")) return "added";
  return line.startsWith("-") ? "removed" : "same";
}
