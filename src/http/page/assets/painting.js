// The painting: a mask over the starting picture, by mouse, finger, pen or keyboard.

import { h, isTyping, uniqueId } from "./element.js";
import { icon } from "./icons.js";
import { MaskCanvas } from "./mask_canvas.js";
import { OutpaintFrame } from "./outpaint_frame.js";
import { loadImage } from "./picture_file.js";
import { makeSlider, slide } from "./slider.js";
import { sureButton } from "./sure_button.js";
import { words } from "./words.js";

const LARGEST_BRUSH = 300;

export class Painting {
  constructor() {
    const id = uniqueId("painting");
    this.size = 60;
    this.erases = false;
    this.cursor = h("span", { class: "brush-cursor", hidden: true });
    this.sheet = h("div", { class: "paint-sheet", role: "application", tabIndex: 0, "aria-label": words.paintArea });
    this.stage = h("div", {
      class: "paint-stage", onwheel: (event) => this.wheel(event), ondragstart: (event) => event.preventDefault(),
      onpointerdown: (event) => this.begin(event), onpointermove: (event) => this.move(event),
      onpointerup: (event) => this.end(event), onpointercancel: (event) => this.end(event), onpointerleave: () => this.hideCursor(),
    }, this.sheet, this.cursor);
    this.brush = this.tool("brush", `${words.brush} (B)`, () => this.choose(false));
    this.eraser = this.tool("eraser", `${words.eraser} (E)`, () => this.choose(true));
    this.sizeInput = makeSlider({ id: `${id}-size`, min: 1, max: LARGEST_BRUSH, value: this.size, oninput: (event) => this.resize(Number(event.target.value)) });
    this.featherInput = makeSlider({ id: `${id}-feather`, min: 0, max: 64, value: 0, oninput: () => this.showFeather() });
    this.featherRow = h("label", { class: "paint-slider" }, words.feather, this.featherInput);
    this.extras = h("div", { class: "paint-extras" });
    this.discard = sureButton({ label: words.dismiss, question: words.dismissSure, act: () => this.node.close(), isNeeded: () => this.isChanged });
    this.node = h("dialog", { class: "painting", "aria-label": words.painting, onkeydown: (event) => this.pressed(event), oncancel: (event) => this.cancelled(event), onclose: () => this.finish(null) },
      h("div", { class: "paint-bar", role: "toolbar", "aria-label": words.painting },
        this.brush, this.eraser,
        h("label", { class: "paint-slider" }, words.brushSize, this.sizeInput), this.featherRow,
        this.tool("undo", `${words.undo} (Ctrl Z)`, () => this.mask.undo()),
        this.tool("redo", `${words.redo} (Ctrl Y)`, () => this.mask.redo()),
        this.tool("invert", `${words.invert} (I)`, () => this.mask.invert()),
        this.tool("bin", words.clear, () => this.mask.clear()),
        h("span", { class: "spread" }),
        this.discard,
        h("button", { type: "button", class: "primary", onclick: () => this.done() }, words.done)),
      h("div", { class: "paint-main" }, this.stage, this.extras));
    this.resizes = new ResizeObserver(() => this.fit());
    this.resizes.observe(this.stage);
  }

  tool(name, label, act) {
    return h("button", { type: "button", class: "icon", title: label, "aria-label": label, onclick: act }, icon(name));
  }

  /** Opens for a picture. Answers `{mask, outpaint, extent}`, or null if the painting is discarded. */
  async open({ picture, mask, outpaint }, form) {
    const image = await loadImage(picture.uri);
    this.form = form;
    this.image = image;
    image.alt = "";
    image.className = "paint-picture";
    this.mask = new MaskCanvas(image.naturalWidth, image.naturalHeight);
    this.before = JSON.stringify(outpaint);
    this.at = null;
    this.isPenDown = false;
    if (mask) await this.mask.load(mask);
    const feather = form.fields.get("mask_blur");
    this.featherRow.hidden = !feather;
    slide(this.featherInput, feather?.get() ?? 0);
    this.frame = form.has("outpaint") ? new OutpaintFrame(() => this.sheetWidth / this.image.naturalWidth, outpaint) : null;
    this.frame?.addEventListener("change", () => this.fit());
    this.extras.replaceChildren(...(this.frame ? [this.frame.node] : []));
    this.sheet.replaceChildren(image, this.mask.canvas, ...(this.frame?.edges ?? []));
    this.choose(false);
    this.node.showModal();
    this.fit();
    return new Promise((resolve) => {
      this.answer = resolve;
    });
  }

  done() {
    const mask = this.mask.isEmpty ? null : this.mask.uri();
    this.form.fields.get("mask_blur")?.set(Number(this.featherInput.value) || undefined);
    const { left, right, top, bottom } = this.added;
    const extent = { width: this.image.naturalWidth + left + right, height: this.image.naturalHeight + top + bottom };
    this.finish({ mask, outpaint: this.frame?.get(), extent });
    this.node.close();
  }

  /** Whether something would be lost. */
  get isChanged() {
    return Boolean(this.mask?.isChanged) || JSON.stringify(this.frame?.get()) !== this.before;
  }

  /** Escape asks as the button does: a painting takes longer than a press of a key. */
  cancelled(event) {
    if (!this.isChanged || this.discard.classList.contains("danger")) return;
    event.preventDefault();
    this.discard.focus();
    this.discard.click();
  }

