/** Tells the gateway that a page of a run is visible: nobody is notified of what they look at. */

import { request } from "./api.js";

// The gateway forgets a page that says nothing for 15 s, such as one on a phone that sleeps.
const PERIOD_MS = 5_000;

export class Looks {
  #path;
  #page = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  #isLive = false;

  /** `path` is that of the run in the API. */
  constructor(path) {
    this.#path = `${path}/looks`;
    document.addEventListener("visibilitychange", () => this.#tell());
    addEventListener("pagehide", () => this.#tell(false));
    setInterval(() => document.visibilityState === "visible" && this.#tell(), PERIOD_MS);
  }

  /** Take note whether the page is connected; only then does it show what happens. */
  set isLive(isLive) {
    this.#isLive = isLive;
    this.#tell();
  }

  async #tell(visible = document.visibilityState === "visible") {
    if (!this.#isLive) return;
    const body = JSON.stringify({ page: this.#page, visible });
    try {
      await request(this.#path, { method: "POST", keepalive: true, headers: { "Content-Type": "application/json" }, body });
    } catch {
      // the next one comes soon
    }
  }
}
