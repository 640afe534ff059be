// A field that is an object of fields (`hires`), or a list of such objects (`controlnet`), in a section of its own.

import { h } from "./element.js";
import { Field, makeField } from "./field.js";
import { icon } from "./icons.js";
import { choosePicture, readPicture } from "./picture_file.js";
import { words } from "./words.js";

/** An object that is on or off as a whole. Off is the default. */
export class ObjectField extends Field {
  constructor(name, schema, options = {}) {
    super(name, schema, options);
    this.isOn = Boolean(options.always);
    const listed = schema.properties ?? {};
    this.parts = Object.entries(listed).map(([part, partSchema]) =>
      /image$/.test(part) ? new PictureField(part, partSchema, options) : makeField(part, partSchema, { choices: options.choices?.[part], default: this.first(part, options), ...words.parts[`${name}.${part}`] }));
    for (const part of this.parts) part.addEventListener("change", () => this.changed());
    this.body = h("div", { class: "parts", hidden: !this.isOn }, this.parts.map((part) => part.node));
    this.toggle = !options.always && h("input", {
      type: "checkbox", id: this.id, onchange: () => {
        this.isOn = this.toggle.checked;
        this.body.hidden = !this.isOn;
        this.changed();
      },
    });
    this.node = h("div", {}, this.toggle && h("div", { class: "field flag" }, this.toggle, h("label", { for: this.id }, options.label)), this.body);
  }

  isRequired(part) {
    return Boolean(this.schema.required?.includes(part));
  }

  /** What a part has at first that is required and has only certain values. */
  first(part, { choices }) {
    return this.isRequired(part) ? choices?.[part]?.[0]?.[0] : undefined;
  }

  get() {
    if (!this.isOn) return undefined;
    const given = this.parts.map((part) => [part.name, part.get() ?? (this.isRequired(part.name) ? part.fallback : undefined)]);
    return Object.fromEntries(given.filter(([, value]) => value !== undefined));
  }

  set(value) {
    this.isOn = Boolean(value) || !this.toggle;
    if (this.toggle) this.toggle.checked = this.isOn;
    this.body.hidden = !this.isOn;
    for (const part of this.parts) part.set(value?.[part.name]);
  }
}

/** Several objects. */
export class ListField extends Field {
  constructor(name, schema, options) {
    super(name, schema, options);
    this.options = options;
    this.item = schema.items ?? schema.anyOf?.find((one) => one.items)?.items ?? schema;
    this.most = schema.maxItems ?? schema.anyOf?.find((one) => one.maxItems)?.maxItems ?? 4;
    this.items = [];
    this.rows = h("div", { class: "controls" });
    this.adder = h("button", { type: "button", class: "quiet", onclick: () => this.add() }, icon("more"), words.addControl);
    this.node = h("div", {}, this.rows, this.adder);
  }

  add(value) {
    const item = new ObjectField(this.name, this.item, { ...this.options, always: true });
    item.set(value);
    item.addEventListener("change", () => this.changed());
    const remove = h("button", {
      type: "button", class: "icon", title: words.removeControl, "aria-label": words.removeControl,
      onclick: () => {
        this.items = this.items.filter((other) => other !== item);
        this.show();
      },
    }, icon("close"));
    item.row = h("fieldset", {}, h("legend", {}), remove, item.node);
    this.items.push(item);
    this.show();
  }

  show() {
    this.rows.replaceChildren(...this.items.map((item) => item.row));
    this.items.forEach((item, index) => {
      item.row.querySelector("legend").textContent = words.control(index + 1);
    });
    this.adder.hidden = this.items.length >= this.most;
    this.changed();
  }

  get() {
    return this.items.length ? this.items.map((item) => item.get()) : undefined;
  }

  set(value) {
    this.items = [];
    // A file may say anything.
    for (const one of (value ? [value].flat() : []).slice(0, this.most)) this.add(one);
    this.show();
  }
}

/** A picture inside an object. */
class PictureField extends Field {
  constructor(name, schema, options) {
    super(name, schema, { ...options, label: words.fields.image.label, help: undefined });
    this.failed = options.failed;
    this.body = h("div", { class: "start" });
    this.node = h("div", { class: "field", role: "group", "aria-label": this.label }, h("span", { class: "label" }, this.label), this.body);
    this.set(undefined);
  }

  async take(file) {
    try {
      this.set((await readPicture(file)).uri);
      this.changed();
    } catch (error) {
      this.failed?.(error.message);
    }
  }

  get() {
    return this.uri;
  }

  set(uri) {
    this.uri = uri;
    this.body.replaceChildren(
      ...(uri?.startsWith("data:") ? [h("div", { class: "thumb" }, h("img", { src: uri, alt: this.label }))] : []),
      choosePicture(words.choosePicture, (file) => this.take(file)));
  }
}
