// The left side of the page: the model, its form, and the button that draws.

import { h, uniqueId } from "./element.js";
import { Form } from "./form.js";
import { icon } from "./icons.js";
import { words } from "./words.js";

export class DrawPanel extends EventTarget {
  constructor({ api, keyring, jobs, toasts, paint }) {
    super();
    Object.assign(this, { api, keyring, jobs, toasts, paint });
    this.endpoint = null;
    this.form = null;
    this.models = new Map();
    const id = uniqueId("endpoint");
    this.select = h("select", { id, onchange: () => this.choose(this.select.value) });
    this.chooser = h("div", { class: "field inline", hidden: true }, h("label", { for: id }, words.endpoint), this.select);
    this.place = h("div", {});
    this.error = h("p", { class: "error", role: "alert", hidden: true });
    this.button = h("button", { type: "submit", class: "primary", "aria-keyshortcuts": "Control+Enter" }, words.draw);
    this.reset = h("button", { type: "button", class: "icon", title: words.reset, "aria-label": words.reset, onclick: () => this.backToDefaults() }, icon("undo"));
    this.node = h("form", { class: "panel", "aria-label": words.request, noValidate: true, onsubmit: (event) => this.submitted(event) },
      h("h2", { class: "unseen" }, words.request), h("div", { class: "panel-body" }, this.chooser, this.place),
      h("div", { class: "panel-foot" }, this.error, h("div", { class: "draw-row" }, this.button, this.reset)));
  }

  /** Opens the form for the first endpoint, or for the one that was open last. */
  async start(endpoints, document) {
    this.schema = document.components.schemas;
    this.select.replaceChildren(...endpoints.map((name) => h("option", { value: name }, name)));
    this.chooser.hidden = endpoints.length < 2;
    const last = this.keyring.recall("form");
    const controls = this.keyring.recall("controls");
    const input = last && { ...last.input, ...this.keyring.recall("start"), ...(controls && { controlnet: controls }) };
    await this.choose(endpoints.includes(last?.endpoint) ? last.endpoint : endpoints[0], input, last?.open);
  }

  /** The model of an endpoint, with the schemas of its fields. */
  async model(endpoint) {
    const model = await this.api.model(endpoint);
    const resolve = (schema) => this.resolve(schema);
    const properties = Object.fromEntries(Object.entries(this.schema.Input.properties).map(([name, schema]) => [name, resolve(schema)]));
    if (properties.clip_skip) properties.clip_skip = { ...properties.clip_skip, maximum: model.max_clip_skip };
    return { ...model, properties };
  }

  /** A schema with its references replaced. */
  resolve(schema) {
    if (schema.$ref) return this.resolve(this.schema[schema.$ref.split("/").at(-1)]);
    const one = [schema.anyOf, schema.oneOf].flat().filter(Boolean).map((each) => this.resolve(each));
    const object = one.find((each) => each.properties);
    const list = one.find((each) => each.items);
    if (list) return { ...schema, ...list, items: this.resolve(list.items) };
    if (object) return { ...schema, ...object };
    if (schema.items) return { ...schema, items: this.resolve(schema.items) };
    return schema;
  }

  async choose(endpoint, input = this.form?.settings(), open = this.form?.open) {
    this.models.set(endpoint, await this.model(endpoint));
    this.endpoint = endpoint;
    this.select.value = endpoint;
    this.form = new Form(this.models.get(endpoint), {
      count: (text) => this.api.tokens(endpoint, text),
      paint: this.paint,
      failed: (sentence) => this.toasts.say(sentence, "bad"),
    });
    this.place.replaceChildren(this.form.node);
    if (input) this.form.set(input);
    if (open) this.form.open = open;
    this.form.addEventListener("change", () => this.rememberSoon());
    this.form.start?.addEventListener("change", () => this.rememberPictures("start", this.form.start.get()));
    this.form.fields.get("controlnet")?.addEventListener("change", () => {
      this.hasNewControls = true;
    });
    this.form.addEventListener("fold", () => this.rememberSoon());
  }

  rememberSoon() {
    this.error.hidden = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.remember(), 300);
  }

  rememberPictures(name, value) {
    const isKept = this.keyring.remember(name, value ?? null);
    if (!isKept && !this.hasWarned) this.toasts.say(words.notKept, "bad");
    this.hasWarned = !isKept;
  }

  /** Everything but the pictures, which are large: they are remembered when they change. */
  remember() {
    if (this.hasNewControls) this.rememberPictures("controls", this.form.fields.get("controlnet").get());
    this.hasNewControls = false;
    const { init_image: _, mask: __, controlnet: ___, outpaint: ____, ...input } = this.form.settings();
    this.keyring.remember("form", { endpoint: this.endpoint, input, open: this.form.open });
  }

  backToDefaults() {
    const before = this.state;
    this.form.set({ prompt: this.form.prompt.value, init_image: null });
    this.toasts.say(words.resetDone, "plain", { label: words.takeBack, act: () => this.put(before) });
  }

  /** What the form says, to be put back. */
  get state() {
    return { endpoint: this.endpoint, input: { init_image: null, ...this.form.settings() } };
  }

  async put({ endpoint, input }) {
    if (endpoint !== this.endpoint) await this.choose(endpoint, input);
    else this.form.set(input);
  }

  submitted(event) {
    event?.preventDefault();
    return this.submit(this.form.get());
  }

  /** Sends a request. What the server refuses is said here, in its own sentence. */
  async submit(input, endpoint = this.endpoint) {
    if (this.models.get(endpoint)?.required.includes("init_image") && !input.init_image) return this.refuse(words.needsPicture);
    this.error.hidden = true;
    this.button.setAttribute("aria-busy", "true");
    try {
      const job = await this.jobs.submit(endpoint, input);
      this.dispatchEvent(new Event("sent"));
      return job;
    } catch (refusal) {
      if (refusal.status !== 401) this.refuse(refusal.message);
    } finally {
      this.button.removeAttribute("aria-busy");
    }
  }

  refuse(sentence) {
    this.error.textContent = sentence;
    this.error.hidden = false;
  }
}
