/** Save a file of a run on the reader's disk. */

import { post } from "./api.js";
import { el } from "./dom.js";

/** A download is the browser's own request, without the page's header: its address is made for it. */
export async function download(artifact, address) {
  const made = await post(`${address}/link`);
  el("a", { href: made.address, download: artifact.name }).click();
}
