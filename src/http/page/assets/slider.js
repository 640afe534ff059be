// A slider whose track is filled up to its thumb, in every browser.

import { h } from "./element.js";

export function makeSlider(properties) {
  const slider = h("input", { type: "range", ...properties });
  slider.addEventListener("input", () => fill(slider));
  keepWhileScrolling(slider);
  fill(slider);
  return slider;
}

/** Moves the thumb. */
export function slide(slider, value) {
  slider.value = value;
  fill(slider);
}

function fill(slider) {
  const min = Number(slider.min || 0);
  const max = Number(slider.max || 100);
  slider.style.setProperty("--filled", `${(100 * (slider.value - min)) / (max - min)}%`);
}

/** A finger that scrolls the page may begin on a slider: the browser moves the thumb first, and then takes the finger. */
function keepWhileScrolling(slider) {
  let before = null;
  slider.addEventListener("pointerdown", (event) => {
    before = event.pointerType === "touch" ? slider.value : null;
  });
  slider.addEventListener("pointercancel", () => {
    if (before === null || slider.value === before) return;
    slider.value = before;
    for (const event of ["input", "change"]) slider.dispatchEvent(new Event(event));
  });
}
