// Asks for the key, once.

import { h, uniqueId } from "./element.js";
import { words } from "./words.js";

export class Door {
  constructor(keyring) {
    this.keyring = keyring;
    const id = uniqueId("key");
    this.input = h("input", { id, type: "password", autocomplete: "current-password", required: true, spellcheck: false, "aria-describedby": `${id}-error` });
    this.keep = h("input", { id: `${id}-keep`, type: "checkbox" });
    this.error = h("p", { class: "error", role: "alert", id: `${id}-error`, hidden: true });
    this.node = h("dialog", { class: "door", "aria-labelledby": `${id}-title`, oncancel: (event) => event.preventDefault() },
      h("form", { method: "dialog", noValidate: true, onsubmit: (event) => this.submitted(event) },
        // Password managers keep a key under a name.
        h("input", { type: "text", name: "username", autocomplete: "username", value: words.name, hidden: true, tabIndex: -1 }),
        h("h2", { id: `${id}-title` }, words.door), h("p", { class: "help" }, words.doorAbout),
        h("div", { class: "field" }, h("label", { for: id }, words.key), this.input),
        this.error,
        h("div", { class: "field flag" }, this.keep, h("label", { for: `${id}-keep` }, words.keepKey)),
        h("button", { type: "submit", class: "primary" }, words.enter)));
  }

  /** Opens, and says why if a key was refused. */
  open(wasRefused) {
    this.say(wasRefused ? words.wrongKey : null);
    this.keep.checked = this.keyring.isOnDevice;
    if (!this.node.open) this.node.showModal();
    this.input.select();
  }

  close() {
    if (this.node.open) this.node.close();
  }

  say(sentence) {
    this.error.textContent = sentence ?? "";
    this.error.hidden = !sentence;
  }

  submitted(event) {
    event.preventDefault();
    const key = this.input.value.trim();
    if (!key) return this.say(words.noKey);
    this.keyring.keep(key, this.keep.checked);
    return this.tried?.();
  }
}
