// Width and height, with the usual shapes at hand.

import { h, uniqueId } from "./element.js";
import { icon } from "./icons.js";
import { words } from "./words.js";

const SHAPES = [[1, 1], [3, 2], [2, 3], [16, 9], [9, 16]];

export class SizeField extends EventTarget {
  /** `schemas` are those of width and height; `grid` is the model's. */
  constructor(schemas, grid) {
    super();
    this.schemas = schemas;
    this.grid = grid;
    this.most = Number(schemas.width.description?.match(/at most (\d+)/)?.[1] ?? 786432);
    const id = uniqueId("size");
    const side = (name) => h("input", {
      type: "number", class: "number", id: `${id}-${name}`, name, min: schemas[name].minimum, step: grid, inputMode: "numeric",
      onchange: () => this.settle(name),
    });
    this.width = side("width");
    this.height = side("height");
    this.shapes = h("div", { class: "shapes", role: "group", "aria-label": words.aspects }, SHAPES.map(([x, y]) => {
      const shape = h("span", { class: "shape", "aria-hidden": "true" });
      shape.style.setProperty("--ratio", `${x} / ${y}`);
      shape.style.setProperty(x >= y ? "inline-size" : "block-size", "0.9rem");
      return h("button", { type: "button", class: "chip", "aria-pressed": "false", onclick: () => this.shape(x, y) }, shape, `${x}:${y}`);
    }));
    const swap = h("button", { type: "button", class: "icon", title: words.swap, "aria-label": words.swap, onclick: () => this.set({ width: this.value.height, height: this.value.width }) }, icon("swap"));
    this.node = h("div", { class: "field size", role: "group", "aria-label": words.size },
      this.shapes,
      h("div", { class: "sides" },
        h("label", { for: `${id}-width` }, words.width), this.width, swap,
        this.height, h("label", { for: `${id}-height` }, words.height)));
    this.set({});
  }

  get value() {
    return { width: this.width.valueAsNumber, height: this.height.valueAsNumber };
  }

  /** Only what is not the default. */
  get() {
    const { width, height } = this.value;
    const { width: w, height: h } = this.schemas;
    return { ...(width !== w.default && { width }), ...(height !== h.default && { height }) };
  }

  set({ width, height }) {
    this.width.value = this.fit(width ?? this.schemas.width.default);
    this.height.value = this.fit(height ?? this.schemas.height.default);
    this.settle("width");
  }

  /** A side on the grid, within the limits of one side. */
  fit(side) {
    const { minimum } = this.schemas.width;
    const whole = Math.round((Number.isFinite(side) ? side : this.schemas.width.default) / this.grid) * this.grid;
    return Math.min(Math.floor(this.most / minimum / this.grid) * this.grid, Math.max(minimum, whole));
  }

  /** Brings the sides within the limits; the other side gives way. */
  settle(changed) {
    const [one, other] = changed === "width" ? [this.width, this.height] : [this.height, this.width];
    one.value = this.fit(one.valueAsNumber);
    const room = Math.floor(this.most / one.valueAsNumber / this.grid) * this.grid;
    other.value = Math.min(this.fit(other.valueAsNumber), room);
    const ratio = this.width.valueAsNumber / this.height.valueAsNumber;
    [...this.shapes.children].forEach((chip, index) => {
      const [x, y] = SHAPES[index];
      chip.setAttribute("aria-pressed", String(Math.abs(ratio / (x / y) - 1) < 0.03));
    });
    this.dispatchEvent(new Event("change"));
  }

  /** A shape with about as many pixels as a square of the default. */
  shape(x, y) {
    const pixels = this.schemas.width.default * this.schemas.height.default;
    // Shapes of more than a square's pixels suit these models better than narrow ones of as many.
    const side = Math.sqrt(pixels / (x * y)) * Math.min(1.15, Math.sqrt(this.most / pixels));
    const scale = x === y ? Math.sqrt(pixels / (x * y)) : side;
    this.set({ width: x * scale, height: y * scale });
  }
}
