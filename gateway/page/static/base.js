/** Where this page is: a gateway may be below a path of another server. */

/** That path, without a slash at its end; empty for a gateway with an address of its own. */
export const BASE = new URL(import.meta.url).pathname.replace(/\/static\/(?:v-\w+\/)?[^/]*$/, "");

/** Return the page's path below it. */
export function pathHere() {
  const path = location.pathname;
  return path.startsWith(`${BASE}/`) ? path.slice(BASE.length) : path;
}
