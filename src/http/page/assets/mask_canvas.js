// The mask as it is painted: strokes, undo and redo. What is painted is opaque.

import { h } from "./element.js";
import { loadImage } from "./picture_file.js";

/** A mask needs no more detail than the largest picture that a model draws. */
const LONGEST_SIDE = 1024;
const MOST_UNDOS = 30;
/** Seen on light and on dark pictures. */
const COLOUR = [232, 62, 140];
const STYLE = `rgb(${COLOUR.join(" ")})`;

export class MaskCanvas {
  constructor(width, height) {
    const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
    this.canvas = h("canvas", { class: "mask-layer", width: Math.round(width * scale), height: Math.round(height * scale) });
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.past = [];
    this.future = [];
  }

  get width() {
    return this.canvas.width;
  }

  get height() {
    return this.canvas.height;
  }

  snapshot() {
    return this.context.getImageData(0, 0, this.width, this.height);
  }

  /** Remembers what is there, before it changes. */
  remember() {
    this.past.push(this.snapshot());
    if (this.past.length > MOST_UNDOS) this.past.shift();
    this.future = [];
  }

  undo() {
    this.exchange(this.past, this.future);
  }

  redo() {
    this.exchange(this.future, this.past);
  }

  exchange(from, to) {
    const state = from.pop();
    if (!state) return;
    to.push(this.snapshot());
    this.context.putImageData(state, 0, 0);
  }

  /** A line from one point to another, in the mask's own pixels. */
  line(from, to, { size, erases }) {
    const { context } = this;
    context.globalCompositeOperation = erases ? "destination-out" : "source-over";
    Object.assign(context, { lineWidth: Math.max(1, size), lineCap: "round", lineJoin: "round", strokeStyle: STYLE });
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
    context.globalCompositeOperation = "source-over";
  }

  clear() {
    this.remember();
    this.context.clearRect(0, 0, this.width, this.height);
  }

  invert() {
    this.remember();
    this.context.globalCompositeOperation = "xor";
    this.context.fillStyle = STYLE;
    this.context.fillRect(0, 0, this.width, this.height);
    this.context.globalCompositeOperation = "source-over";
  }

  get isChanged() {
    return this.past.length > 0;
  }

  get isEmpty() {
    const { data } = this.snapshot();
    for (let at = 3; at < data.length; at += 4) if (data[at] > 127) return false;
    return true;
  }

  /** Reads a mask that is white where it is painted. */
  async load(uri) {
    const image = await loadImage(uri).catch(() => null);
    if (!image) return;
    this.context.drawImage(image, 0, 0, this.width, this.height);
    const pixels = this.snapshot();
    for (let at = 0; at < pixels.data.length; at += 4) pixels.data.set([...COLOUR, pixels.data[at] > 127 ? 255 : 0], at);
    this.context.putImageData(pixels, 0, 0);
  }

  /** White on black, as a request has it. */
  uri() {
    const canvas = h("canvas", { width: this.width, height: this.height });
    const context = canvas.getContext("2d");
    context.drawImage(this.canvas, 0, 0);
    // White where something is painted, black behind all of it.
    for (const [operation, colour] of [["source-in", "#fff"], ["destination-over", "#000"]]) {
      context.globalCompositeOperation = operation;
      context.fillStyle = colour;
      context.fillRect(0, 0, this.width, this.height);
    }
    return canvas.toDataURL("image/png");
  }
}
