/**
 * What Android's browsers show notifications with. It keeps nothing: there is no cache, and no
 * request goes through it.
 */

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(show(event.notification.data?.address));
});

/** Bring the page of an address to the front, or open it. */
async function show(address) {
  const target = new URL(address ?? "./", registration.scope);
  if (target.origin !== location.origin) return;
  const windows = await clients.matchAll({ type: "window", includeUncontrolled: true });
  const open = windows.find((each) => new URL(each.url).pathname === target.pathname);
  if (open) await open.focus();
  else await clients.openWindow(target.href);
}
