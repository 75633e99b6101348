/**
 * Notifications of this browser, while a page is open and not looked at; and whether the services that
 * reach a closed page work. The gateway sends both to every page, over the stream that it follows.
 */

import { get } from "./api.js";
import { BASE, pathHere } from "./base.js";
import { el } from "./dom.js";
import { announce } from "./notices.js";

const PAGE = "/notifications";
const SCOPE = `${BASE}/`;

let lastNumber = 0;
let onServices = () => {};

/** Return what goes into the address of a stream, so that a notice that was missed comes again. */
export const noticedSoFar = () => (lastNumber ? `&noticed=${lastNumber}` : "");

/** Let the button lead to where notifications are set, and show what is wrong with the services. */
export async function offerNotifications() {
  const button = document.querySelector("#notify");
  button.hidden = pathHere() === PAGE;
  button.addEventListener("click", async () => {
    if (canNotify() && Notification.permission === "default") await Notification.requestPermission();
    location.assign(`${BASE}${PAGE}`);
  });
  try {
    const state = await get("/api/notifications");
    lastNumber = Math.max(lastNumber, state.last_notice);
    showServices(state);
  } catch {
    // the page's own view says that the gateway cannot be reached
  }
}

/** Whether this browser has notifications at all. */
export const canNotify = () => "Notification" in window;

/** Call `listener` with the state of the services whenever it changes. */
export function followServices(listener) {
  onServices = listener;
}

/** Show the state of the services: on every page that one does not work. */
export function showServices(state) {
  const failing = state.services.filter(({ problem }) => problem);
  const place = document.querySelector("#notify-problem");
  const sentence = failing.map(({ name, problem }) => `${name}: ${problem}`).join("; ");
  const told = el("p", { class: "notice bad" }, `Notifications do not arrive. ${sentence}. `, el("a", { href: `${BASE}${PAGE}` }, "Notifications"));
  place.replaceChildren(failing.length && pathHere() !== PAGE ? told : "");
  onServices(state);
}

/** Notify of a run that needs somebody, has ended or fell silent, if nobody looks at this page. */
export async function takeNotice({ number, run_id, title, text }) {
  if (number <= lastNumber) return;
  lastNumber = number;
  const path = `/runs/${encodeURIComponent(run_id)}`;
  if (document.visibilityState === "visible" && document.hasFocus()) {
    // A run's own page says it in its own words.
    if (pathHere() !== path) announce(title);
    return;
  }
  // Every page of this browser gets the notice; with the same tag they show it once.
  await showNotification(title, text, `${run_id}-${number}`, `${BASE}${path}`);
}

/** Show a notification that leads to an address; return whether it was possible. */
export async function showNotification(title, body, tag, address) {
  if (!canNotify() || Notification.permission !== "granted") return false;
  const options = { body, tag, icon: `${BASE}/static/icon-192.png`, data: { address } };
  try {
    const registration = await navigator.serviceWorker?.getRegistration(SCOPE);
    if (registration?.active) await registration.showNotification(title, options);
    else showByThisPage(title, options);
    return true;
  } catch {
    return false; // Android's browsers allow notifications to a service worker alone
  }
}

function showByThisPage(title, options) {
  const notification = new Notification(title, options);
  notification.addEventListener("click", () => {
    notification.close();
    window.focus();
    // What is typed into another run's page stays.
    if (pathHere() === "/") location.assign(options.data.address);
    else if (location.pathname !== options.data.address) open(options.data.address, "_blank");
  });
}

/**
 * Let the service worker be there; return an empty text, or why it cannot be: "none" or "certificate".
 * Only the page of the notifications may do it, by its policy: scripts come from addresses.
 */
export async function registerWorker() {
  if (!("serviceWorker" in navigator)) return "none";
  const address = `${BASE}/static/service-worker.js`;
  const trusted = window.trustedTypes?.createPolicy("service-worker", { createScriptURL: () => address }).createScriptURL("") ?? address;
  try {
    await navigator.serviceWorker.register(trusted, { scope: SCOPE });
    return "";
  } catch {
    return "certificate";
  }
}
