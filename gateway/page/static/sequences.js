/** How output is taken apart: escape sequences, controls, text. Linear in the length of the text. */

/** One step: a CSI sequence, another escape sequence, a control, or plain text. */
export const STEP =
  /\x1b\[([<-?]?)([0-9:;]*)[<-?]*([ -/]*)([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b[ -/]*[0-~]?|[\x00-\x1a\x1c-\x1f\x7f-\x9f]|[^\x00-\x1f\x7f-\x9f]+/g;

/** A sequence at the end of a text that the next one may finish. */
export const UNFINISHED = /\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|[ -/]*)$/;

/** A sequence that is longer is none that anybody finishes. */
export const MAX_UNFINISHED_CHARS = 65_536;

/** Marks of no width of their own, one after the other. */
export const MARKS = /[\p{Mn}\p{Me}\p{Cf}\u1160-\u11ff]+/gu;

/** More on one character is no writing, and takes a browser seconds to draw. */
export const MAX_MARKS = 16;
