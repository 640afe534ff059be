// The finished pictures that the server still keeps, newest first.

import { h } from "./element.js";
import { icon } from "./icons.js";
import { saveFile } from "./save_file.js";
import { words } from "./words.js";
import { Zip } from "./zip.js";

const TICK_MS = 15_000;

export class Gallery extends EventTarget {
  constructor({ jobs, api, toasts }) {
    super();
    Object.assign(this, { jobs, api, toasts });
    this.items = new Map();
    this.list = h("ul", { class: "pictures", role: "list", "aria-label": words.pictures });
    // The jobs come before the pictures, in the same rows: a job that ends becomes its picture where it stands.
    this.tiles = h("div", { class: "tiles" }, this.list);
    this.total = h("span", { class: "total" });
    this.downloads = h("button", { type: "button", class: "quiet", onclick: () => this.downloadAll() }, icon("save"), h("span", {}, words.downloadAll));
    this.examples = h("div", { class: "examples" }, words.examples.map((text) => h("button", {
      type: "button", class: "chip", onclick: () => this.dispatchEvent(new CustomEvent("example", { detail: text })),
    }, text)));
    this.empty = h("div", { class: "empty", hidden: true }, h("span", { class: "empty-mark" }, icon("picture")), h("p", { class: "empty-title" }, words.empty), h("p", { class: "help" }, words.emptyAbout), this.examples);
    this.head = h("div", { class: "gallery-head" }, h("h2", {}, words.pictures, this.total), this.downloads);
    this.node = h("section", { class: "gallery", id: "pictures", tabIndex: -1, "aria-label": words.pictures }, this.head, this.tiles, this.empty);
    this.downloads.hidden = true;
    jobs.addEventListener("change", ({ detail }) => this.take(detail));
    jobs.addEventListener("gone", ({ detail }) => this.remove(detail));
    setInterval(() => this.tick(), TICK_MS);
  }

  /** The pictures in the order in which they are shown. */
  get pictures() {
    return this.jobs.all.flatMap((job) => job.pictures);
  }

  take(job) {
    if (job.pictures.length === 0) {
      this.remove(job);
      return this.summary();
    }
    if (!job.input && !job.knownPrompt && job.pictures[0].url && !this.items.has(job.pictures[0].key)) this.jobs.findPrompt(job).catch(() => {});
    for (const picture of job.pictures) {
      const known = this.items.get(picture.key);
      if (known) {
        known.querySelector("img")?.setAttribute("alt", job.prompt || words.pictures);
        continue;
      }
      const item = this.item(picture);
      this.items.set(picture.key, item);
      this.place(item, picture);
    }
    this.summary();
  }

  /** Puts a picture where it belongs: newer jobs before older ones, the pictures of a job in their order. */
  place(item, picture) {
    const order = ({ job, index }) => [-job.created, index];
    const [time, index] = order(picture);
    for (const other of this.list.children) {
      const [otherTime, otherIndex] = order(other.picture);
      if (otherTime > time || (otherTime === time && otherIndex > index)) return this.list.insertBefore(item, other);
    }
    return this.list.append(item);
  }

  item(picture) {
    const { job, url } = picture;
    const { width, height } = sizeOf(job.input);
    const button = h("button", { type: "button", class: "picture", "aria-haspopup": "dialog", onclick: () => this.dispatchEvent(new CustomEvent("open", { detail: picture })) });
    if (url) {
      button.append(h("img", { src: url, alt: job.prompt || words.pictures, loading: "lazy", decoding: "async", width, height, draggable: true }));
    } else {
      button.disabled = true;
      button.append(h("span", { class: "withheld" }, picture.isWithheld ? words.withheld : words.elsewhere));
    }
    const age = h("span", { class: "age" });
    const item = h("li", {}, button, age);
    item.picture = picture;
    item.age = age;
    this.age(item);
    return item;
  }

  /** Says how long the server keeps the picture. */
  age(item) {
    const { expires } = item.picture;
    if (!expires) return;
    const minutes = (expires - Date.now() - this.api.skew) / 60_000;
    item.age.textContent = words.minutes(Math.max(0, minutes));
    item.age.title = words.forgottenIn(minutes);
    item.classList.toggle("soon", minutes < 5);
    if (minutes <= 0) this.jobs.drop(item.picture.job);
  }

  tick() {
    for (const item of [...this.list.children]) this.age(item);
  }

  remove(job) {
    let removed = false;
    for (const [key, item] of this.items) {
      if (item.picture.job.id !== job.id) continue;
      item.remove();
      this.items.delete(key);
      removed = true;
    }
    if (removed) this.summary();
  }

  summary() {
    const count = this.items.size;
    this.total.textContent = count ? String(count) : "";
    this.downloads.hidden = count === 0;
    this.empty.hidden = count > 0 || this.jobs.all.some((job) => job.isActive || job.error);
  }

  focus(picture) {
    this.items.get(picture?.key)?.querySelector("button").focus();
  }

  async downloadAll() {
    const label = this.downloads.querySelector("span");
    const pictures = this.pictures.filter((picture) => picture.url);
    const zip = new Zip();
    this.downloads.disabled = true;
    try {
      for (const [index, picture] of pictures.entries()) {
        label.textContent = words.zipping(index + 1, pictures.length);
        // One that is forgotten meanwhile is left out.
        const blob = await this.api.picture(picture.url).catch(() => null);
        if (blob) await zip.add(picture.fileName, blob);
      }
      if (zip.count) saveFile(zip.blob(), words.zipName);
    } finally {
      label.textContent = words.downloadAll;
      this.downloads.disabled = false;
    }
  }
}

/** The size that a request asked for, so that the page keeps the room for its picture. */
function sizeOf(input) {
  const { width = 512, height = 512 } = input ?? {};
  return { width, height };
}
