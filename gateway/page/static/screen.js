/**
 * What a terminal would show of a run's output, as lines of styled text.
 *
 * Pure: text in, lines out. It knows what programs print into a log or draw with: line ends, tabs,
 * backspace, moves of the cursor, erasing, colours, the alternate screen. Anything else that begins
 * with ESC is left out, also when it arrives in two pieces. Scroll regions are not known.
 * No sequence costs more than one screen, or one line; what is too much is let go from the top.
 *
 * A cell is `[text, style]`: one character with what combines with it. A wide one is followed by a
 * cell with an empty text. Styles are shared objects and may be compared by identity.
 */

import { MAX_MARKS, MAX_UNFINISHED_CHARS, STEP, UNFINISHED } from "./sequences.js";

const WIDE =
  /^(?:\p{Emoji_Presentation}|[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{20000}-\u{3fffd}])/u;
const COMBINING = /^(?:\p{Mn}|\p{Me}|\u200b|\u200d|[\ufe00-\ufe0f])$/u;
const ASCII = /^[ -~]*$/;

const TAB = 8;
// How far right a move may go where lines have no end; further than any program means.
const FARTHEST_COLUMN = 1000;
// Where a line without an end breaks nevertheless: whatever changes in a line, all of it is drawn anew.
const LONGEST_LINE = 20_000;
// What a browser can lay out without a pause. Of more, the earliest lines are let go.
const MAX_LINES = 30_000;
const MAX_CELLS = 5_000_000;
const TRIMMED_EVERY = 5000;
// After each screen that is left all is drawn anew. Some programs leave one many times.
const MAX_KEPT_SCREENS = 20;
const MAX_NUMBERS = 32;
const PLAIN = Object.freeze({});
const BLANK = Object.freeze([" ", PLAIN]);

/** One stream's own state: what it left unfinished, and its current style. */
class Pen {
  unfinished = "";
  style = PLAIN;
}

export class Screen {
  #columns;
  #rows;
  #newlineReturns;
  #main = [[]];
  #row = 0;
  #column = 0;
  #saved = [0, 0];
  #beforeAlternate = null;
  #kept = 0; // screens that were left
  #pens = new Map();
  #dirty = new Set();
  #dirtyFrom = 0; // and all lines from here on
  #dropped = 0;
  #styles = new Map();

  /** `columns` of Infinity wraps very late. `newlineReturns`: LF alone goes to the line's beginning. */
  constructor({ columns = Infinity, rows = 24, newlineReturns = true } = {}) {
    this.resize(columns, rows);
    this.#newlineReturns = newlineReturns;
  }

  /** All lines, each an array of cells. */
  get lines() {
    return this.#main;
  }

  /** Whether a line has changed that was not taken yet. */
  get isDirty() {
    return this.#dirty.size > 0 || this.#dirtyFrom < this.#main.length;
  }

  /** Return the numbers of lines that changed since they were taken, in ascending order: so many at most. */
  takeDirty(most) {
    const taken = [];
    for (const row of this.#dirty) {
      if (taken.length === most) break;
      this.#dirty.delete(row);
      if (row < this.#main.length) taken.push(row);
    }
    while (taken.length < most && this.#dirtyFrom < this.#main.length) taken.push(this.#dirtyFrom++);
    return taken.sort((a, b) => a - b);
  }

  /** Return how many lines have gone at the top since the last call; the numbers are those without them. */
  takeDropped() {
    const dropped = this.#dropped;
    this.#dropped = 0;
    return dropped;
  }

  /** Take another size; what is there already stays as it is. */
  resize(columns, rows) {
    this.#columns = Math.min(columns, LONGEST_LINE);
    this.#rows = rows;
  }

  /** Take the next piece of one of the streams. `origin` names it: "stdout" or "stderr". */
  write(text, origin = "stdout") {
    let pen = this.#pens.get(origin);
    if (!pen) this.#pens.set(origin, (pen = new Pen()));
    let whole = pen.unfinished + text;
    pen.unfinished = "";
    const cut = whole.length > 0 && UNFINISHED.exec(whole);
    if (cut && cut[0].length < MAX_UNFINISHED_CHARS) {
      pen.unfinished = cut[0];
      whole = whole.slice(0, cut.index);
    }
    for (const step of whole.matchAll(STEP)) this.#take(step, pen, origin);
  }

  #take(step, pen, origin) {
    const [text, prefix, parameters, between, final] = step;
    if (final) {
      if (!between) this.#control(prefix, parameters, final, pen);
    } else if (text[0] === "\x1b") {
      this.#escape(text);
    } else if (text < " " || (text >= "\x7f" && text <= "\x9f")) {
      this.#controlCharacter(text);
    } else {
      this.#print(text, this.#intern(pen.style, origin));
    }
  }

  // --- printing ------------------------------------------------------------------------------

  #print(text, style) {
    const characters = ASCII.test(text) ? text : Array.from(text);
    for (const character of characters) {
      if (character > "~" && COMBINING.test(character)) this.#combine(character);
      else this.#put(character, style);
    }
  }

