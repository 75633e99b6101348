/** Where notifications are set: those of this browser, and the services that the gateway tells. */

import { post } from "./api.js";
import { BASE } from "./base.js";
import { actionButton, el } from "./dom.js";
import { LiveStream } from "./live-stream.js";
import { announce, setTitle, showConnection } from "./notices.js";
import { canNotify, followServices, registerWorker, showNotification } from "./notifications.js";
import { asText } from "./values.js";
import { age } from "./words.js";

const CLOCK_MS = 10_000;
const SETTING = "CLAUDE_RUNNER_GATEWAY_NOTIFY";

/** Return why this browser cannot notify, and what to do; an empty text if it can. */
function hindrance() {
  const isApple = /iPhone|iPad/.test(navigator.userAgent) || (navigator.platform === "MacIntel" && navigator.maxTouchPoints > 1);
  if (!isSecureContext) return "A browser notifies only over https, or on the machine of the gateway itself. Open this page with https, or use a service (below).";
  if (!canNotify() && isApple) return "Safari notifies only for pages on the Home Screen: press Share, then Add to Home Screen, and open this page from there. Or use a service (below).";
  if (!canNotify()) return "This browser has no notifications. Use another one, or a service (below).";
  if (Notification.permission === "denied") return "Notifications of this page are blocked. Allow them in the browser’s settings for this site, then reload the page.";
  return "";
}

export class NotificationsPage {
  #worker = null;
  #browser = el("div", { class: "stack", role: "status" });
  #services = el("div", { class: "stack" });
  #problem = el("p", { class: "notice bad", role: "alert", hidden: true });
  #state = null;

  constructor() {
    this.element = el(
      "div",
      { class: "runs-page notifications" },
      el("a", { class: "back", href: `${BASE}/` }, "All runs"),
      el("div", { class: "page-head" }, el("h1", {}, "Notifications")),
      el("p", {}, "You are told when a run needs you, when it ends, and when its runner falls silent; not while you look at it."),
      el("section", { class: "card", "aria-labelledby": "browser-title" }, el("h2", { id: "browser-title" }, "In this browser"), this.#browser),
      el("section", { class: "card", "aria-labelledby": "services-title" }, el("h2", { id: "services-title" }, "With the page closed"), this.#services, this.#problem),
    );
  }

  /** Show what is possible here, and follow the services. */
  async open() {
    setTitle("Notifications");
    followServices((state) => {
      this.#state = state;
      this.#drawServices();
    });
    this.#drawBrowser();
    this.#prepare();
    setInterval(() => this.#drawServices(), CLOCK_MS);
    await new LiveStream("/api/stream", { onMessage: () => {}, onState: showConnection }).run();
  }

  async #prepare() {
    if (hindrance() || Notification.permission !== "granted") return;
    this.#worker = await registerWorker();
    this.#drawBrowser();
  }

  #drawBrowser() {
    const why = hindrance();
    if (why) this.#browser.replaceChildren(el("p", { class: "notice waiting" }, why));
    else if (Notification.permission === "granted") this.#drawGranted();
    else this.#browser.replaceChildren(el("p", {}, "For as long as a page of this gateway is open, also behind other windows."), el("div", { class: "button-row" }, actionButton("Notify me", { class: "primary" }, () => this.#ask(), announce)));
  }

  async #ask() {
    await Notification.requestPermission();
    this.#drawBrowser();
    await this.#prepare();
  }

  #drawGranted() {
    const hints = {
      none: "On a desktop only: this browser lets no page notify on a phone.",
      certificate: "On a desktop only: on Android a browser notifies only if it trusts the gateway’s certificate, and does not trust this one. For a phone, use a service (below), or a proxy with a trusted certificate (--public-url).",
    };
    this.#browser.replaceChildren(
      el("p", { class: "notice good" }, "On, for as long as a page of this gateway is open, also behind other windows."),
      this.#worker ? el("p", { class: "hint" }, hints[this.#worker]) : "",
      el("div", { class: "button-row" }, actionButton("Show one now", {}, () => this.#showOne(), announce)),
    );
  }

  async #showOne() {
    const done = await showNotification("claude-runner: a test", "Notifications of this browser look like this one.", "test", `${BASE}/notifications`);
    announce(done ? "A notification was shown." : "The browser showed none.");
    if (!done) this.#browser.append(el("p", { class: "notice bad" }, "The browser showed none. On a phone, use a service (below)."));
  }

  #drawServices() {
    if (!this.#state) return;
    const { services, quiet_hours } = this.#state;
    if (!services.length) return this.#services.replaceChildren(...noService());
    const rows = services.map((service) => el("li", {}, el("strong", {}, asText(service.name)), " ", el("span", { class: service.problem || service.test?.state === "failed" ? "bad" : "" }, describe(service))));
    // The button that was pressed keeps the focus.
    const button = this.#services.querySelector("button") ?? actionButton("Send a test", { class: "primary" }, () => this.#test(), (sentence) => this.#fail(sentence));
    const list = el("ul", { class: "services", "aria-live": "polite" }, rows);
    const quiet = el("p", { class: "hint" }, quiet_hours ? `Quiet from ${quiet_hours.replace("-", " to ")}, in the gateway’s time.` : "No quiet hours are set.");
    if (this.#services.contains(button)) {
      this.#services.querySelector(".services").replaceChildren(...rows);
      return;
    }
    this.#services.replaceChildren(el("p", {}, "The gateway sends a message to:"), list, quiet, el("div", { class: "button-row" }, button));
  }

  async #test() {
    this.#problem.hidden = true;
    await post("/api/notifications/test");
  }

  #fail(sentence) {
    this.#problem.textContent = sentence;
    this.#problem.hidden = false;
  }
}

function noService() {
  return [
    el("p", {}, "A phone in a pocket is reached by a service, such as ntfy, Telegram, Pushover, Slack or e-mail. None is set."),
    el("p", {}, "Write a line like this one into ", el("code", {}, ".env"), ", with a topic that nobody guesses, and start the gateway again:"),
    el("code", { class: "line", tabindex: "0" }, `${SETTING}=ntfys://ntfy.example.org/your-topic`),
  ];
}

function describe({ problem, sent_at, waiting, test }) {
  if (test?.state === "sending") return "a test is on its way…";
  const tested = test && { sent: `the test was sent, ${age(test.at)}`, failed: `the test failed: ${asText(test.problem)}` }[test.state];
  const queued = waiting > 0 && `${waiting} ${waiting === 1 ? "message waits" : "messages wait"}`;
  const sent = !test && (sent_at ? `last message ${age(sent_at)}` : "no message yet");
  return [problem && test?.state !== "failed" && asText(problem), tested, sent, queued].filter(Boolean).join(" · ");
}
