/** The page's beginning: which view the address asks for, and what every view has. */

import { pathHere } from "./base.js";
import { forgetDrafts } from "./drafts.js";
import { showMe } from "./me.js";
import { showConnection } from "./notices.js";
import { offerNotifications } from "./notifications.js";

showConnection("connecting");
document.querySelector("form[action$='/logout']").addEventListener("submit", forgetDrafts);
const page = await makePage();
document.querySelector("#main").replaceChildren(page.element);
page.open();
showMe();
offerNotifications();

/** Make the view, of which alone the scripts are loaded: gateway/page/scripts.py names them too. */
async function makePage() {
  const run = /^\/runs\/([^/]+)\/?$/.exec(pathHere());
  if (run) {
    const { RunPage } = await import("./run-page.js");
    return new RunPage(decodeURIComponent(run[1]));
  }
  if (/^\/notifications\/?$/.test(pathHere())) {
    const { NotificationsPage } = await import("./notifications-page.js");
    return new NotificationsPage();
  }
  const { RunsPage } = await import("./runs-page.js");
  return new RunsPage();
}
