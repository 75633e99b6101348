/** What reaches a person who is looking elsewhere: the title, a screen reader, a notification. */

import { BASE } from "./base.js";
import { setText } from "./dom.js";

const CONNECTION_WORDS = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  offline: "Offline",
  gone: "Gone",
};

/** Say a sentence to screen readers. */
export function announce(sentence) {
  const announcer = document.querySelector("#announcer");
  // The same sentence again is no change, and would not be read again.
  announcer.textContent = announcer.textContent === sentence ? `${sentence}\u00a0` : sentence;
}

/** Show whether the page is connected. */
export function showConnection(state) {
  const place = document.querySelector("#connection");
  place.dataset.state = state;
  setText(place, CONNECTION_WORDS[state]);
}

/** Set the page's title, with a mark in front that is seen among many tabs; the icon too if it asks. */
export function setTitle(text, mark = "", isAsking = false) {
  const icon = document.querySelector("link[rel=icon]");
  const address = `${BASE}/static/icon${isAsking ? "-asks" : ""}.svg`;
  if (icon.getAttribute("href") !== address) icon.setAttribute("href", address);
  document.title = `${mark && `${mark} `}${text} · claude-runner`;
}

/** Show the button that asks for notifications, where there is something to ask. */
export function offerNotifications() {
  const button = document.querySelector("#notify");
  if (!("Notification" in window)) return;
  button.hidden = Notification.permission !== "default";
  button.addEventListener("click", async () => {
    const answer = await Notification.requestPermission();
    button.hidden = answer !== "default";
    announce(answer === "granted" ? "You will be notified." : "Notifications stay off.");
  });
}

/** Notify, if it is allowed and nobody looks at the page. `tag` lets a newer one take its place. */
export function notify(sentence, body, tag) {
  announce(sentence);
  if (document.visibilityState === "visible" && document.hasFocus()) return;
  if (!("Notification" in window) || Notification.permission !== "granted") return;
  try {
    const notification = new Notification(sentence, { body, tag, icon: `${BASE}/static/icon.svg` });
    notification.addEventListener("click", () => {
      window.focus();
      notification.close();
    });
  } catch {
    // Android's browsers allow them to service workers only; the title still tells.
  }
}
