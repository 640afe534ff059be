// Completions in a prompt: LoRAs behind `<lora:`, and the words of textual inversions.

import { h, uniqueId } from "./element.js";
import { words } from "./words.js";

const MOST = 8;

export class Completions {
  constructor(area, names, changed) {
    Object.assign(this, { area, names, changed, found: [], chosen: 0 });
    this.node = h("ul", { class: "completions", role: "listbox", id: uniqueId("completions"), "aria-label": words.completions, hidden: true });
    area.setAttribute("aria-controls", this.node.id);
    area.addEventListener("input", () => this.look());
    area.addEventListener("blur", () => this.hide());
  }

  /** Looks for names that begin as the text before the cursor ends. */
  look() {
    const before = this.area.value.slice(0, this.area.selectionStart);
    const { loras, embeddings } = this.names();
    const lora = before.match(/<(?:lora|lyco):([^<>:]*)$/);
    const word = before.match(/(?:embedding:)?([\p{L}\p{N}_.-]{2,})$/u);
    const matching = (all, typed) => {
      const wanted = typed.toLowerCase();
      const rank = (name) => (name.toLowerCase().startsWith(wanted) ? 0 : 1);
      return all.filter((name) => name.toLowerCase().includes(wanted)).sort((a, b) => rank(a) - rank(b)).slice(0, MOST);
    };
    if (lora) this.show(matching(loras, lora[1]).map((name) => ({ name, typed: lora[1].length, text: `${name}:1>` })));
    else if (word) {
      const found = matching(embeddings, word[1]).filter((name) => name !== word[1]);
      this.show(found.map((name) => ({ name, typed: word[1].length, text: name })));
    } else this.hide();
  }

  show(found) {
    this.found = found;
    this.chosen = 0;
    this.node.replaceChildren(...found.map(({ name }, index) => h("li", {
      role: "option", id: `${this.node.id}-${index}`, "aria-selected": String(index === 0),
      onpointerdown: (event) => {
        event.preventDefault();
        this.chosen = index;
        this.accept();
      },
    }, name)));
    this.node.hidden = found.length === 0;
    this.mark();
  }

  hide() {
    this.show([]);
  }

  mark() {
    [...this.node.children].forEach((item, index) => item.setAttribute("aria-selected", String(index === this.chosen)));
    if (this.found.length) this.area.setAttribute("aria-activedescendant", `${this.node.id}-${this.chosen}`);
    else this.area.removeAttribute("aria-activedescendant");
  }

  /** Takes the keys of the open list. True: the key was for it. */
  pressed(event) {
    if (!this.found.length || event.ctrlKey || event.metaKey) return false;
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (move) {
      this.chosen = (this.chosen + move + this.found.length) % this.found.length;
      this.mark();
    } else if (event.key === "Enter" || event.key === "Tab") this.accept();
    else if (event.key === "Escape") this.hide();
    else return false;
    event.preventDefault();
    event.stopPropagation();
    return true;
  }

  accept() {
    const { typed, text } = this.found[this.chosen];
    const at = this.area.selectionStart;
    this.area.setRangeText(text, at - typed, at, "end");
    this.hide();
    this.changed();
  }
}
