/**
 * The page's half of the login. The cookie alone opens nothing: browsers send it to every port of a
 * host, and what is kept here stays with this origin.
 */

import { BASE, pathHere } from "./base.js";

// Gateways at one origin, each below a path of its own, keep one each.
const NAME = `page-key${BASE}`;

/** Return it; empty if this browser has none. */
export function pageKey() {
  try {
    return localStorage.getItem(NAME) ?? "";
  } catch {
    return ""; // storage may be forbidden
  }
}

/** Keep it. Where that is forbidden the next page finds none, and says so at the login. */
export function keepPageKey(key) {
  try {
    localStorage.setItem(NAME, key);
  } catch {
    // as above
  }
}

/** Log in, and come back here. `why` names a sentence of the login page. */
export function goToLogin(why) {
  location.replace(`${BASE}/login?next=${encodeURIComponent(pathHere() + location.search + location.hash)}&why=${why}`);
}
