/** What happened beside the output: markers, infos, errors and links, in the order of their events. */

import { el } from "./dom.js";
import { describeTalk } from "./questions.js";
import { attempt, nextFrame } from "./turns.js";
import { asText, firstLines } from "./values.js";
import { clock } from "./words.js";

const AT_END_PX = 24;
// What is too much is let go from the top; all of it is in the files and in the gateway's API.
const MAX_ENTRIES = 500;
const MAX_ENTRY_CHARS = 2000;
const MAX_ENTRY_LINES = 30;

export class SideLog {
  #isWaiting = false;
  #entries = []; // [event id, element], ascending
  #list = el("ol", { class: "log", tabindex: "0", "aria-label": "Log" });
  #empty = el("p", { class: "hint" }, "Nothing yet.");

  constructor() {
    this.element = el(
      "section",
      { class: "card", "aria-labelledby": "log-title" },
      el("h2", { id: "log-title" }, "Log"),
      this.#empty,
      this.#list,
    );
  }

  /** Take events, of which it shows those that are no output; one that it has already is left out. */
  add(events) {
    const told = events.filter(({ type }) => type !== "stdout" && type !== "stderr");
    if (!told.length) return;
    this.#followSoon();
    for (const event of told) attempt(() => this.#insert(event));
    this.#empty.hidden = this.#entries.length > 0;
  }

  /** Go to the end with the next frame, if that is where the reader is now. */
  async #followSoon() {
    if (this.#isWaiting) return;
    const list = this.#list;
    const isFollowing = list.scrollHeight - list.scrollTop - list.clientHeight < AT_END_PX;
    this.#isWaiting = true;
    await nextFrame();
    this.#isWaiting = false;
    if (isFollowing) list.scrollTop = list.scrollHeight;
  }

  #insert(event) {
    let at = this.#entries.length;
    while (at && this.#entries[at - 1][0] > event.id) at -= 1;
    if (at && this.#entries[at - 1][0] === event.id) return;
    const described = describe(event);
    if (!described) return;
    const [kind, text] = described;
    const entry = el(
      "li",
      { class: `log-entry ${kind}` },
      el("time", { datetime: new Date(event.created_at * 1000).toISOString() }, clock(event.created_at)),
      el("span", {}, asText(firstLines(text, MAX_ENTRY_LINES), MAX_ENTRY_CHARS)),
    );
    this.#list.insertBefore(entry, this.#entries[at]?.[1] ?? null);
    this.#entries.splice(at, 0, [event.id, entry]);
    if (this.#entries.length > MAX_ENTRIES) this.#entries.shift()[1].remove();
  }
}

function describe({ type, data }) {
  if (type === "error") return ["bad", data];
  if (type !== "marker" && type !== "assist") return ["info", data];
  const fields = parse(data);
  if (!fields) return ["info", data];
  if (type === "assist") return ["info", fields.url ? "A link for helping at the keyboard is open." : "The link for helping is closed."];
  if (fields.event === "progress") return null; // the head has what it says
  return ["marker", describeTalk(fields) ?? describeMarker(fields)];
}

function describeMarker({ event, workingDir, columns, lines, state, reason, exitCode }) {
  switch (event) {
    case "started": return `Started in ${asText(workingDir) || "an unknown folder"}`;
    case "resized": return `The terminal is ${asText(columns)} × ${asText(lines)} now`;
    case "state": return state === "waiting" ? "Waiting for you" : "Working";
    case "finished": return `Ended: ${asText(reason) || "no reason given"}, exit code ${asText(exitCode) || "unknown"}`;
    default: return asText(event) || "marker";
  }
}

/** Return the object that a JSON text holds, or null if it holds none. */
function parse(text) {
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}
