/** What a command of the operator printed, as it would look in a terminal; a diff as a diff. */

import { diffLines } from "./diff.js";
import { Screen } from "./screen.js";
import { spans } from "./text-view.js";

// More is shown without colours: each line of its own is work for the browser.
const MAX_COLOURED_CHARS = 100_000;
const MAX_COLOURED_LINES = 3000;

/** Return the nodes of a result. */
export function resultNodes(command, text) {
  if (text.length > MAX_COLOURED_CHARS || text.split("\n", MAX_COLOURED_LINES + 1).length > MAX_COLOURED_LINES) return [text];
  if (/[\x1b\r]/.test(text)) {
    const screen = new Screen();
    screen.write(text);
    return screen.lines.flatMap((line, index) => [...(index ? ["\n"] : []), ...spans(line)]);
  }
  return /^git (?:diff|show)\b/.test(command) && /^diff /m.test(text) ? diffLines(text) : [text];
}
