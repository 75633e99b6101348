/**
 * What each line of a run's text is, by its first character; `kinds/text_layout.py` writes it so, and
 * has the table. The cases of both are in one file of the tests.
 */

/** What `started` calls this layout. */
export const LAYOUT = 1;

const KINDS = new Map([
  ["●", "tool"],
  ["◦", "input"],
  ["⎿", "result"],
  ["▏", "diff"],
  ["⋯", "left out"],
  ["○", "whose"],
  ["∴", "thought"],
  ["»", "person"],
  ["◆", "notice"],
  ["▲", "failure"],
  ["■", "end"],
]);
const SUBAGENT = "┊";
const ESCAPED = new RegExp(`^\\\\+[${[...KINDS.keys()].join("")}${SUBAGENT}]`);

/** Return what a line is, as `{kind, text, isSubagent}`. Any text is a line. */
export function readLine(shown) {
  const isSubagent = begins(shown, SUBAGENT);
  if (isSubagent) shown = shown.slice(2);
  const kind = KINDS.get(shown[0]);
  if (kind && begins(shown, shown[0])) return { kind, text: shown.slice(2), isSubagent };
  return { kind: "words", text: ESCAPED.test(shown) ? shown.slice(1) : shown, isSubagent };
}

const begins = (shown, sign) => shown === sign || shown.startsWith(`${sign} `);
