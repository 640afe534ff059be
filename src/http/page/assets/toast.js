// Short messages at the edge of the page. A screen reader reads them out.

import { h } from "./element.js";

const SHOWN_MS = 5000;

export class Toasts {
  constructor() {
    // A popover, so that it is shown above an open dialog.
    this.node = h("div", { class: "toasts", role: "status", "aria-live": "polite", popover: "manual" });
  }

  /** `way`: something that can be done about it, as `{label, act}`. */
  say(sentence, kind = "plain", way = null) {
    const press = () => {
      toast.remove();
      way.act();
    };
    const toast = h("p", { class: `toast ${kind}` }, sentence, way && h("button", { type: "button", onclick: press }, way.label));
    this.node.append(toast);
    while (this.node.children.length > 3) this.node.firstChild.remove();
    if (this.node.matches(":popover-open")) this.node.hidePopover();
    this.node.showPopover();
    setTimeout(() => {
      toast.remove();
      if (!this.node.children.length && this.node.matches(":popover-open")) this.node.hidePopover();
    }, kind === "bad" || way ? 2 * SHOWN_MS : SHOWN_MS);
  }
}
