/** Right after the login: keep the page's half of it, and go on. */

import { keepPageKey } from "./page-key.js";

const { key, following } = document.documentElement.dataset;
keepPageKey(key);
location.replace(following);
