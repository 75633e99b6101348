/** What a run says of itself, and may say in any type: as text that can be shown, or left out. */

import { MARKS, MAX_MARKS } from "./sequences.js";

const MAX_CHARACTERS = 1000;
// Overrides of the direction of writing, and signs without a width that no writing needs.
const MASKING = /[\u202a-\u202e\u2066-\u2069\u200b\u2060-\u2064\ufeff\u00ad\u{e0001}-\u{e007f}]/gu;
// The largest terminal that is drawn. Beyond it a browser needs seconds for one picture.
const MAX_COLUMNS = 1000;
const MAX_LINES = 300;
const MAX_CELLS = 100_000;

/** Return a value as text, cut if it is long; "" if there is none. */
export function asText(value, limit = MAX_CHARACTERS) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" ? value : jsonOf(value);
  return legible(text.length > limit ? `${text.slice(0, limit - 1)}…` : text);
}

/** Return so many lines of a text, and a mark if there are more. */
export function firstLines(text, limit) {
  const lines = text.split("\n", limit + 1);
  return lines.length > limit ? [...lines.slice(0, limit), "…"].join("\n") : text;
}

/** Return a text with as many marks on each character as can be drawn. */
export function legible(text) {
  return text.replace(MARKS, (marks) => (marks.length > MAX_MARKS ? Array.from(marks).slice(0, MAX_MARKS).join("") : marks));
}

/**
 * Return a text in which is seen what turns the text behind it round, or hides in it: nobody should allow
 * what he cannot see.
 */
export const unmasked = (text) => text.replace(MASKING, (each) => `⟨U+${each.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);

function jsonOf(value) {
  try {
    return JSON.stringify(value) ?? "";
  } catch {
    return ""; // nested deeper than anything that means something
  }
}

/** Return a finite number, or null. */
export const asNumber = (value) => (Number.isFinite(value) ? value : null);

/** Return the size of a terminal as `{columns, rows}`, no larger than can be drawn, or null. */
export function asSize(columns, rows) {
  if (!Number.isInteger(columns) || !Number.isInteger(rows) || columns < 1 || rows < 1) return null;
  const width = Math.min(columns, MAX_COLUMNS);
  return { columns: width, rows: Math.min(rows, MAX_LINES, Math.floor(MAX_CELLS / width)) };
}

/** Return the newer of two states of a run: an answer may be overtaken by what comes live. */
export const newer = (known, run) => (known && run.last_event_id < known.last_event_id ? known : run);
