// Pictures that are dropped on the page or pasted into it.

import { h } from "./element.js";
import { readInfotext } from "./infotext.js";
import { readJson } from "./json.js";
import { pictureIn } from "./picture_file.js";
import { pngTexts } from "./png_texts.js";
import { words } from "./words.js";

export class Drops extends EventTarget {
  /** Tells of `settings` (the request that a picture carries) and of `picture` (a file to start from). */
  constructor() {
    super();
    this.node = h("div", { class: "drop", hidden: true, "aria-hidden": "true" }, h("p", {}, words.dropHere));
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
    let depth = 0;
    const isOver = (over) => {
      this.node.hidden = !over;
    };
    addEventListener("dragenter", (event) => {
      if (!hasFiles(event)) return;
      depth += 1;
      isOver(true);
    });
    addEventListener("dragleave", () => {
      depth = Math.max(0, depth - 1);
      if (depth === 0) isOver(false);
    });
    addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      depth = 0;
      isOver(false);
      const file = pictureIn(event.dataTransfer);
      if (!file) return;
      event.preventDefault();
      if (event.target.closest?.(".start")) this.tell("picture", file);
      else this.take(file);
    });
    addEventListener("paste", (event) => {
      const file = pictureIn(event.clipboardData);
      if (!file || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.tell("picture", file);
    });
  }

  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** A picture with settings fills the form; another one is the starting picture. */
  async take(file) {
    const settings = await settingsOf(file);
    if (settings) this.tell("settings", settings);
    else this.tell("bare", file);
  }
}

/** The request that a picture carries: as we write it, or as A1111 does. Null if there is none. */
export async function settingsOf(file) {
  const texts = await pngTexts(file);
  try {
    const own = readJson(texts.stablehand ?? "null");
    if (own?.constructor === Object && ["string", "undefined"].includes(typeof own.prompt)) return own;
  } catch {
    // The other text may say it.
  }
  return texts.parameters ? readInfotext(texts.parameters) : null;
}
