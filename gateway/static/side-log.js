/** What happened beside the output: markers, infos, errors and links, in the order of their events. */

import { el } from "./dom.js";
import { clock } from "./words.js";

const AT_END_PX = 24;

export class SideLog {
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
    const list = this.#list;
    const isFollowing = list.scrollHeight - list.scrollTop - list.clientHeight < AT_END_PX;
    for (const event of events) {
      if (event.type !== "stdout" && event.type !== "stderr") this.#insert(event);
    }
    this.#empty.hidden = this.#entries.length > 0;
    if (isFollowing) list.scrollTop = list.scrollHeight;
  }

  #insert(event) {
    let at = this.#entries.length;
    while (at && this.#entries[at - 1][0] > event.id) at -= 1;
    if (at && this.#entries[at - 1][0] === event.id) return;
    const [kind, text] = describe(event);
    const entry = el(
      "li",
      { class: `log-entry ${kind}` },
      el("time", { datetime: new Date(event.created_at * 1000).toISOString() }, clock(event.created_at)),
      el("span", {}, text),
    );
    this.#list.insertBefore(entry, this.#entries[at]?.[1] ?? null);
    this.#entries.splice(at, 0, [event.id, entry]);
  }
}

function describe({ type, data }) {
  if (type === "error") return ["bad", data];
  if (type !== "marker" && type !== "assist") return ["info", data];
  const fields = parse(data);
  if (!fields) return ["info", data];
  if (type === "assist") return ["info", fields.url ? "A link for helping at the keyboard is open." : "The link for helping is closed."];
  return ["marker", describeMarker(fields)];
}

function describeMarker(fields) {
  switch (fields.event) {
    case "started": return `Started in ${fields.workingDir ?? "an unknown folder"}`;
    case "resized": return `The terminal is ${fields.columns} × ${fields.lines} now`;
    case "state": return fields.state === "waiting" ? "Waiting for you" : "Working";
    case "finished": return `Ended: ${fields.reason ?? "no reason given"}, exit code ${fields.exitCode}`;
    default: return String(fields.event ?? "marker");
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
