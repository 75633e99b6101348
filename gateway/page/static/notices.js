/** What reaches a person who is looking elsewhere: the title, and a screen reader. */

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

/**
 * Set the page's title, with a mark in front that is seen among many tabs. The icon gets one too if
 * the run `isAsking`, or the number of those that need somebody.
 */
export function setTitle(text, mark = "", isAsking = false, count = 0) {
  const icon = document.querySelector("link[rel=icon]");
  const address = `${BASE}/static/icon${count ? `-${Math.min(count, 10)}` : isAsking ? "-asks" : ""}.svg`;
  if (icon.getAttribute("href") !== address) icon.setAttribute("href", address);
  document.title = `${mark && `${mark} `}${text} · claude-runner`;
}

/** Show how many runs need somebody on the page's icon, where it is installed as an app. */
export function showCount(count) {
  const shown = count ? navigator.setAppBadge?.(count) : navigator.clearAppBadge?.();
  shown?.catch(() => {}); // not installed, or not allowed
}
