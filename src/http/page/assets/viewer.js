// One picture, large, with its settings and what can be done with it.

import { h, isTyping } from "./element.js";
import { icon } from "./icons.js";
import { readJson } from "./json.js";
import { pngTexts } from "./png_texts.js";
import { asCurl, asJson } from "./request_text.js";
import { copyText, saveFile } from "./save_file.js";
import { Stage } from "./stage.js";
import { words } from "./words.js";

export class Viewer extends EventTarget {
  /** Tells of `again`, `vary` and `start`, each with the picture and its request. */
  constructor({ api, jobs, gallery, toasts }) {
    super();
    Object.assign(this, { api, jobs, gallery, toasts, picture: null, pinned: null });
    this.stage = new Stage();
    this.where = h("span", { class: "where" });
    this.prompt = h("p", { class: "viewer-prompt" });
    this.settings = h("pre", { class: "settings", tabIndex: 0, "aria-label": words.parameters });
    this.warnings = h("ul", { class: "warnings" });
    this.compareButton = this.action("compare", words.compare, () => this.compare());
    this.compareButton.setAttribute("aria-pressed", "false");
    this.varyButton = this.action("vary", words.vary, () => this.tell("vary"));
    this.deleteButton = this.action("bin", words.delete, () => this.delete());
    const side = h("aside", { class: "side", "aria-label": words.parameters },
      this.prompt,
      h("div", { class: "actions" },
        this.action("again", words.again, () => this.tell("again")),
        this.varyButton,
        this.action("picture", words.asStart, () => this.tell("start")),
        this.compareButton,
        this.action("save", words.download, () => this.download()),
        this.deleteButton),
      this.warnings,
      h("h3", {}, words.parameters), this.settings,
      h("div", { class: "actions" },
        this.action("copy", words.copyText, () => this.copy(this.settings.textContent)),
        this.action("copy", words.copyJson, async () => this.copy(asJson(await this.request()))),
        this.action("copy", words.copyCurl, async () => this.copy(asCurl(this.api.root, this.picture.job.endpoint, await this.request())))));
    this.node = h("dialog", { class: "viewer", "aria-label": words.viewer, onclose: () => this.closed(), onkeydown: (event) => this.pressed(event) },
      h("div", { class: "viewer-main" },
        h("div", { class: "viewer-bar" }, this.where,
          this.tool("less", words.zoomOut, () => this.stage.zoomTo(this.stage.scale / 1.5)),
          this.tool("fit", words.zoomFit, () => this.stage.reset()),
          this.tool("more", words.zoomIn, () => this.stage.zoomTo(this.stage.scale * 1.5)),
          this.tool("close", words.close, () => this.node.close())),
        this.stage.node,
        this.tool("left", words.previous, () => this.move(-1), "side-left"),
        this.tool("right", words.next, () => this.move(1), "side-right")),
      side);
    gallery.addEventListener("open", ({ detail }) => this.open(detail));
    jobs.addEventListener("gone", ({ detail }) => this.picture?.job.id === detail.id && this.node.open && this.move(1, true));
  }

  action(name, label, act) {
    return h("button", { type: "button", class: "quiet", onclick: act }, icon(name), h("span", {}, label));
  }

  tool(name, label, act, place = "") {
    return h("button", { type: "button", class: `icon ${place}`, title: label, "aria-label": label, onclick: act }, icon(name));
  }

  get pictures() {
    return this.gallery.pictures.filter((picture) => picture.url);
  }

  open(picture) {
    this.show(picture);
    if (!this.node.open) this.node.showModal();
  }

