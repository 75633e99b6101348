/** What became of a run that was sent to a folder that waits, until it begins. */

import { get, post } from "./api.js";
import { actionButton, el } from "./dom.js";
import { fail, say } from "./toast.js";
import { asNumber, asText } from "./values.js";
import { nameOf } from "./waiting.js";
import { clock } from "./words.js";

const LOOK_MS = 3000;

export class Order {
  #path;
  #isPending = false;
  #isLooking = false;
  #isOrdered = true;
  #drawn = "";

  constructor(id) {
    this.#path = `/api/runs/${encodeURIComponent(id)}`;
    this.element = el("section", { class: "order", "aria-label": "Where it is started", hidden: true });
  }

  /** Look as long as the run has not begun. */
  update(run) {
    this.#isPending = run.status === "pending";
    if (!this.#isPending) this.element.hidden = true;
    else if (!this.#isLooking && this.#isOrdered) this.#follow();
  }

  async #follow() {
    this.#isLooking = true;
    while (this.#isPending && this.#isOrdered) {
      try {
        this.#show((await get(`${this.#path}/order`)).order);
      } catch (error) {
        // The page's own connection tells what is wrong.
        if (error.status === 404) this.#isOrdered = false;
      }
      if (this.#isOrdered) await new Promise((wake) => setTimeout(wake, LOOK_MS));
    }
    this.#isLooking = false;
  }

  #show(order) {
    this.#isOrdered = order !== null;
    const text = JSON.stringify(order);
    if (text === this.#drawn) return;
    this.#drawn = text;
    this.element.hidden = order === null || !this.#isPending;
    if (order === null) return;
    // A folder is to start it: the line would take it away from there.
    this.element.classList.toggle("is-going", order.state === "queued" || order.state === "starting");
    const [sentence, kind] = describe(order);
    const button = (label, what, done) => actionButton(label, {}, () => this.#change(what, done), fail);
    const isQueued = order.state === "queued" || order.state === "expired";
    this.element.replaceChildren(
      el(
        "div",
        { class: `notice ${kind}` },
        el("p", { role: "status" }, sentence),
        (isQueued || order.may_send) &&
          el(
            "div",
            { class: "button-row" },
            order.may_send && button("Send again", "send-again", "It is queued again."),
            isQueued && button("Withdraw", "withdraw", "It is withdrawn."),
          ),
      ),
    );
  }

  async #change(what, done) {
    this.#show((await post(`${this.#path}/${what}`)).order);
    say(done);
  }
}

/** Return what is to be said of an order, and how it looks. */
function describe(order) {
  const where = nameOf({ name: asText(order.folder) || "the folder", machine: asText(order.machine) });
  const gone = order.is_here ? "" : ` ${where} does not wait now.`;
  const code = asNumber(order.exit_code);
  switch (order.state) {
    case "queued":
      if (!order.is_here) return [`Queued for ${where}, which does not wait any more. It is started if the folder waits again within a day.`, "waiting"];
      if (order.ahead) return [`Queued for ${where}: ${order.ahead === 1 ? "one run is" : `${order.ahead} runs are`} before it.`, ""];
      return [`Queued for ${where}: it is next.`, ""];
    case "starting":
      return [`${where} has taken it, and starts it.`, ""];
    case "taken":
      return [`Handed out to ${where} at ${clock(order.taken_at)}, and nothing was heard of it since. Nothing starts it by itself.${gone}`, "waiting"];
    case "failed":
      if (order.began) return [`It began in ${where}, but none of it has come here yet. \`claude-runner sync\` there sends what is left.`, "bad"];
      return [`${where} took it, but it did not begin${code === null ? "" : ` (exit code ${code})`}. ${code === null ? "Nothing starts it by itself." : "The terminal there says why."}${gone}`, "bad"];
    case "refused":
      return [`${where} does not start it: ${asText(order.reason)}.`, "bad"];
    case "withdrawn":
      return ["Withdrawn: no folder starts it.", ""];
    default:
      return [`It was queued for ${where} for more than a day, and is not started any more.`, "waiting"];
  }
}
