/**
 * What of a run's output may go to a real terminal, which does what it is told: repeat a character two
 * thousand million times, or wait for the end of a title for ever.
 *
 * Only whole sequences of known kinds come out of here, with numbers that the terminal has use for.
 * Titles, links, palettes and other strings are left out, as is what reports the mouse.
 */

import { MARKS, MAX_MARKS, MAX_UNFINISHED_CHARS, STEP, UNFINISHED } from "./sequences.js";

// One sequence has no more numbers than this; what is behind them means nothing to any terminal.
const MAX_NUMBERS = 16;
// In the place of a reset, which makes the whole terminal anew: the main screen, plain and empty.
const CLEARED = "\x1b[?1049l\x1b[!p\x1b[H\x1b[J";
// Modes that take the mouse from the reader: 9, 1000 to 1007, 1015, 1016.
const MOUSE = /^(?:9|100[0-7]|101[56])$/;

export class TameOutput {
  #unfinished = new Map(); // of each stream
  #last = ""; // the stream that wrote last
  #room = 0; // for marks on the character that was written last

  /** Return what may be written of the next piece of a stream. `largest` is the largest number in it. */
  next(text, origin, largest) {
    if (origin !== this.#last) this.#room = 0;
    this.#last = origin;
    let whole = (this.#unfinished.get(origin) ?? "") + text;
    this.#unfinished.delete(origin);
    const cut = UNFINISHED.exec(whole);
    if (cut && cut[0].length < MAX_UNFINISHED_CHARS) {
      this.#unfinished.set(origin, cut[0]);
      whole = whole.slice(0, cut.index);
    }
    return whole.replace(STEP, (step, prefix, numbers, between, final) => this.#tamed(step, prefix, numbers, between, final, largest));
  }

  #tamed(step, prefix, numbers, between, final, largest) {
    if (step[0] >= " " && step[0] !== "\x7f" && (step[0] < "\x80" || step[0] > "\x9f")) return this.#printed(step);
    this.#room = 0;
    // Those from U+0080 on begin sequences too, which nobody writes that way.
    if (step[0] !== "\x1b") return step[0] < " " ? step : "";
    if (step === "\x1bc") return CLEARED;
    if (!final) return /^\x1b(?:[78DEHM=>]|[()*+][0-~])$/.test(step) ? step : "";
    let known = numbers.split(";", MAX_NUMBERS);
    if (prefix === "?" && (final === "h" || final === "l")) known = known.filter((number) => !MOUSE.test(number));
    if (!known.length) return "";
    const clamped = known.map((each) => each.split(":", MAX_NUMBERS).map((number) => clamp(number, final, prefix, largest)).join(":"));
    return `\x1b[${prefix}${clamped.join(";")}${between}${final}`;
  }

  /** Return text with as many marks on each character as can be drawn. */
  #printed(text) {
    const start = this.#room;
    this.#room = MAX_MARKS;
    return text.replace(MARKS, (marks, at) => {
      const room = at ? MAX_MARKS : start;
      const kept = Array.from(marks).slice(0, room);
      if (at + marks.length === text.length) this.#room = room - kept.length;
      return kept.join("");
    });
  }
}

/** Of colours and modes the number is a name; everything else is a count or a place. */
function clamp(number, final, prefix, largest) {
  if (number === "") return number;
  return String(Math.min(Number(number), final === "m" || prefix ? 9999 : largest));
}