  #put(character, style) {
    const width = character > "~" && WIDE.test(character) ? 2 : 1;
    if (this.#column + width > this.#columns) {
      this.#column = 0;
      this.#down();
    }
    const line = this.#line();
    this.#pad(line, this.#column);
    this.#halve(line, this.#column);
    this.#halve(line, this.#column + width);
    line[this.#column] = [character, style];
    if (width === 2) line[this.#column + 1] = ["", style];
    this.#column += width;
  }

  #combine(character) {
    const line = this.#line();
    let at = Math.min(this.#column, line.length) - 1;
    if (at > 0 && line[at][0] === "") at -= 1;
    if (at >= 0 && line[at][0].length < 2 * MAX_MARKS) line[at] = [line[at][0] + character, line[at][1]];
  }

  #line() {
    if (this.#row < this.#dirtyFrom) this.#dirty.add(this.#row);
    return this.#main[this.#row];
  }

  /** Blank both halves of a wide character that begins before this column and goes on in it. */
  #halve(line, column) {
    if (line[column]?.[0] === "") line[column - 1] = line[column] = BLANK;
  }

  #pad(line, length) {
    while (line.length < length) line.push(BLANK);
  }

  // --- moving --------------------------------------------------------------------------------

  #controlCharacter(character) {
    if (character === "\n" || character === "\v" || character === "\f") {
      if (this.#newlineReturns) this.#column = 0;
      this.#down();
    } else if (character === "\r") {
      this.#column = 0;
    } else if (character === "\b") {
      this.#column = Math.max(0, Math.min(this.#column, this.#columns - 1) - 1);
    } else if (character === "\t" && this.#column < this.#columns) {
      this.#column = Math.min(this.#columns - 1, (Math.floor(this.#column / TAB) + 1) * TAB);
    }
  }

  #down() {
    this.#column = Math.min(this.#column, this.#columns - 1);
    this.#row += 1;
    this.#ensure();
  }

  #ensure() {
    while (this.#main.length <= this.#row) {
      this.#dirtyFrom = Math.min(this.#dirtyFrom, this.#main.length);
      this.#main.push([]);
      if (this.#main.length % TRIMMED_EVERY === 0) this.#trim();
    }
  }

  /** Let go of the earliest lines, if there are too many. */
  #trim() {
    let kept = 0;
    let cells = 0;
    const { length } = this.#main;
    while (kept < Math.min(length, MAX_LINES) && (cells < MAX_CELLS || kept < this.#rows)) {
      kept += 1;
      cells += this.#main[length - kept].length;
    }
    const gone = length - kept;
    if (!gone) return;
    this.#main.splice(0, gone);
    this.#row -= gone;
    this.#dropped += gone;
    this.#dirty = new Set([...this.#dirty].map((row) => row - gone).filter((row) => row >= 0));
    this.#dirtyFrom = Math.max(0, this.#dirtyFrom - gone);
  }

  get #top() {
    return Math.max(0, this.#main.length - this.#rows);
  }

  #moveTo(row, column) {
    const bottom = this.#top + this.#rows - 1;
    this.#row = Math.max(this.#top, Math.min(bottom, row));
    this.#ensure();
    this.#column = Math.max(0, Math.min(this.#limit - 1, column));
  }

  #escape(text) {
    if (text === "\x1b7") this.#saved = [this.#row - this.#top, this.#column];
    else if (text === "\x1b8") this.#moveTo(this.#top + this.#saved[0], this.#saved[1]);
    else if (text === "\x1bD") this.#down();
    else if (text === "\x1bE") this.#moveTo(this.#row + 1, 0);
    else if (text === "\x1bM") this.#moveTo(this.#row - 1, this.#column);
    else if (text === "\x1bc") this.#eraseScreen(2);
  }

  #control(prefix, parameters, final, pen) {
    if (prefix) {
      if (prefix === "?" && (final === "h" || final === "l")) this.#mode(parameters, final === "h");
      return;
    }
    if (final === "m") {
      pen.style = styled(pen.style, parameters);
      return;
    }
    const values = parameters.split(";", MAX_NUMBERS).map((each) => Number.parseInt(each, 10));
    const first = values[0] || 0;
    const count = Math.max(1, first);
    const column = Math.min(this.#column, this.#columns - 1);
    switch (final) {
      case "A": return this.#moveTo(this.#row - count, column);
      case "B": case "e": return this.#moveTo(this.#row + count, column);
      case "C": case "a": return this.#moveTo(this.#row, column + count);
      case "D": return this.#moveTo(this.#row, column - count);
      case "E": return this.#moveTo(this.#row + count, 0);
      case "F": return this.#moveTo(this.#row - count, 0);
      case "G": case "`": return this.#moveTo(this.#row, count - 1);
      case "d": return this.#moveTo(this.#top + count - 1, column);
      case "H": case "f": return this.#moveTo(this.#top + count - 1, Math.max(1, values[1] || 1) - 1);
      case "J": return this.#eraseScreen(first);
      case "K": return this.#eraseLine(first);
      case "X": return this.#blank((this.#column = column), column + count);
      case "P": return this.#deleteCells((this.#column = column), count);
      case "@": return this.#insertBlanks((this.#column = column), count);
      case "L": return this.#insertLines(count);
      case "M": return this.#deleteLines(count);
      case "s": return this.#escape("\x1b7");
      case "u": return this.#escape("\x1b8");
    }
  }

  #mode(parameters, isOn) {
    if (!parameters.split(";").some((each) => each === "1049" || each === "1047" || each === "47")) return;
    if (isOn && !this.#beforeAlternate) {
      const row = this.#row - this.#top;
      this.#beforeAlternate = [this.#main, this.#row, this.#column];
      this.#replace(Array.from({ length: row + 1 }, () => []), row, this.#column);
    } else if (!isOn && this.#beforeAlternate) {
      const left = this.#main.slice(this.#top);
      this.#replace(...this.#beforeAlternate);
      this.#beforeAlternate = null;
      this.#keep(left);
    } else if (!isOn) {
      this.#escape("\x1b8"); // as xterm does: leaving restores the cursor in any case
    }
  }

  /** Keep above the cursor what stood on a screen that is left: of a session it is all there is to read. */
  #keep(screen) {
    const kept = screen.slice(0, screen.findLastIndex((line) => line.length) + 1);
    if (!kept.length || this.#kept === MAX_KEPT_SCREENS) return;
    this.#kept += 1;
    const isWithin = this.#column > 0;
    const row = this.#row + (isWithin ? 1 : 0);
    this.#main.splice(row, 0, ...kept, ...(isWithin ? [[]] : []));
    this.#row = row + kept.length;
    this.#column = 0;
    this.#trim();
  }

  #replace(lines, row, column) {
    this.#dirtyFrom = 0;
    this.#dirty.clear();
    this.#dropped = 0;
    this.#main = lines;
    this.#row = row;
    this.#column = column;
  }

  // --- erasing -------------------------------------------------------------------------------

  #eraseLine(which) {
    if (which === 0) this.#cut(this.#column);
    else if (which === 1) this.#blank(0, this.#column + 1);
    else if (which === 2) this.#line().length = 0;
  }

  #eraseScreen(which) {
    if (which > 2) return; // what has scrolled away stays: this is a log too
    const from = which === 0 ? this.#row + 1 : this.#top;
    const to = which === 1 ? this.#row : this.#main.length;
    for (let row = from; row < to; row += 1) {
      this.#main[row] = [];
      if (row < this.#dirtyFrom) this.#dirty.add(row);
    }
    if (which < 2) this.#eraseLine(which);
  }

  #cut(column) {
    const line = this.#line();
    this.#halve(line, column);
    line.length = Math.min(line.length, column);
  }

  #blank(from, to) {
    const line = this.#line();
    this.#halve(line, from);
    this.#halve(line, to);
    const end = Math.min(to, line.length);
    for (let column = from; column < end; column += 1) line[column] = BLANK;
  }

  #deleteCells(column, count) {
    const line = this.#line();
    this.#halve(line, column);
    this.#halve(line, column + count);
    line.splice(column, count);
  }

  #insertBlanks(column, count) {
    const line = this.#line();
    if (column >= line.length) return;
    this.#halve(line, column);
    const blanks = Array(Math.min(count, FARTHEST_COLUMN)).fill(BLANK);
    line.splice(column, 0, ...blanks);
    this.#halve(line, this.#columns);
    if (line.length > this.#columns) line.length = this.#columns;
  }

  #insertLines(count) {
    const bottom = this.#top + this.#rows;
    const blanks = Array.from({ length: Math.min(count, bottom - this.#row) }, () => []);
    this.#main.splice(this.#row, 0, ...blanks);
    this.#main.length = Math.min(this.#main.length, bottom);
    this.#touchFrom(this.#row);
    this.#column = 0;
  }

  #deleteLines(count) {
    const removed = this.#main.splice(this.#row, count).length;
    this.#main.push(...Array.from({ length: removed }, () => []));
    this.#touchFrom(this.#row);
    this.#column = 0;
  }

  get #limit() {
    return Math.min(this.#columns, Math.max(FARTHEST_COLUMN, this.#column + 1));
  }

  #touchFrom(row) {
    this.#dirtyFrom = Math.min(this.#dirtyFrom, row);
  }

  // --- styles --------------------------------------------------------------------------------

  #intern(style, origin) {
    const isError = origin === "stderr";
    if (style === PLAIN && !isError) return PLAIN;
    const key = `${origin}${JSON.stringify(style)}`;
    let known = this.#styles.get(key);
    if (!known) this.#styles.set(key, (known = Object.freeze({ ...style, ...(isError && { isError }) })));
    return known;
  }
}

