// One field of a request, made from what the server's OpenAPI document says of it: its type, limits and default.
//
// Every field has `node`, `get()` (undefined: the server's default) and `set(value)` (undefined: back to the default).

import { h, uniqueId } from "./element.js";
import { makeSlider, slide } from "./slider.js";
import { words } from "./words.js";

/** The field for a schema. `options` may name a `default`, a `label`, a `help`, `choices` and the `reach` of a slider. */
export function makeField(name, schema, options = {}) {
  // A limit of 64 bits is a BigInt, which does not mix with numbers.
  const limits = ["minimum", "maximum"].filter((limit) => typeof schema[limit] === "bigint");
  schema = { ...schema, ...Object.fromEntries(limits.map((limit) => [limit, Number(schema[limit])])) };
  const known = words.fields[name] ?? {};
  const all = {
    label: known.label ?? title(name),
    help: known.help ?? schema.description?.split(/[;.]/)[0],
    default: schema.default ?? undefined,
    ...Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined && value !== null)),
  };
  const types = [schema.type].flat();
  if (all.choices ?? schema.enum) return new ChoiceField(name, schema, all);
  if (types.includes("boolean")) return new FlagField(name, schema, all);
  if (types.includes("integer") || types.includes("number")) {
    const isRange = schema.maximum !== undefined && schema.maximum <= 1000;
    return isRange ? new RangeField(name, schema, all) : new NumberField(name, schema, all);
  }
  return new TextField(name, schema, all);
}

function title(name) {
  const text = name.replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
}

/** What fields have in common: a label, a word of help, and what happens when they change. */
export class Field extends EventTarget {
  constructor(name, schema, { label, help, default: fallback }) {
    super();
    Object.assign(this, { name, schema, label, help, fallback });
    this.id = uniqueId(name);
    this.helpId = `${this.id}-help`;
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** The row of a control. */
  row(control, beside = null) {
    return h("div", { class: "field" },
      h("div", { class: "field-head" }, h("label", { for: this.id }, this.label), beside),
      control,
      this.help && h("p", { class: "help", id: this.helpId }, this.help));
  }

  get described() {
    return { id: this.id, name: this.name, "aria-describedby": this.help ? this.helpId : null };
  }
}

class ChoiceField extends Field {
  constructor(name, schema, options) {
    super(name, schema, options);
    const choices = options.choices ?? schema.enum.filter((word) => word !== null).map((word) => [word, words.choices[word] ?? word]);
    const unset = this.fallback === undefined || !choices.some(([value]) => value === this.fallback);
    this.select = h("select", { ...this.described, onchange: () => this.changed() },
      unset && h("option", { value: "" }, words.asTheModel),
      choices.map(([value, text]) => h("option", { value }, text)));
    this.node = this.row(this.select);
    this.set(undefined);
  }

  get() {
    const { value } = this.select;
    return value === "" || value === this.fallback ? undefined : value;
  }

  set(value) {
    const wanted = value ?? this.fallback ?? "";
    const bare = (text) => text.toLowerCase().replaceAll(/[\s_-]/g, "");
    const option = [...this.select.options].find((option) =>
      option.value === wanted || [option.value, option.text].some((text) => bare(text) === bare(String(wanted))));
    this.select.value = option?.value ?? this.fallback ?? "";
  }

  /** What is chosen, also if it is the default. */
  get value() {
    return this.select.value;
  }

  /** Offers only some of the choices. */
  restrict(isOffered) {
    for (const option of this.select.options) option.hidden = option.disabled = !isOffered(option.value);
    if (this.select.selectedOptions[0]?.disabled) this.select.value = [...this.select.options].find((option) => !option.disabled)?.value;
  }
}

class FlagField extends Field {
  constructor(name, schema, options) {
    super(name, schema, options);
    this.fallback ??= name === "nsfw";
    this.input = h("input", { type: "checkbox", ...this.described, onchange: () => this.changed() });
    this.node = h("div", { class: "field flag" }, this.input, h("label", { for: this.id }, this.label),
      this.help && h("p", { class: "help", id: this.helpId }, this.help));
    this.set(undefined);
  }

  get() {
    return this.input.checked === this.fallback ? undefined : this.input.checked;
  }

  set(value) {
    this.input.checked = value ?? this.fallback;
  }
}

class NumberField extends Field {
  constructor(name, schema, options) {
    super(name, schema, options);
    this.isWhole = [schema.type].flat().includes("integer");
    this.input = h("input", {
      type: "number", class: "number", ...this.described, inputMode: this.isWhole ? "numeric" : "decimal",
      min: schema.minimum, max: schema.maximum, step: schema.multipleOf ?? (this.isWhole ? 1 : "any"),
      placeholder: this.fallback === undefined ? words.auto : "", onchange: () => this.settle(),
    });
    this.node = this.row(null, this.input);
    this.set(undefined);
  }

  /** Brings what was typed within the limits. */
  settle() {
    const { minimum, maximum, exclusiveMinimum } = this.schema;
    let value = this.input.valueAsNumber;
    if (!Number.isNaN(value)) {
      if (this.isWhole) value = Math.round(value);
      if (minimum !== undefined) value = Math.max(minimum, value);
      if (exclusiveMinimum !== undefined && value <= exclusiveMinimum) value = exclusiveMinimum + 0.1;
      if (maximum !== undefined) value = Math.min(maximum, value);
      this.input.value = value;
    }
    this.show();
    this.changed();
  }

  show() {}

  get() {
    const value = this.input.valueAsNumber;
    return Number.isNaN(value) || value === this.fallback ? undefined : value;
  }

  set(value) {
    this.input.value = value ?? this.fallback ?? "";
    this.show();
  }
}

/** A number with a slider. The slider reaches as far as people usually go; the number goes to the limit. */
class RangeField extends NumberField {
  constructor(name, schema, options) {
    super(name, schema, options);
    const min = schema.minimum ?? schema.exclusiveMinimum ?? 0;
    const max = Math.min(schema.maximum, options.reach ?? Infinity);
    const step = this.isWhole ? 1 : max - min <= 2 ? 0.01 : 0.1;
    this.slider = makeSlider({
      min, max, step, "aria-label": this.label, tabIndex: -1,
      oninput: () => {
        this.input.value = this.slider.value;
        this.show();
      },
      onchange: () => this.settle(),
    });
    this.input.step = step;
    this.input.addEventListener("input", () => this.show());
    this.node.querySelector(".field-head").after(this.slider);
    this.show();
  }

  show() {
    if (this.slider) slide(this.slider, this.input.value || this.slider.min);
  }
}

class TextField extends Field {
  constructor(name, schema, options) {
    super(name, schema, options);
    this.input = h("input", { type: "text", ...this.described, maxLength: schema.maxLength ?? null, onchange: () => this.changed() });
    this.node = this.row(this.input);
  }

  get() {
    return this.input.value === "" ? undefined : this.input.value;
  }

  set(value) {
    this.input.value = value ?? "";
  }
}
