/** The page's beginning: which view the address asks for, and what every view has. */

import { pathHere } from "./base.js";
import { showConnection } from "./notices.js";
import { offerNotifications } from "./notifications.js";
import { NotificationsPage } from "./notifications-page.js";
import { RunPage } from "./run-page.js";
import { RunsPage } from "./runs-page.js";

const run = /^\/runs\/([^/]+)\/?$/.exec(pathHere());
const isNotifications = /^\/notifications\/?$/.test(pathHere());
const page = run ? new RunPage(decodeURIComponent(run[1])) : isNotifications ? new NotificationsPage() : new RunsPage();

showConnection("connecting");
document.querySelector("#main").replaceChildren(page.element);
page.open();
offerNotifications();