  async show(picture) {
    this.picture = picture;
    this.sure(false);
    const { job } = picture;
    const all = this.pictures;
    this.at = all.findIndex((one) => one.key === picture.key);
    this.where.textContent = words.of(this.at + 1, all.length);
    if (this.pinned) this.stage.compare(picture.url, job.prompt);
    else this.stage.show(picture.url, job.prompt);
    this.prompt.textContent = job.prompt;
    this.warnings.replaceChildren(...(job.warnings ?? []).map((sentence) => h("li", {}, sentence)));
    this.settings.textContent = "";
    this.texts = this.api.picture(picture.url).then(pngTexts).catch(() => ({}));
    // A picture that was only enlarged has no seed to vary.
    this.varyButton.hidden = Boolean(job.input?.upscale);
    const texts = await this.texts;
    if (this.picture !== picture) return;
    this.settings.textContent = texts.parameters ?? `Seed: ${picture.seed}`;
    this.varyButton.hidden ||= Boolean(ownRequest(texts).upscale);
  }

  /** The next picture, or the one before. `isGone`: the open one is no longer there. */
  move(by, isGone = false) {
    const all = this.pictures;
    if (all.length === 0 || (isGone && all.length === 0)) return this.node.close();
    const at = isGone ? Math.min(this.at, all.length - 1) : (this.at + by + all.length) % all.length;
    return this.show(all[at]);
  }

  /** The request that draws this picture again, alone: what the file says of itself, and the pictures of the job. */
  async request() {
    const { picture } = this;
    const [input, texts] = await Promise.all([this.jobs.inputOf(picture.job).catch(() => ({})), this.texts]);
    const request = { ...input, seed: picture.seed, num_outputs: 1, ...ownRequest(texts) };
    return Object.fromEntries(Object.entries(request).filter(([, value]) => value !== null && value !== ""));
  }

  async tell(name) {
    const { picture } = this;
    const request = await this.request();
    this.node.close();
    this.dispatchEvent(new CustomEvent(name, { detail: { picture, request } }));
  }

  /** Pins this picture to the left; the arrows then change the right one. */
  compare() {
    if (this.pinned) this.pinned = null;
    else {
      this.pinned = this.picture;
      this.toasts.say(words.compareHint);
    }
    this.compareButton.setAttribute("aria-pressed", String(Boolean(this.pinned)));
    this.node.classList.toggle("comparing", Boolean(this.pinned));
    if (this.pinned) {
      this.stage.compare(this.picture.url, this.picture.job.prompt);
      this.move(1);
    } else {
      this.stage.compare(null);
      this.stage.show(this.picture.url, this.picture.job.prompt);
    }
  }

  async download() {
    try {
      saveFile(await this.api.picture(this.picture.url), this.picture.fileName);
    } catch (error) {
      this.toasts.say(error.message, "bad");
    }
  }

  async copy(text) {
    await copyText(text).then(() => this.toasts.say(words.copied), () => this.toasts.say(words.notCopied, "bad"));
  }

  /** Deletes the job at once if it has one picture, else asks first: the others go with it. */
  async delete() {
    const { job } = this.picture;
    if (job.pictures.length > 1 && !this.isSure) return this.sure(true);
    try {
      await this.jobs.delete(job);
      this.toasts.say(words.deleted);
    } catch (error) {
      this.toasts.say(error.message, "bad");
    }
  }

  sure(isSure) {
    this.isSure = isSure;
    this.deleteButton.querySelector("span").textContent = isSure ? words.deleteSure : words.delete;
    this.deleteButton.classList.toggle("danger", isSure);
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event)) return;
    // The arrows belong to the slider while it has the focus.
    if (event.target === this.stage.slider && event.key.startsWith("Arrow")) return;
    const act = {
      ArrowLeft: () => this.move(-1), ArrowRight: () => this.move(1), "+": () => this.stage.zoomTo(this.stage.scale * 1.5),
      "-": () => this.stage.zoomTo(this.stage.scale / 1.5), "0": () => this.stage.reset(), Delete: () => this.delete(),
      d: () => this.download(), c: () => this.compare(),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  closed() {
    if (this.pinned) this.compare();
    this.gallery.focus(this.picture);
    this.stage.reset();
    this.picture = null;
  }
}

/** The request that a picture's file says it was drawn from. */
function ownRequest({ stablehand = "{}" }) {
  try {
    return readJson(stablehand) ?? {};
  } catch {
    // Another program has written it.
    return {};
  }
}
