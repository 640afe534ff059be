// The seed: random, or fixed. It is text, because a seed has up to 64 bits.

import { h, uniqueId } from "./element.js";
import { icon } from "./icons.js";
import { wholeNumber } from "./json.js";
import { words } from "./words.js";

export class SeedField extends EventTarget {
  constructor() {
    super();
    const id = uniqueId("seed");
    this.input = h("input", {
      id, name: "seed", type: "text", inputMode: "numeric", pattern: "[0-9]{1,20}", placeholder: words.random, autocomplete: "off",
      onchange: () => this.set(this.input.value),
    });
    const dice = h("button", {
      type: "button", class: "icon", title: words.fixSeed, "aria-label": words.fixSeed,
      onclick: () => this.set(crypto.getRandomValues(new Uint32Array(1))[0]),
    }, icon("dice"));
    this.clear = h("button", { type: "button", class: "icon", title: words.dice, "aria-label": words.dice, onclick: () => this.set(undefined) }, icon("close"));
    this.node = h("div", { class: "field inline" }, h("label", { for: id }, words.seed), h("span", { class: "joined" }, this.input, this.clear, dice));
    this.set(undefined);
  }

  get() {
    return wholeNumber(this.input.value) ?? undefined;
  }

  set(value) {
    const seed = value === undefined || value === null ? null : wholeNumber(String(value));
    this.input.value = seed === null || seed < 0 ? "" : String(seed);
    this.clear.hidden = this.input.value === "";
    this.dispatchEvent(new Event("change"));
  }
}
