// The form of a request: the fields that this server and this model have, in groups. It reads and writes `input`.

import { CountField } from "./count_field.js";
import { h } from "./element.js";
import { makeField } from "./field.js";
import { icon } from "./icons.js";
import { LoraList } from "./lora_list.js";
import { ListField, ObjectField } from "./object_field.js";
import { PromptField } from "./prompt_field.js";
import { SeedField } from "./seed_field.js";
import { SizeField } from "./size_field.js";
import { StartPicture } from "./start_picture.js";
import { words } from "./words.js";

/** What only some schedulers have. */
const SAMPLING = ["eta", "s_churn", "s_tmin", "s_tmax", "s_noise"];
/** The groups that are folded away, and the fields of each, in order. `more` has whatever is left. */
const GROUPS = {
  guidance: ["num_inference_steps", "guidance_scale", "scheduler", "spacing", "karras", ...SAMPLING],
  loras: [],
  variation: ["subseed_strength", "subseed", "seed_resize_width", "seed_resize_height"],
  hires: ["hires"],
  controlnet: ["controlnet"],
  more: [],
};
/** Shown with the starting picture. */
const WITH_PICTURE = ["prompt_strength", "image_guidance_scale", "resize_mode", "upscale"];
/** Shown with a mask, and when the picture is extended. */
const WITH_MASK = ["mask_blur", "inpaint_area", "inpaint_padding", "inpaint_fill"];
/** Fields with a control of their own, or none: LoRAs are tags in the prompt, masks are painted. */
const OWN = ["prompt", "negative_prompt", "width", "height", "num_outputs", "seed", "init_image", "mask", "mask_invert", "lora", "lora_scale", "outpaint"];
const REACH = { num_inference_steps: 60, guidance_scale: 20, inpaint_padding: 256 };

export class Form extends EventTarget {
  /** `model` is the answer of `/model` with the input's `properties`; `tools` are `{count, paint, failed}`. */
  constructor(model, tools) {
    super();
    this.model = model;
    this.properties = Object.fromEntries(Object.entries(model.properties).filter(([name]) => model.fields.includes(name)));
    const names = () => model;
    this.prompt = new PromptField({ label: words.prompt, hint: words.promptHint, help: words.promptHelp, rows: 3, count: tools.count, names });
    this.negative = this.has("negative_prompt") ? new PromptField({ label: words.negative, hint: words.negativeHint, rows: 1, count: tools.count, names }) : null;
    const takesMask = this.has("mask");
    this.start = this.has("init_image") ? new StartPicture({ paint: takesMask && ((subject) => tools.paint(subject, this)), failed: tools.failed }) : null;
    this.size = new SizeField(this.properties, model.grid);
    this.count = new CountField(this.properties.num_outputs);
    this.seed = new SeedField();
    this.fields = new Map();
    this.failed = tools.failed;
    this.withPicture = h("div", { class: "parts" }, this.make(WITH_PICTURE));
    this.withMask = h("div", { class: "parts masking" }, this.make(WITH_MASK));
    this.fields.get("upscale")?.node.classList.add("enlarges");
    this.groups = this.makeGroups();
    this.node = h("div", { class: "form-parts" },
      this.prompt.node, this.negative?.node,
      this.start && h("section", { class: "part enlarges", "aria-label": words.start }, h("h3", {}, words.start), this.start.node, this.withPicture, this.withMask),
      h("section", { class: "part", "aria-label": words.size }, h("h3", {}, words.size), this.size.node),
      h("section", { class: "part pair" }, this.count.node, this.seed.node),
      this.groups);
    for (const part of [this.prompt, this.negative, this.start, this.size, this.count, this.seed]) part?.addEventListener("change", () => this.changed());
    this.start?.addEventListener("change", () => this.followPicture());
    this.fields.get("scheduler")?.addEventListener("change", () => this.followScheduler());
    this.fields.get("inpaint_area")?.addEventListener("change", () => this.followArea());
    this.followArea();
    this.followPicture();
  }

  has(name) {
    return name in this.properties;
  }

  /** Makes fields by name, those that this server has. */
  make(names) {
    return names.filter((name) => this.has(name)).map((name) => {
      const schema = this.properties[name];
      const options = { default: this.model.defaults[name], reach: REACH[name], label: words.turnOn[name], choices: this.choices(name), failed: this.failed };
      const field = this.isList(schema) ? new ListField(name, schema, { ...options, choices: this.partChoices(name) })
        : schema.properties ? new ObjectField(name, schema, { ...options, choices: this.partChoices(name) })
        : makeField(name, schema, options);
      field.addEventListener("change", () => this.changed());
      this.fields.set(name, field);
      return field.node;
    });
  }

  isList(schema) {
    return [schema.type].flat().includes("array") || [schema.anyOf, schema.oneOf].flat().some((one) => one?.items);
  }

  choices(name) {
    if (name !== "scheduler") return undefined;
    return this.model.schedulers.map(({ name, title }) => [name, title]);
  }

  /** The choices inside an object: names of schedulers and of what lies on the server. */
  partChoices(object) {
    const { controlnets, preprocessors, upscalers, built_in_upscalers: builtIn, schedulers } = this.model;
    const listed = (names) => names.map((name) => [name, words.choices[name] ?? name]);
    return {
      // The second pass starts from a picture.
      hires: () => ({ scheduler: schedulers.filter((one) => one.from_image).map(({ name, title }) => [name, title]), upscaler: listed([...builtIn, ...upscalers]) }),
      // A picture has no latents to enlarge.
      upscale: () => ({ model: listed([...builtIn.filter((name) => !name.startsWith("latent") && name !== "none"), ...upscalers]) }),
      controlnet: () => ({ model: listed(controlnets), preprocess: listed(preprocessors) }),
    }[object]?.() ?? {};
  }

