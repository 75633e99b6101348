/** Calls to the gateway. Each failure is one plain sentence that can be shown as it is. */

import { BASE } from "./base.js";
import { goToLogin, pageKey } from "./page-key.js";

const UNREACHABLE = "The gateway cannot be reached. Check that it is running, then try again.";
const NOT_SENT = "Not sent: the gateway cannot be reached. Try again when it is back.";

/** A call that failed; `status` is 0 if there was no answer. */
export class ApiError extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

/** Return what to say of a failure after which the page tries again. */
export const retrying = ({ message, status }) => `${status ? message : "The gateway cannot be reached."} This page tries again by itself.`;

/** Fetch, and go to the login page if the session is over. Raises: ApiError. */
export async function request(path, options = {}) {
  let response;
  try {
    const headers = { ...options.headers, "X-Page-Key": pageKey() };
    response = await fetch(BASE + path, { credentials: "same-origin", cache: "no-store", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(options.method === "POST" ? NOT_SENT : UNREACHABLE, 0);
  }
  if (response.status === 401) goToLogin(pageKey() ? "over" : "storage");
  if (!response.ok) throw new ApiError(await sentenceOf(response), response.status);
  return response;
}

/** Return the JSON that is at a path. */
export async function get(path) {
  return (await request(path)).json();
}

/** Send JSON, and return the JSON of the answer. */
export async function post(path, body = {}) {
  const headers = { "Content-Type": "application/json" };
  return (await request(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

async function sentenceOf(response) {
  try {
    const { error, message } = await response.json();
    return String(message ?? error);
  } catch {
    return `The gateway answered ${response.status}. If it stays, look at its log.`;
  }
}
