// A prompt: weights by the keyboard, completions, and its length in the model's tokens.

import { Completions } from "./completions.js";
import { h, uniqueId } from "./element.js";
import { words } from "./words.js";

const COUNT_AFTER_MS = 400;

export class PromptField extends EventTarget {
  /** `count` answers `{tokens, chunks, room}` for a text; `names` what there is to complete: `{loras, embeddings}`. */
  constructor({ label, hint, help, rows, count, names }) {
    super();
    this.count = count;
    const id = uniqueId("prompt");
    this.length = h("span", { class: "length", "aria-live": "off" });
    this.area = h("textarea", {
      id, rows, placeholder: hint, maxLength: 65536, spellcheck: false, autocomplete: "off",
      "aria-autocomplete": "list", "aria-describedby": help ? `${id}-help` : null,
      oninput: () => this.changed(),
      onkeydown: (event) => this.pressed(event),
    });
    this.completions = new Completions(this.area, names, () => this.changed());
    this.node = h("div", { class: "field prompt" },
      h("div", { class: "field-head" }, h("label", { for: id }, label), this.length),
      h("div", { class: "grows" }, this.area, this.completions.node),
      help && h("p", { class: "help", id: `${id}-help` }, help));
  }

  get value() {
    return this.area.value;
  }

  set value(text) {
    this.area.value = text ?? "";
    this.changed();
  }

  changed() {
    this.node.querySelector(".grows").dataset.value = this.area.value;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.measure(), COUNT_AFTER_MS);
    this.dispatchEvent(new Event("change"));
  }

  async measure() {
    const text = this.area.value;
    if (!text.trim()) {
      this.length.textContent = "";
      return;
    }
    const length = await this.count(text).catch((refusal) => ({ refused: refusal.message }));
    if (text !== this.area.value || !length) return;
    this.length.textContent = length.refused ?? words.tokens(length.tokens, length.room, length.chunks);
    this.length.classList.toggle("bad", Boolean(length.refused));
  }

  pressed(event) {
    if (this.completions.pressed(event)) return;
    if ((event.ctrlKey || event.metaKey) && ["ArrowUp", "ArrowDown"].includes(event.key)) {
      event.preventDefault();
      this.weigh(event.key === "ArrowUp" ? 1 : -1);
    }
  }

  /** Makes the selected words, or the word at the cursor, a tenth heavier or lighter, as A1111's keys do. */
  weigh(direction) {
    const { value } = this.area;
    const range = attention(value, this.area.selectionStart, this.area.selectionEnd);
    if (!range) return;
    const weight = Math.round(10 * Math.min(10, Math.max(0, range.weight + direction / 10))) / 10;
    const text = weight === 1 ? range.text : `(${range.text}:${weight})`;
    this.replace(range.start, range.end, text);
    const at = range.start + (weight === 1 ? 0 : 1);
    this.area.setSelectionRange(at, at + range.text.length);
  }

  /** Replaces a part of the text in a way that the browser's own undo knows. */
  replace(start, end, text) {
    this.area.focus();
    this.area.setSelectionRange(start, end);
    const isDone = text ? document.execCommand("insertText", false, text) : document.execCommand("delete");
    if (!isDone) this.area.setRangeText(text, start, end, "end");
    this.changed();
  }
}

/** What a weight at this selection is for: `{start, end, text, weight}`, with the brackets that are there already. */
export function attention(value, start, end) {
  for (const match of value.matchAll(/\(((?:[^():\\]|\\.)+):(\d+(?:\.\d+)?)\)/g)) {
    const last = match.index + match[0].length;
    if (start >= match.index && end <= last) {
      return { start: match.index, end: last, text: match[1], weight: Number(match[2]) };
    }
  }
  if (start === end) {
    while (start > 0 && /[\p{L}\p{N}_'-]/u.test(value[start - 1])) start -= 1;
    while (end < value.length && /[\p{L}\p{N}_'-]/u.test(value[end])) end += 1;
  }
  while (start < end && /\s/.test(value[start])) start += 1;
  while (end > start && /\s/.test(value[end - 1])) end -= 1;
  return start < end ? { start, end, text: value.slice(start, end), weight: 1 } : null;
}
