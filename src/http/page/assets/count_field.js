// How many pictures one request draws.

import { h, uniqueId } from "./element.js";
import { icon } from "./icons.js";
import { words } from "./words.js";

export class CountField extends EventTarget {
  constructor(schema) {
    super();
    const id = uniqueId("count");
    this.input = h("input", {
      id, name: "num_outputs", type: "number", class: "number", min: 1, max: schema.maximum, inputMode: "numeric",
      onchange: () => this.set(this.input.valueAsNumber),
    });
    const step = (name, by, label) => h("button", {
      type: "button", class: "icon", title: label, "aria-label": label, onclick: () => this.set(this.input.valueAsNumber + by),
    }, icon(name));
    this.node = h("div", { class: "field inline" }, h("label", { for: id }, words.countField),
      h("span", { class: "joined" }, step("less", -1, words.fewer), this.input, step("more", 1, words.moreOf)));
    this.set(undefined);
  }

  get() {
    return this.input.valueAsNumber === 1 ? undefined : this.input.valueAsNumber;
  }

  set(value) {
    const count = Number.isFinite(value) ? Math.round(value) : 1;
    this.input.value = Math.min(this.input.max, Math.max(1, count));
    this.dispatchEvent(new Event("change"));
  }
}
