// A button for what cannot be undone: the first press asks, the second acts.

import { h } from "./element.js";

/** How long the question stands. */
const ASKED_MS = 4000;

/** `isNeeded`: whether there is anything to ask about. */
export function sureButton({ label, question, name, act, isNeeded = () => true }) {
  let timer = null;
  const button = h("button", { type: "button", class: "quiet", "aria-label": name, onclick: () => (timer || !isNeeded() ? sure() : ask()), onblur: () => calm() }, label);
  function ask() {
    button.textContent = question;
    button.setAttribute("aria-label", question);
    button.classList.add("danger");
    timer = setTimeout(calm, ASKED_MS);
  }
  function calm() {
    clearTimeout(timer);
    timer = null;
    button.textContent = label;
    if (name) button.setAttribute("aria-label", name);
    else button.removeAttribute("aria-label");
    button.classList.remove("danger");
  }
  async function sure() {
    calm();
    button.disabled = true;
    await act();
    button.disabled = false;
  }
  return button;
}
