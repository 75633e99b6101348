/**
 * A stream of server-sent events that knows when it is dead.
 *
 * `EventSource` hides the comment lines that the gateway sends every 15 s, and so cannot tell a quiet
 * run from a connection that a sleeping phone has lost. Here silence is noticed, a reconnect begins at
 * the event after the last one that arrived, and an event that is seen again is left out.
 */

import { ApiError, request } from "./api.js";
import { noticedSoFar, showServices, takeNotice } from "./notifications.js";
import { attempt, pauseAfter, TURN_MS } from "./turns.js";
import { Waits } from "./waits.js";

const SILENCE_MS = 40_000; // two comments in a row have not arrived
const MOVE_MS = 250; // not all browsers at once
const OFFLINE_AFTER_FAILURES = 4;

export class LiveStream {
  #path;
  #onMessage;
  #onState;
  #lastId;
  #state = "";
  #movesOn = false; // the gateway ends, and another one, or its next start, goes on
  #abort = new AbortController();

  /**
   * `onMessage(name, data)` gets each event with its JSON; `onState` gets "connecting", "live",
   * "reconnecting", "offline", or "gone" once the gateway says that there is no such stream.
   */
  constructor(path, { after = 0, onMessage, onState }) {
    this.#path = path;
    this.#lastId = after;
    this.#onMessage = onMessage;
    this.#onState = onState;
  }

  /** Connect, and stay connected until the page goes. */
  async run() {
    const waits = new Waits();
    // Closed by hand: the browser would keep it for a page that lies in the back/forward cache.
    addEventListener("pagehide", () => this.#abort.abort());
    this.#tell("connecting");
    for (;;) {
      try {
        await this.#readOnce();
        waits.failures = 0;
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) return this.#tell("gone");
        if (this.#state === "live") waits.failures = 0;
      }
      if (this.#movesOn) {
        this.#state = "moving"; // nobody is told, unless the first attempt fails
        await new Promise((resolve) => setTimeout(resolve, MOVE_MS * Math.random()));
        continue;
      }
      const isOffline = !navigator.onLine || waits.failures + 1 >= OFFLINE_AFTER_FAILURES;
      this.#tell(isOffline ? "offline" : "reconnecting");
      await waits.afterFailure();
    }
  }

  async #readOnce() {
    this.#abort = new AbortController();
    this.#movesOn = false;
    let watchdog;
    const heard = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => this.#abort.abort(), SILENCE_MS);
    };
    heard();
    try {
      const response = await request(`${this.#path}?after=${this.#lastId}${noticedSoFar()}`, {
        headers: { Accept: "text/event-stream", "Last-Event-ID": String(this.#lastId) },
        signal: this.#abort.signal,
      });
      this.#tell("live");
      let began = performance.now();
      for await (const message of messages(response.body, heard)) {
        this.#receive(message);
        const tookMs = performance.now() - began;
        if (tookMs < TURN_MS) continue;
        await pauseAfter(tookMs);
        began = performance.now();
      }
    } finally {
      clearTimeout(watchdog);
    }
  }

  #receive({ id, name, data }) {
    if (name === "reconnect") {
      this.#movesOn = true;
      return;
    }
    if (id !== null) {
      if (id <= this.#lastId) return;
      this.#lastId = id;
    }
    // What is for every page comes over the stream that it follows.
    const take = { notice: takeNotice, notifications: showServices }[name] ?? ((content) => this.#onMessage(name, content));
    attempt(() => take(JSON.parse(data)));
  }

  #tell(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#onState(state);
  }
}

/** Yield the messages of a stream of bytes, and call `heard` for whatever arrives, comments too. */
async function* messages(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let block = []; // its lines
  let begun = []; // the pieces of a line: a large one comes in hundreds, and each is read once
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    const [first, ...others] = value.split("\n");
    begun.push(first);
    for (const next of others) {
      const line = begun.join("").replace(/\r$/, "");
      begun = [next];
      if (line) {
        block.push(line);
        continue;
      }
      const message = parseBlock(block);
      block = [];
      if (message.data) yield message;
    }
  }
}

function parseBlock(lines) {
  const message = { id: null, name: "message", data: "" };
  for (const line of lines) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "id") message.id = Number(value);
    else if (field === "event") message.name = value;
    else if (field === "data") message.data += message.data ? `\n${value}` : value;
  }
  return message;
}