const FLAGS = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 8: "hidden", 9: "strike" };
const CLEARS = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 28: ["hidden"], 29: ["strike"] };

/**
 * Return the style after one SGR sequence. `fg` and `bg` are a number from 0 to 255, or an
 * `rgb(…)` text.
 */
function styled(style, parameters) {
  const codes = parameters.replaceAll(":", ";").split(";", MAX_NUMBERS).map((each) => Number.parseInt(each, 10) || 0);
  let next = { ...style };
  for (let index = 0; index < codes.length; index += 1) {
    const code = codes[index];
    if (code === 0) next = {};
    else if (FLAGS[code]) next[FLAGS[code]] = true;
    else if (CLEARS[code]) for (const flag of CLEARS[code]) delete next[flag];
    else if (code >= 30 && code <= 37) next.fg = code - 30;
    else if (code >= 40 && code <= 47) next.bg = code - 40;
    else if (code >= 90 && code <= 97) next.fg = code - 82;
    else if (code >= 100 && code <= 107) next.bg = code - 92;
    else if (code === 39) delete next.fg;
    else if (code === 49) delete next.bg;
    else if (code === 38 || code === 48) {
      const [color, used] = extended(codes, index + 1);
      index += used;
      if (color !== null) next[code === 38 ? "fg" : "bg"] = color;
    }
  }
  return Object.keys(next).length ? next : PLAIN;
}

function extended(codes, at) {
  const inByte = (value) => value >= 0 && value <= 255;
  if (codes[at] === 5) return [inByte(codes[at + 1]) ? codes[at + 1] : null, 2];
  const parts = codes.slice(at + 1, at + 4);
  if (codes[at] === 2) return [parts.length === 3 && parts.every(inByte) ? `rgb(${parts.join(" ")})` : null, 4];
  return [null, codes.length];
}
