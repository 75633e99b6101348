/** Waits between attempts to reach the gateway: longer after each failure, none once it may work. */

const FIRST_MS = 250;
const LONGEST_MS = 10_000;

export class Waits {
  /** How many attempts have failed in a row. */
  failures = 0;
  #end = () => {};

  constructor() {
    const now = () => document.visibilityState === "visible" && this.end();
    addEventListener("online", now);
    document.addEventListener("visibilitychange", now);
    addEventListener("pageshow", now);
  }

  /** Wait after a failure, until it is time for the next attempt. */
  afterFailure() {
    this.failures += 1;
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.min(LONGEST_MS, FIRST_MS * 2 ** this.failures));
      this.#end = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** End the wait: somebody asks for the attempt. */
  end() {
    this.#end();
  }
}