  finish(result) {
    this.answer?.(result);
    this.answer = null;
  }

  /** The pixels that are added at each side. */
  get added() {
    return this.frame?.pixels ?? { left: 0, right: 0, top: 0, bottom: 0 };
  }

  /** Fits the picture, with what is added to it, into the window. */
  fit() {
    if (!this.image || !this.node.open) return;
    // What is added counts pixels of the picture itself; without it, the picture gets the size of the result.
    const { width, height } = this.frame?.get() ? { width: this.image.naturalWidth, height: this.image.naturalHeight } : this.form.size.value;
    const { left, right, top, bottom } = this.added;
    const box = this.stage.getBoundingClientRect();
    const scale = Math.min((box.width - 48) / (width + left + right), (box.height - 48) / (height + top + bottom));
    this.shown = scale;
    this.sheetWidth = width * scale;
    const style = { "--width": width * scale, "--height": height * scale, "--left": left * scale, "--right": right * scale, "--top": top * scale, "--bottom": bottom * scale };
    for (const [name, value] of Object.entries(style)) this.sheet.style.setProperty(name, `${value}px`);
    this.showFeather();
  }

  /** The soft edge as it will act: in pixels of the result. */
  showFeather() {
    this.mask?.canvas.style.setProperty("filter", `blur(${(this.featherInput.value * (this.shown ?? 1)) / 2}px)`);
  }

  choose(erases) {
    this.erases = erases;
    this.brush.setAttribute("aria-pressed", String(!erases));
    this.eraser.setAttribute("aria-pressed", String(erases));
  }

  resize(size) {
    this.size = Math.min(LARGEST_BRUSH, Math.max(1, Math.round(size)));
    slide(this.sizeInput, this.size);
    this.showCursor();
  }

  /** Up is larger. */
  wheel(event) {
    event.preventDefault();
    this.resize(this.size * (event.deltaY < 0 ? 1.15 : 1 / 1.15) + (event.deltaY < 0 ? 0.5 : -0.5));
  }

  /** Where the pointer is, in the mask's pixels, and how large its brush is there. */
  point(event) {
    const box = this.mask.canvas.getBoundingClientRect();
    const scale = this.mask.width / box.width;
    const pressure = event.pointerType === "pen" && event.pressure ? 0.3 + 0.9 * event.pressure : 1;
    return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale, size: this.size * scale * pressure };
  }

  begin(event) {
    if (event.button !== 0 || this.pointer !== undefined) return;
    this.pointer = event.pointerId;
    this.stage.setPointerCapture(event.pointerId);
    this.mask.remember();
    this.last = this.point(event);
    this.mask.line(this.last, this.last, { size: this.last.size, erases: this.erases });
  }

  move(event) {
    this.at = { x: event.clientX, y: event.clientY };
    this.showCursor();
    if (event.pointerId !== this.pointer) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const one of passed.length > 0 ? passed : [event]) {
      const next = this.point(one);
      this.mask.line(this.last, next, { size: next.size, erases: this.erases });
      this.last = next;
    }
  }

  end(event) {
    if (event.pointerId !== this.pointer) return;
    // A busy browser may tell the end of a quick stroke before it tells the way there.
    if (event.type === "pointerup") this.move(event);
    this.pointer = undefined;
  }

  /** The arrows move the brush, Space lays it on and lifts it. True: the key was for this. */
  paintByKey({ key, shiftKey }) {
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], " ": [0, 0] }[key] ?? [];
    if (x === undefined) return false;
    const box = this.sheet.getBoundingClientRect();
    this.at ??= { x: box.left + box.width / 2, y: box.top + box.height / 2 };
    const from = this.point({ clientX: this.at.x, clientY: this.at.y });
    const way = shiftKey ? 40 : 8;
    this.at = { x: this.at.x + x * way, y: this.at.y + y * way };
    if (key === " ") {
      this.isPenDown = !this.isPenDown;
      if (this.isPenDown) this.mask.remember();
    }
    if (this.isPenDown) this.mask.line(from, this.point({ clientX: this.at.x, clientY: this.at.y }), { size: from.size, erases: this.erases });
    this.showCursor();
    return true;
  }

  showCursor() {
    if (!this.at) return;
    const box = this.stage.getBoundingClientRect();
    this.cursor.hidden = false;
    this.cursor.style.setProperty("inline-size", `${this.size}px`);
    this.cursor.style.setProperty("translate", `${this.at.x - box.left - this.size / 2}px ${this.at.y - box.top - this.size / 2}px`);
  }

  hideCursor() {
    this.cursor.hidden = true;
  }

  pressed(event) {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (key === "enter") return this.done();
      const act = { z: () => (event.shiftKey ? this.mask.redo() : this.mask.undo()), y: () => this.mask.redo() }[key];
      if (act) {
        event.preventDefault();
        act();
      }
      return undefined;
    }
    if (isTyping(event)) return undefined;
    if (event.target === this.sheet && this.paintByKey(event)) return event.preventDefault();
    return {
      b: () => this.choose(false), e: () => this.choose(true), i: () => this.mask.invert(),
      "[": () => this.resize(this.size - (this.size > 20 ? 10 : 1)), "]": () => this.resize(this.size + (this.size >= 20 ? 10 : 1)),
    }[key]?.();
  }
}
