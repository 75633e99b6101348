/**
 * Buttons that act on their second press: no dialog stands before an emergency, and a slip of the thumb
 * ends nothing.
 */

import { actionButton } from "./dom.js";
import { say } from "./toast.js";

const ARMED_MS = 3000;

/**
 * Return such a button, and what takes its question back. While it asks it says `asked`, and `question`
 * is told. `room` is the element whose width stays, so that the button is where it was pressed. If
 * `isNeeded` says no, one press is enough.
 */
export function secondPress(label, attributes, { asked, question, room, isNeeded = () => true }, action, onFailure) {
  let disarm = () => {};
  let isArmed = false;
  const button = actionButton(label, attributes, async () => {
    const isMeant = isArmed || !isNeeded();
    disarm();
    if (isMeant) return action();
    isArmed = true;
    const kept = room ?? button;
    kept.style.minWidth = `${kept.offsetWidth}px`;
    button.classList.add("armed");
    button.textContent = asked;
    say(question, false, ARMED_MS);
    const timer = setTimeout(() => disarm(), ARMED_MS);
    disarm = () => {
      clearTimeout(timer);
      isArmed = false;
      button.classList.remove("armed");
      button.textContent = label;
      kept.style.minWidth = "";
      disarm = () => {};
    };
  }, onFailure);
  return [button, () => disarm()];
}
