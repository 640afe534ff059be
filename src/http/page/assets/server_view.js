// The operator's view: endpoints, workers, queue, memory, failures, and what other programs need to connect.

import { bytesText } from "./bytes.js";
import { h } from "./element.js";
import { icon } from "./icons.js";
import { writeJson } from "./json.js";
import { LibraryView } from "./library_view.js";
import { readMetrics } from "./metrics.js";
import { copyText } from "./save_file.js";
import { sureButton } from "./sure_button.js";
import { words } from "./words.js";

const LOOK_MS = 4000;

export class ServerView {
  constructor({ api, toasts, jobs, changed }) {
    Object.assign(this, { api, toasts, jobs });
    this.endpoints = h("div", { class: "cards" });
    this.library = new LibraryView({ api, toasts, changed });
    this.memory = h("dl", { class: "facts" });
    this.failures = h("ul", { class: "failures" });
    this.clients = h("ul", { class: "clients" });
    this.version = h("p", { class: "help" });
    this.node = h("div", { class: "server", hidden: true },
      h("section", {}, h("h2", {}, words.models), this.endpoints),
      this.library.node,
      h("section", {}, h("h2", {}, words.memory), this.memory),
      h("section", {}, h("h2", {}, words.failures), this.failures),
      h("section", {}, h("h2", {}, words.clients), h("p", { class: "help" }, words.clientsAbout), this.clients),
      this.version);
  }

  async start(index, models) {
    this.names = index.endpoints;
    this.models = models;
    this.version.textContent = words.version(index.version);
    const addresses = [{ title: "API", path: "/v2", needsKey: true }, ...index.surfaces];
    this.clients.replaceChildren(...addresses.map(({ title, path, needsKey }) => {
      const address = new URL(path.replace(/^\//, ""), this.api.root).href;
      return h("li", {}, h("span", {}, title, " ", h("span", { class: "help" }, needsKey ? words.needsKey : words.needsNoKey)), h("code", {}, address),
        h("button", { type: "button", class: "icon", title: words.copyAddress(title), "aria-label": words.copyAddress(title), onclick: () => this.copy(address) }, icon("copy")));
    }));
  }

  /** Looks at the server for as long as the view is open. */
  set isOpen(isOpen) {
    this.node.hidden = !isOpen;
    this.library.isOpen = isOpen;
    clearTimeout(this.timer);
    if (isOpen) this.look();
  }

  async look() {
    try {
      const seen = [];
      for (const name of this.names) seen.push([name, await this.models(name), await this.api.health(name)]);
      this.showCards(seen);
      await this.library.look();
      this.showMemory(readMetrics(await this.api.metrics()));
      this.showFailures();
    } catch (refusal) {
      if (refusal.status === undefined) throw refusal;
    }
    clearTimeout(this.timer);
    if (!this.node.hidden) this.timer = setTimeout(() => this.look(), LOOK_MS);
  }

  /** They are made anew only when something has changed, so that a button keeps its focus. */
  showCards(seen) {
    const shown = writeJson(seen);
    if (shown === this.shown) return;
    this.shown = shown;
    this.endpoints.replaceChildren(...seen.map((one) => this.card(...one)));
  }

  card(name, model, { jobs, workers }) {
    const takes = Object.entries(words.takes).filter(([field]) => model.fields.includes(field)).map(([, text]) => text);
    const row = (term, ...value) => [h("dt", {}, term), h("dd", {}, value)];
    const list = (names) => names.length ? names.join(", ") : words.none;
    const states = Object.entries(words.states).filter(([state]) => workers[state]).map(([state, text]) => `${workers[state]} ${text}`);
    return h("article", { class: "card" },
      h("h3", {}, model.name, model.name !== name && h("span", { class: "help" }, ` ${name}`)),
      h("p", { class: "help" }, takes.join(" · ")),
      h("dl", { class: "facts" },
        row(words.workers, states.join(", ") || words.none),
        row(words.queueOf, Object.entries(words.counts).map(([state, text]) => `${jobs[state]} ${text}`).join(", ")),
        row(words.groups.loras, list(model.loras)),
        row(words.learned, list(model.embeddings)),
        row(words.groups.controlnet, list(model.controlnets)),
        row(words.upscalers, list(model.upscalers))),
      jobs.inQueue > 0 && sureButton({ label: words.purge, question: words.purgeSure, act: () => this.purge(name) }));
  }

  async purge(name) {
    try {
      const { removed } = await this.api.purge(name);
      this.toasts.say(words.purged(removed));
      this.jobs.lookSoon(0);
    } catch (refusal) {
      this.toasts.say(refusal.message, "bad");
    }
    this.look();
  }

  showMemory(metrics) {
    const facts = [];
    for (const { labels, value } of metrics.stablehand_device_memory_bytes ?? []) {
      const used = metrics.stablehand_device_memory_used_bytes?.find((one) => one.labels.device === labels.device);
      facts.push([labels.device, `${bytesText(used?.value ?? 0)} / ${bytesText(value)}`, (used?.value ?? 0) / value]);
    }
    const resident = metrics.process_resident_memory_bytes?.[0];
    if (resident) facts.push([words.process, bytesText(resident.value)]);
    const database = metrics.stablehand_database_bytes?.[0];
    if (database) facts.push([words.database, bytesText(database.value)]);
    this.memory.replaceChildren(...facts.flatMap(([term, text, share]) => [
      h("dt", {}, term), h("dd", {}, text, share !== undefined && h("meter", { value: share, max: 1, high: 0.9, "aria-label": term })),
    ]));
  }

  showFailures() {
    const failed = this.jobs.all.filter((job) => job.error).slice(0, 20);
    this.failures.replaceChildren(...(failed.length ? failed.map((job) => h("li", {}, h("p", {}, job.error), h("p", { class: "help" }, new Date(job.created).toLocaleTimeString(), " · ", job.prompt)))
      : [h("li", { class: "help" }, words.noFailures)]));
  }

  async copy(text) {
    await copyText(text).then(() => this.toasts.say(words.copied), () => this.toasts.say(words.notCopied, "bad"));
  }
}
