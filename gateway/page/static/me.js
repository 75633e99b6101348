/**
 * Who is signed in. What the role does not allow is hidden by people.css; the gateway refuses it in
 * any case. The holder of the admin token has no name, and sees nothing of this.
 */

import { get, post } from "./api.js";
import { actionButton, el } from "./dom.js";
import { goToLogin } from "./page-key.js";
import { fail } from "./toast.js";

const MAY = {
  viewer: "You see runs, and cannot act on them.",
  operator: "You see runs and act on them. To delete some, ask an admin.",
  admin: "You may do everything here.",
};

/** Say it in the bar, and on the page what the role does not allow. */
export async function showMe() {
  const me = await get("/api/me").catch(() => null); // a page without it works too
  if (!me?.name) return;
  document.documentElement.dataset.role = me.role;
  const place = document.querySelector("#who");
  const sees = me.own ? "You see your own runs alone." : me.folders.length ? `You see your own runs, and those in ${me.folders.join(", ")}.` : "";
  const everywhere = actionButton("Sign out everywhere", {}, async () => {
    await post("/api/me/sign-out");
    goToLogin("out");
  }, fail);
  const isProxied = me.signed_in === "proxy";
  place.replaceChildren(
    el("summary", { "aria-label": `Signed in as ${me.name}, ${me.role}` }, me.name),
    el(
      "div",
      { class: "who-told" },
      el("p", {}, el("strong", {}, me.name), `, ${me.role}`),
      [MAY[me.role], sees, isProxied && "A proxy in front has signed you in; sign out there."].filter(Boolean).map((each) => el("p", { class: "hint" }, each)),
      !isProxied && everywhere,
    ),
  );
  const logOut = document.querySelector(".bar form");
  if (isProxied) logOut.hidden = true;
  else place.lastElementChild.append(logOut);
  place.hidden = false;
}
