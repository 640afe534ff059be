// The LoRAs of the prompt, with a slider each. The prompt says which there are: its tags are the only record.

import { h, uniqueId } from "./element.js";
import { icon } from "./icons.js";
import { makeSlider, slide } from "./slider.js";
import { words } from "./words.js";

const TAG = /<lora:([^<>:]+)(?::([-\d.]+))?((?::[^<>]*)?)>/g;

export class LoraList {
  /** `prompt` is the field that has the tags. */
  constructor(prompt, names) {
    this.prompt = prompt;
    this.rows = h("div", { class: "loras" });
    const id = uniqueId("add-lora");
    this.select = h("select", { id, onchange: () => this.add(this.select.value) },
      h("option", { value: "" }, words.chooseLora), names.map((name) => h("option", { value: name }, name)));
    this.node = h("div", {},
      this.rows,
      names.length
        ? h("div", { class: "field" }, h("label", { for: id }, words.addLora), this.select)
        : h("p", { class: "help" }, words.noLoras));
    prompt.addEventListener("change", () => this.show());
    this.show();
  }

  get tags() {
    return [...this.prompt.value.matchAll(TAG)].map((match) => ({
      whole: match[0], at: match.index, name: match[1], scale: Number(match[2] ?? 1), rest: match[3],
    }));
  }

  show() {
    const tags = this.tags;
    const known = [...this.rows.children].map((row) => row.dataset.name).join("\n");
    if (known !== tags.map((tag) => tag.name).join("\n")) this.rows.replaceChildren(...tags.map((tag, index) => this.row(tag, index)));
    tags.forEach((tag, index) => {
      for (const input of this.rows.children[index].querySelectorAll("input")) {
        if (input.type === "range") slide(input, tag.scale);
        else if (input !== document.activeElement) input.value = tag.scale;
      }
    });
  }

  row({ name }, index) {
    const label = words.loraScale(name);
    const properties = { step: 0.05, "aria-label": label, oninput: (event) => this.scale(index, event.target.value) };
    return h("div", { class: "lora", "data-name": name },
      h("span", { class: "lora-name", title: name }, name),
      makeSlider({ min: 0, max: 1.5, tabIndex: -1, ...properties }),
      h("input", { type: "number", class: "number", min: -10, max: 10, ...properties }),
      h("button", { type: "button", class: "icon", title: words.removeLora(name), "aria-label": words.removeLora(name), onclick: () => this.remove(index) }, icon("close")));
  }

  scale(index, value) {
    if (value === "") return;
    const tag = this.tags[index];
    const { value: text } = this.prompt;
    // While the slider moves, the prompt must not take the focus from it.
    this.prompt.value = `${text.slice(0, tag.at)}<lora:${tag.name}:${Number(value)}${tag.rest}>${text.slice(tag.at + tag.whole.length)}`;
  }

  remove(index) {
    const { at, whole } = this.tags[index];
    const { value } = this.prompt;
    const hasSpace = value[at - 1] === " ";
    this.prompt.replace(hasSpace ? at - 1 : at, at + whole.length, "");
  }

  add(name) {
    this.select.value = "";
    if (!name || this.tags.some((tag) => tag.name === name)) return;
    const { value } = this.prompt;
    this.prompt.replace(value.trimEnd().length, value.length, `${value.trim() && " "}<lora:${name}:1>`);
    this.select.focus();
  }
}
