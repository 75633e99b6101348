/** Numbers and states in words. Times are Unix seconds, as the gateway sends them. */

import { asNumber, asText } from "./values.js";

const MAX_TITLE_CHARACTERS = 500;

// What the list has of a run, by the names of the API; its prompt comes on top.
const LINE = [
  ...["id", "status", "created_at", "started_at", "finished_at", "last_event_at", "last_event_id", "exit_code", "reason"],
  ...["name", "sent_to", "runner", "mode", "working_dir", "branch", "open_questions", "title", "stage", "stage_at", "seen_at", "refused", "cost", "incomplete", "kept"],
];

// Each is made once, and when it is needed: that takes some 20 ms, and the page asks for its run first.
let numbers;
let moments;

const now = () => Date.now() / 1000;

/** Return how long ago a moment was: "just now", "5 min ago", "3 days ago". */
export function age(at) {
  const seconds = Math.max(0, now() - at);
  if (seconds < 45) return "just now";
  if (seconds < 3600 * 1.5) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 86_400 * 1.5) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86_400)} days ago`;
}

/** Return a span of time: "4 s", "3 min 12 s", "1 h 05 min". */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}

/** Return how long a run has lasted, or lasts by now; an empty text before it starts. */
export function lasted(run) {
  if (!run.started_at) return "";
  return span((run.finished_at ?? now()) - run.started_at);
}

/** Return for how long a run has waited for a person. */
export const waited = (run) => span(now() - run.stage_at);

/** Return a size: "512 B", "3.4 KB". */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["KB", "MB", "GB"];
  let value = bytes / 1000;
  while (value >= 1000 && units.length > 1) {
    value /= 1000;
    units.shift();
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[0]}`;
}

/** Return a number, in the reader's own way of writing it. */
export const many = (number) => (numbers ??= new Intl.NumberFormat()).format(number);

/** Return the time of day, in the reader's own way of writing it. */
export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString([], { timeStyle: "medium" });
}

/** Return date and time, in the reader's own way of writing them. */
export function moment(at) {
  moments ??= new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "short" });
  return moments.format(at * 1000);
}

/** Return the time of day of a moment that is today, and the date too of any other. */
export function when(at) {
  const date = new Date(at * 1000);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? date.toLocaleTimeString([], { timeStyle: "short" }) : moment(at);
}

/** Return a run's name, as the gateway calls it everywhere. */
export const title = (run) => asText(run.name, MAX_TITLE_CHARACTERS) || asText(run.id);

/** Return what the list shows of a run. */
export function lineOf({ command, prompt, ...run }) {
  const line = Object.fromEntries(LINE.map((name) => [name, run[name]]));
  return { ...line, prompt: command ?? prompt };
}

/** Return the last name of a folder's path, or the last few. */
export const folderName = (path, names = 1) => asText(path).split(/[\\/]/).filter(Boolean).slice(-names).join("/");

/** Return what a run costs, to the cent; of less than a cent a little more. */
export const dollars = (cost) => `$${cost.toFixed(cost > 0 && cost < 0.01 ? 4 : 2)}`;

/** Return a run's state as `[key for the colour, word]`. */
export function status(run) {
  if (run.status === "pending") return ["pending", run.reason ? "Will not start" : "Not started"];
  if (run.status === "running") {
    if (run.silent) return ["silent", "Silent"];
    if (run.open_questions) return ["waiting", "Asks you"];
    return run.stage === "needs" ? ["waiting", "Waiting for you"] : ["running", "Running"];
  }
  if (run.reason === "stopped") return ["ended", "Stopped"];
  if (run.reason === "halted") return ["ended", "Halted"];
  if (run.reason === "interrupted") return ["ended", "Interrupted"];
  return run.status === "done" ? ["done", "Finished"] : ["failed", "Failed"];
}

const REASONS = new Map([
  ["exited", "ended by itself"],
  ["killed", "was killed by a signal"],
  ["stopped", "was stopped"],
  ["halted", "was halted"],
  ["time limit", "was stopped because its time was over"],
  ["hangup", "was stopped because its terminal was closed"],
  ["runner died", "was ended because the runner had died"],
  ["interrupted", "ended after its turn was interrupted"],
  ["error", "could not go on because of an error of the runner"],
]);

/** Return one sentence on how a run ended. */
export function ending(run) {
  const subject = run.runner === "claude" ? "Claude Code" : "The command";
  const reason = asText(run.reason);
  const how = REASONS.get(reason) ?? (reason ? `ended (${reason})` : "ended");
  const code = run.exit_code == null ? "" : `, exit code ${asText(run.exit_code)}`;
  const time = lasted(run);
  return `${subject} ${how}${time && ` after ${time}`}${code}.`;
}

/** Return how many tools were refused in a run that nobody asked about, or whose questions were denied. */
export function refusedTools(run) {
  const { denials, permissionDenials } = run.result ?? {};
  if (Number.isInteger(denials)) return denials;
  return Array.isArray(permissionDenials) ? permissionDenials.length : 0;
}

/**
 * Return what Claude Code's own result says, as `[label, text]` pairs. It comes from the run as it is,
 * so nothing is sure about its types.
 */
export function resultFacts({ isError, subtype, totalCostUsd, numTurns, permissionDenials }) {
  const facts = [];
  if (isError === true) facts.push(["Its result", asText(subtype && subtype !== "success" ? subtype : "an error").replaceAll("_", " ")]);
  const cost = asNumber(totalCostUsd);
  if (cost !== null) facts.push(["Cost", dollars(cost)]);
  if (asNumber(numTurns) !== null) facts.push(["Turns", String(numTurns)]);
  if (Array.isArray(permissionDenials) && permissionDenials.length) {
    facts.push(["Refused tools", permissionDenials.map((each) => asText(each)).join(", ")]);
  }
  return facts;
}

const TALK = new Map([["__ANSWER__:", "Answer"], ["__MODE__:", "Permission mode"], ["__TAKE_BACK__:", "Take back a message"]]);

/** Return what a command is called by which a person talks with a run; null for any other. */
export function talkName(command) {
  const prefix = [...TALK.keys()].find((each) => command.startsWith(each));
  if (!prefix) return null;
  const mode = prefix === "__MODE__:" ? `: ${command.slice(prefix.length)}` : "";
  return `${TALK.get(prefix)}${mode}`;
}