  makeGroups() {
    const placed = new Set([...Object.values(GROUPS).flat(), ...WITH_PICTURE, ...WITH_MASK, ...OWN]);
    // With spacings, Karras is one of them.
    if (this.has("spacing")) placed.add("karras");
    return Object.entries(GROUPS).map(([group, names]) => {
      if (group === "controlnet" && this.model.controlnets?.length === 0) return null;
      const wanted = group === "more" ? Object.keys(this.properties).filter((name) => !placed.has(name)) : names;
      const content = group === "loras"
        ? this.has("lora") && [new LoraList(this.prompt, this.model.loras).node]
        : this.make(wanted.filter((name) => !(name === "karras" && this.has("spacing"))));
      if (!content?.length) return null;
      return h("details", { class: "fold", "data-group": group, ontoggle: () => this.dispatchEvent(new Event("fold")) },
        h("summary", {}, words.groups[group], h("span", { class: "mark" }), icon("right")), h("div", { class: "parts" }, content));
    }).filter(Boolean);
  }

  /** What depends on the scheduler. */
  followScheduler() {
    const name = this.fields.get("scheduler")?.value;
    const { spacings, options } = this.model.schedulers.find((one) => one.name === name) ?? {};
    if (!spacings) return;
    const spacing = this.fields.get("spacing");
    if (spacing) spacing.node.hidden = spacings.length === 0;
    spacing?.restrict((value) => value === "" || spacings.includes(value));
    for (const option of SAMPLING) if (this.fields.has(option)) this.fields.get(option).node.hidden = !options.includes(option);
  }

  /** What is around the mask matters only where that area alone is drawn. */
  followArea() {
    const area = this.fields.get("inpaint_area")?.value;
    const padding = this.fields.get("inpaint_padding");
    if (padding) padding.node.hidden = area !== "masked";
  }

  /** What depends on the starting picture. */
  followPicture() {
    if (!this.start) return;
    const { picture, mask, outpaint, extent } = this.start;
    this.withPicture.hidden = !picture;
    this.withMask.hidden = !mask && !outpaint;
    const fromImage = new Set(this.model.schedulers.filter((one) => one.from_image).map((one) => one.name));
    const edits = this.model.required.includes("init_image");
    this.fields.get("scheduler")?.restrict((name) => !picture || edits || name === "" || fromImage.has(name));
    this.followScheduler();
    if (extent && extent !== this.sizedFor) {
      this.sizedFor = extent;
      const own = extent.width * extent.height;
      // What is kept of an extended picture is not drawn smaller without need.
      const scale = Math.sqrt((outpaint ? Math.min(own, this.size.most) : 512 * 512) / own);
      this.size.set({ width: extent.width * scale, height: extent.height * scale });
    }
  }

  changed() {
    for (const fold of this.groups) {
      const group = fold.dataset.group;
      const isOn = [...this.fields.values()].some((field) => fold.contains(field.node) && field.get() !== undefined) || (group === "loras" && /<lora:/.test(this.prompt.value));
      fold.querySelector(".mark").textContent = isOn ? "•" : "";
      fold.querySelector(".mark").title = isOn ? words.on : "";
    }
    // What is not sent is not shown, but kept.
    const enlarges = this.start?.picture && this.fields.get("upscale")?.get() !== undefined;
    this.node.classList.toggle("enlarging", Boolean(enlarges));
    this.dispatchEvent(new Event("change"));
  }

  /** The request. A picture that is only enlarged is not drawn, so the other settings do not go with it. */
  get() {
    const { init_image, upscale, ...rest } = this.settings();
    return upscale ? { init_image, upscale } : { ...rest, ...(init_image && { init_image }) };
  }

  /** All that the form says. Fields at their defaults are left out. */
  settings() {
    const input = { prompt: this.prompt.value };
    if (this.negative?.value) input.negative_prompt = this.negative.value;
    Object.assign(input, this.size.get());
    const count = this.count.get();
    const seed = this.seed.get();
    if (count !== undefined) input.num_outputs = count;
    if (seed !== undefined) input.seed = seed;
    const pictures = this.start?.get() ?? {};
    if (!this.has("outpaint")) delete pictures.outpaint;
    Object.assign(input, pictures);
    for (const [name, field] of this.fields) {
      if (WITH_PICTURE.includes(name) && !pictures.init_image) continue;
      if (WITH_MASK.includes(name) && !pictures.mask && !pictures.outpaint) continue;
      const value = field.node.hidden ? undefined : field.get();
      if (value !== undefined) input[name] = value;
    }
    return input;
  }

  /** Fills the form with a request. What the request does not say goes back to the default. */
  set(input) {
    let { prompt = "" } = input;
    if (input.lora && !prompt.includes(`<lora:${input.lora}:`)) prompt += ` <lora:${input.lora}:${input.lora_scale ?? 1}>`;
    this.prompt.value = prompt;
    if (this.negative) this.negative.value = input.negative_prompt ?? "";
    if (this.start && ("init_image" in input || !this.start.picture)) this.start.set(input);
    this.size.set(input);
    this.count.set(input.num_outputs);
    this.seed.set(input.seed);
    for (const [name, field] of this.fields) field.set(input[name] ?? undefined);
    this.followScheduler();
    this.followArea();
    if (input.karras && !input.spacing) this.fields.get("spacing")?.set("karras");
    this.changed();
  }

  /** The names of the groups that are open. */
  get open() {
    return this.groups.filter((fold) => fold.open).map((fold) => fold.dataset.group);
  }

  set open(groups) {
    for (const fold of this.groups) fold.open = groups.includes(fold.dataset.group);
  }
}
