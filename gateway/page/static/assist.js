/** The link for helping at the run's keyboard. Its text comes from a run, so it is looked at closely. */

import { copyButton } from "./copy.js";
import { el } from "./dom.js";
import { asText } from "./values.js";

const SSH = /^ssh(?: -p ?(\d{1,5}))? ([A-Za-z0-9][\w.-]*)@([A-Za-z0-9][A-Za-z0-9.-]*)$/;

export class Assist {
  #shown = null;

  constructor() {
    this.element = el("section", { class: "card", "aria-labelledby": "assist-title", hidden: true });
  }

  /** Show the link that a run has, or nothing. */
  update(run) {
    const text = run.status === "running" || run.status === "pending" ? asText(run.assist_url) || null : null;
    if (text === this.#shown) return;
    this.#shown = text;
    this.element.hidden = text === null;
    if (text === null) return;
    const address = safeAddress(text);
    this.element.replaceChildren(
      el("h2", { id: "assist-title" }, "Help at the keyboard"),
      el("p", { class: "hint" }, "Whoever has this can type on that machine. Paste it into a terminal, or open it."),
      el("code", { class: "line" }, text),
      el(
        "div",
        { class: "button-row" },
        copyButton(() => text),
        address && el("a", { class: "button", href: address, rel: "noreferrer noopener", target: address.startsWith("http") && "_blank" }, "Open"),
      ),
    );
  }
}

/** Return an address that can be opened and does nothing but connect, or null. */
function safeAddress(text) {
  const ssh = SSH.exec(text);
  if (ssh) {
    const [, port, user, host] = ssh;
    return `ssh://${user}@${host}${port ? `:${port}` : ""}`;
  }
  if (!URL.canParse(text)) return null;
  const { protocol, href } = new URL(text);
  return protocol === "https:" || protocol === "http:" ? href : null;
}
