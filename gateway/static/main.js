/** The page's beginning: which view the address asks for, and what every view has. */

import { pathHere } from "./base.js";
import { offerNotifications, showConnection } from "./notices.js";
import { RunPage } from "./run-page.js";
import { RunsPage } from "./runs-page.js";

const run = /^\/runs\/([^/]+)\/?$/.exec(pathHere());
const page = run ? new RunPage(decodeURIComponent(run[1])) : new RunsPage();

showConnection("connecting");
offerNotifications();
document.querySelector("#main").replaceChildren(page.element);
page.open();
