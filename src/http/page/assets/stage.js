// The large picture of the viewer: fitted, zoomed, moved, and compared with another one.

import { h } from "./element.js";
import { makeSlider, slide } from "./slider.js";
import { words } from "./words.js";

const MOST = 8;

export class Stage {
  constructor() {
    this.image = h("img", { class: "large", draggable: false });
    this.other = h("img", { class: "large other", draggable: false, hidden: true });
    this.divider = h("span", { class: "divider", hidden: true });
    this.slider = makeSlider({ min: 0, max: 100, value: 50, class: "compare-slider", "aria-label": words.compareSlider, hidden: true, oninput: () => this.split() });
    this.sheet = h("div", { class: "stage-sheet" }, this.image, this.other, this.divider);
    this.node = h("div", {
      class: "stage",
      onwheel: (event) => this.wheel(event), ondblclick: () => this.zoomTo(this.scale === 1 ? 2 : 1),
      onpointerdown: (event) => this.grab(event), onpointermove: (event) => this.move(event),
      onpointerup: () => this.release(), onpointercancel: () => this.release(),
    }, this.sheet, this.slider);
    this.reset();
  }

  show(url, prompt) {
    this.image.src = url;
    this.image.alt = prompt;
    if (!this.isComparing) this.reset();
  }

  /** Lays a second picture over the right part of the first. */
  compare(url, prompt) {
    this.isComparing = Boolean(url);
    if (url) {
      this.other.src = url;
      this.other.alt = prompt;
    }
    for (const part of [this.other, this.divider, this.slider]) part.hidden = !url;
    this.split();
  }

  split() {
    this.sheet.style.setProperty("--split", `${this.slider.value}%`);
  }

  reset() {
    Object.assign(this, { scale: 1, x: 0, y: 0 });
    this.place();
  }

  place() {
    this.sheet.style.setProperty("transform", `translate(${this.x}px, ${this.y}px) scale(${this.scale})`);
    this.node.classList.toggle("zoomed", this.scale > 1);
  }

  /** Zooms so that the point at (x, y), from the middle, stays where it is. */
  zoomTo(scale, x = 0, y = 0) {
    const next = Math.min(MOST, Math.max(1, scale));
    const factor = next / this.scale;
    this.x = next === 1 ? 0 : x - (x - this.x) * factor;
    this.y = next === 1 ? 0 : y - (y - this.y) * factor;
    this.scale = next;
    this.place();
  }

  wheel(event) {
    event.preventDefault();
    const box = this.node.getBoundingClientRect();
    this.zoomTo(this.scale * Math.exp(-event.deltaY / 400), event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2);
  }

  grab(event) {
    if (event.target === this.slider || event.button !== 0) return;
    this.grabbed = { x: event.clientX - this.x, y: event.clientY - this.y, started: event.clientX };
    this.node.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (!this.grabbed) return;
    if (this.isComparing && this.scale === 1) {
      const box = this.image.getBoundingClientRect();
      slide(this.slider, (100 * (event.clientX - box.left)) / box.width);
      return this.split();
    }
    if (this.scale === 1) return;
    this.x = event.clientX - this.grabbed.x;
    this.y = event.clientY - this.grabbed.y;
    this.place();
  }

  release() {
    this.grabbed = null;
  }
}
