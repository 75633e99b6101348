/** The page's beginning: which view the address asks for, and what every view has. */

import { request } from "./api.js";
import { announce, offerNotifications, showConnection } from "./notices.js";
import { keepPageKey } from "./page-key.js";
import { RunPage } from "./run-page.js";
import { RunsPage } from "./runs-page.js";

const run = /^\/runs\/([^/]+)\/?$/.exec(location.pathname);
const page = run ? new RunPage(decodeURIComponent(run[1])) : new RunsPage();

showConnection("connecting");
offerNotifications();
document.querySelector("#log-out").addEventListener("click", logOut);
document.querySelector("#main").replaceChildren(page.element);
page.open();

async function logOut() {
  try {
    await request("/logout", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" });
  } catch (error) {
    return announce(error.message);
  }
  keepPageKey("");
  location.assign("/login");
}
