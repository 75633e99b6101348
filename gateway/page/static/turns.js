/**
 * Long work in turns, so that the page answers in between. What a run prints decides how long the work
 * is, so there is no output for which it may be done in one go.
 */

/** How long a turn may last. */
export const TURN_MS = 12;
const LONG_TURN_MS = 100;
const LONGEST_PAUSE_MS = 1000;
const WITHOUT_FRAME_MS = 250;

const channel = new MessageChannel();
const waiting = [];
channel.port1.onmessage = () => waiting.shift()();

/** Let the page do something else. After a turn that was long nevertheless, for as long as it took. */
export function pauseAfter(tookMs) {
  return new Promise((resolve) => {
    if (tookMs > LONG_TURN_MS) {
      setTimeout(resolve, Math.min(tookMs, LONGEST_PAUSE_MS));
    } else {
      // Not a timer: those of a page that nobody looks at come once a second.
      waiting.push(resolve);
      channel.port2.postMessage(null);
    }
  });
}

/** Wait for the next frame; a page that nobody sees has none. */
export function nextFrame() {
  return new Promise((resolve) => {
    requestAnimationFrame(resolve);
    setTimeout(resolve, WITHOUT_FRAME_MS);
  });
}

/** Yield the pieces of a text, and cut no character in two. */
export function* pieces(text, size) {
  for (let start = 0, end; start < text.length; start = end) {
    end = start + size;
    const last = text.charCodeAt(end - 1);
    if (last >= 0xd800 && last <= 0xdbff) end += 1;
    yield text.slice(start, end);
  }
}

/** Do something for one event or one part, and return what it returns; if it fails, the others go on. */
export function attempt(task) {
  try {
    return task();
  } catch (error) {
    console.error(error);
    return undefined;
  }
}
