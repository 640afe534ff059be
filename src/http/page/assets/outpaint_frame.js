// The frame around the picture that is painted on: its edges are dragged outwards to extend the picture.

import { h, uniqueId } from "./element.js";
import { words } from "./words.js";

const SIDES = ["left", "right", "top", "bottom"];
const STEP = 8;
const MOST = 512;

export class OutpaintFrame extends EventTarget {
  /** `scale` answers how many pixels of the screen one pixel of the picture has; `pixels` are those that it begins with. */
  constructor(scale, pixels = {}) {
    super();
    this.scale = scale;
    this.pixels = Object.fromEntries(SIDES.map((side) => [side, pixels[side] ?? 0]));
    this.edges = SIDES.map((side) => h("span", {
      class: `edge ${side}`, "aria-hidden": "true",
      onpointerdown: (event) => this.grab(event, side), onpointermove: (event) => this.drag(event), onpointerup: () => this.release(), onpointercancel: () => this.release(),
    }));
    this.inputs = Object.fromEntries(SIDES.map((side) => [side, h("input", {
      id: uniqueId(side), type: "number", class: "number", min: 0, max: MOST, step: STEP, value: this.pixels[side], onchange: (event) => this.set(side, event.target.valueAsNumber),
    })]));
    this.node = h("fieldset", { class: "outpaint" }, h("legend", {}, words.outpaint), h("p", { class: "help" }, words.outpaintHelp),
      SIDES.map((side) => h("div", { class: "field inline" }, h("label", { for: this.inputs[side].id }, words.sides[side]), this.inputs[side])));
  }

  grab(event, side) {
    const isAcross = side === "left" || side === "right";
    const sign = side === "left" || side === "top" ? -1 : 1;
    this.grabbed = { side, sign, isAcross, from: isAcross ? event.clientX : event.clientY, pixels: this.pixels[side], scale: this.scale() };
    event.target.setPointerCapture(event.pointerId);
    event.stopPropagation();
  }

  drag(event) {
    if (!this.grabbed) return;
    const { side, sign, isAcross, from, pixels, scale } = this.grabbed;
    this.set(side, pixels + (sign * ((isAcross ? event.clientX : event.clientY) - from)) / scale);
  }

  release() {
    this.grabbed = null;
  }

  set(side, pixels) {
    const whole = Math.round((Number.isFinite(pixels) ? pixels : 0) / STEP) * STEP;
    this.pixels[side] = Math.min(MOST, Math.max(0, whole));
    this.inputs[side].value = this.pixels[side];
    this.dispatchEvent(new Event("change"));
  }

  /** The field of the request; undefined if no side is extended. */
  get() {
    const given = SIDES.filter((side) => this.pixels[side] > 0);
    return given.length ? Object.fromEntries(given.map((side) => [side, this.pixels[side]])) : undefined;
  }
}
