// The models on the server's disk: pulled with progress, checked, removed.

import { bytesText } from "./bytes.js";
import { h, uniqueId } from "./element.js";
import { sureButton } from "./sure_button.js";
import { words } from "./words.js";

const LOOK_MS = 1000;
const RUNNING = new Set(["IN_PROGRESS", "CANCELLING"]);

export class LibraryView {
  /** `changed` is called when what requests can use has changed. */
  constructor({ api, toasts, changed }) {
    Object.assign(this, { api, toasts, changed, mayChange: false, shown: "", dismissed: null });
    const id = uniqueId("pull");
    this.name = h("input", { id, type: "text", required: true, spellcheck: false, autocomplete: "off", maxLength: 2048, placeholder: words.pullHint, "aria-describedby": `${id}-help` });
    this.kind = h("select", { "aria-label": words.pullKind }, Object.entries(words.kinds).map(([value, text]) => h("option", { value }, text)));
    this.button = h("button", { type: "submit", class: "quiet" }, words.pull);
    this.form = h("form", { class: "pull", hidden: true, onsubmit: (event) => this.submitted(event) },
      h("label", { for: id, class: "help", id: `${id}-help` }, words.pullAbout), h("div", { class: "pull-row" }, this.name, this.kind, this.button));
    this.state = h("p", { role: "status" });
    this.bar = h("progress", { max: 1, "aria-label": words.progress, hidden: true });
    this.stop = h("button", { type: "button", class: "quiet", onclick: () => this.act(() => this.api.cancelTask(this.task.id)) }, words.cancel);
    this.close = h("button", { type: "button", class: "quiet", onclick: () => this.dismiss() }, words.close);
    this.report = h("pre", { class: "report", tabIndex: 0, "aria-label": words.report, hidden: true });
    this.work = h("div", { class: "task", hidden: true }, h("div", { class: "task-head" }, this.state, this.stop, this.close), this.bar, this.report);
    this.items = h("ul", { class: "items", role: "list", "aria-label": words.library });
    this.help = h("p", { class: "help", hidden: true }, words.libraryClosed);
    this.node = h("section", { class: "library" }, h("h2", {}, words.library), this.form, this.help, this.work, this.items);
  }

  async look() {
    const library = await this.api.library();
    this.mayChange = library.may_change;
    this.form.hidden = !this.mayChange;
    this.help.hidden = this.mayChange;
    this.showTask(library.task);
    this.showItems(library);
  }

  /** The list is made anew only when it has changed, so that a button keeps its focus. */
  showItems({ items, unfinished }) {
    const shown = JSON.stringify([this.mayChange, items, unfinished]);
    if (shown === this.shown) return;
    this.shown = shown;
    this.items.replaceChildren(...items.map((item) => this.item(item)), ...unfinished.map((part) => this.part(part)));
  }

  item({ kind, name, form, bytes, place, endpoints }) {
    const facts = [kind !== "model" && words.kinds[kind], form, bytes > 0 && bytesText(bytes), words.places[place], endpoints.length > 0 && words.usedBy(endpoints)];
    return h("li", {},
      h("div", {}, h("p", { class: "item-name" }, name), h("p", { class: "help" }, facts.filter(Boolean).join(" · "))),
      this.mayChange && h("div", { class: "actions" },
        kind === "model" && h("button", { type: "button", class: "quiet", "aria-label": words.checkThe(name), onclick: () => this.begin(() => this.api.checkModel(name)) }, words.check),
        place === "pulled" && endpoints.length === 0 && this.remover(kind, name)));
  }

  part({ kind, name, bytes }) {
    return h("li", {},
      h("div", {}, h("p", { class: "item-name" }, name), h("p", { class: "help" }, [kind !== "model" && words.kinds[kind], words.unfinished(bytesText(bytes))].filter(Boolean).join(" · "))),
      this.mayChange && h("div", { class: "actions" }, this.remover(kind, name)));
  }

  remover(kind, name) {
    return sureButton({
      label: words.remove, question: words.removeSure, name: words.removeLora(name),
      act: () => this.act(async () => {
        const { bytes } = await this.api.removeModel(kind, name);
        this.toasts.say(words.removed(name, bytesText(bytes)));
        await this.look();
        this.name.focus();
        if (kind !== "model") await this.changed();
      }),
    });
  }

  submitted(event) {
    event.preventDefault();
    const name = this.name.value.trim();
    if (name) this.begin(() => this.api.pullModel(this.kind.value, name));
  }

  begin(call) {
    return this.act(async () => {
      this.dismissed = null;
      this.showTask(await call());
      this.work.scrollIntoView({ block: "nearest" });
    });
  }

  async act(call) {
    await call().catch((refusal) => {
      if (refusal.status === undefined) throw refusal;
      this.toasts.say(refusal.message, "bad");
    });
  }

  showTask(task) {
    const before = this.task;
    this.task = task;
    this.work.hidden = !task || task.id === this.dismissed;
    this.button.disabled = false;
    if (!task) return;
    const isRunning = RUNNING.has(task.status);
    this.button.disabled = isRunning;
    const sentence = this.sentence(task);
    // A screen reader would read each byte.
    this.state.setAttribute("aria-live", isRunning && before?.status === task.status ? "off" : "polite");
    this.state.textContent = sentence;
    this.state.classList.toggle("error", task.status === "FAILED");
    this.bar.hidden = !isRunning;
    if (task.total) this.bar.value = Math.min(1, task.bytes / task.total);
    else this.bar.removeAttribute("value");
    this.stop.hidden = !isRunning;
    this.stop.disabled = task.status === "CANCELLING";
    this.close.hidden = isRunning;
    this.report.hidden = !task.report;
    if (this.report.textContent !== (task.report ?? "")) this.report.textContent = task.report ?? "";
    if (before?.id === task.id && RUNNING.has(before.status) && !isRunning) this.ended(task);
    if (isRunning) this.followSoon();
  }

  sentence({ work, name, status, bytes, total, note, error }) {
    if (status === "CANCELLING") return words.cancelling(name);
    if (status === "CANCELLED") return work === "pull" ? words.pullCancelled(name) : words.cancelled;
    if (status === "FAILED") return work === "pull" ? words.pullFailed(name, error) : error;
    if (work === "check") return status === "COMPLETED" ? words.draws(name) : words.checking(name);
    if (status === "COMPLETED") return note;
    const far = total ? words.bytesOf(bytesText(bytes), bytesText(total)) : bytesText(bytes);
    return [words.pulling(name, far), note].filter(Boolean).join(" · ");
  }

  ended(task) {
    if (task.work === "pull" && task.status === "COMPLETED") this.name.value = "";
    this.act(async () => {
      await this.look();
      if (task.kind !== "model") await this.changed();
    });
  }

  /** Looks at the task for as long as it runs and the view is open. */
  followSoon() {
    clearTimeout(this.timer);
    if (this.isOpen) this.timer = setTimeout(() => this.act(async () => this.showTask(await this.api.task(this.task.id))), LOOK_MS);
  }

  dismiss() {
    this.dismissed = this.task.id;
    this.work.hidden = true;
    this.name.focus();
  }
}
