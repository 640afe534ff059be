// The picture to start from, and the mask that says where to redraw it.

import { h } from "./element.js";
import { icon } from "./icons.js";
import { choosePicture, readPicture } from "./picture_file.js";
import { words } from "./words.js";

export class StartPicture extends EventTarget {
  /** `paint` opens the painting for `{picture, mask, outpaint}` and answers both and `extent`. Null: the model takes no mask. */
  constructor({ paint, failed }) {
    super();
    this.paint = paint;
    this.failed = failed;
    this.picture = null;
    this.mask = null;
    this.outpaint = undefined;
    /** The size of what is drawn: that of the picture with what is added to it. Null if it is not known. */
    this.extent = null;
    this.node = h("div", { class: "start" });
    this.show();
  }

  get() {
    return { ...(this.picture && { init_image: this.picture.uri }), ...(this.mask && { mask: this.mask }), ...(this.outpaint && { outpaint: this.outpaint }) };
  }

  async take(blob, mask = null) {
    try {
      this.picture = await readPicture(blob);
      this.mask = mask;
      this.outpaint = undefined;
      this.extent = { width: this.picture.width, height: this.picture.height };
      this.changed();
    } catch (error) {
      this.failed(error.message);
    }
  }

  /** The pictures of a request. URLs are left as they are: the server fetches them. */
  set({ init_image: uri, mask, outpaint }) {
    this.picture = uri ? { uri: asUri(uri) } : null;
    this.mask = uri && mask ? asUri(mask) : null;
    this.outpaint = (uri && outpaint) || undefined;
    this.extent = null;
    this.changed();
  }

  remove() {
    this.picture = null;
    this.mask = null;
    this.outpaint = undefined;
    this.extent = null;
    this.changed();
    this.node.querySelector("button")?.focus();
  }

  changed() {
    this.show();
    this.dispatchEvent(new Event("change"));
  }

  async openPainting() {
    const painted = await this.paint({ picture: this.picture, mask: this.mask, outpaint: this.outpaint });
    if (!painted) return;
    this.mask = painted.mask;
    if (JSON.stringify(painted.outpaint) !== JSON.stringify(this.outpaint)) this.extent = painted.extent;
    this.outpaint = painted.outpaint;
    this.changed();
  }

  show() {
    if (!this.picture) {
      this.node.replaceChildren(choosePicture(words.choosePicture, (file) => this.take(file)), h("span", { class: "help" }, words.choosePictureHint));
      return;
    }
    const isShown = /^(data|blob):/.test(this.picture.uri);
    const thumb = h("div", { class: "thumb" },
      isShown ? h("img", { src: this.picture.uri, alt: words.start }) : h("span", { class: "help" }, this.picture.uri),
      isShown && this.mask && h("span", { class: "mask" }));
    thumb.querySelector(".mask")?.style.setProperty("mask-image", `url("${this.mask}")`);
    const remove = h("button", { type: "button", class: "icon", title: words.removePicture, "aria-label": words.removePicture, onclick: () => this.remove() }, icon("close"));
    const paint = this.paint && isShown && h("button", { type: "button", class: "quiet", onclick: () => this.openPainting() }, icon("brush"), this.mask ? words.paintAgain : this.outpaint ? words.extendAgain : words.paint);
    const unmask = this.mask && h("button", {
      type: "button", class: "quiet", onclick: () => {
        this.mask = null;
        this.changed();
      },
    }, words.removeMask);
    this.node.replaceChildren(thumb, h("div", { class: "start-tools" }, remove, paint, unmask, 
      this.outpaint && h("span", { class: "help" }, words.extended(this.outpaint)), this.mask && h("span", { class: "help" }, words.masked)));
  }
}

/** Plain base64 as a data URI, for the browser. */
function asUri(text) {
  return /^(data:|https?:)/i.test(text) ? text : `data:image/png;base64,${text}`;
}
