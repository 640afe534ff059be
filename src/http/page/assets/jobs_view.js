// The jobs that wait or run, with their previews, and those that failed: tiles before the finished pictures.

import { h } from "./element.js";
import { icon } from "./icons.js";
import { words } from "./words.js";

export class JobsView {
  constructor({ jobs, toasts, gallery }) {
    Object.assign(this, { jobs, toasts, gallery });
    this.tiles = new Map();
    this.dismissed = new Set();
    this.list = h("ul", { class: "jobs", role: "list", "aria-label": words.jobs });
    jobs.addEventListener("change", ({ detail }) => this.show(detail));
    jobs.addEventListener("gone", ({ detail }) => this.remove(detail));
  }

  isShown(job) {
    return job.isActive || (["FAILED", "TIMED_OUT"].includes(job.status) && !this.dismissed.has(job.id));
  }

  remove(job) {
    this.tiles.get(job.id)?.nodes.forEach((node) => node.remove());
    this.tiles.delete(job.id);
    this.list.hidden = this.tiles.size === 0;
  }

  show(job) {
    if (!this.isShown(job)) return this.remove(job);
    let tile = this.tiles.get(job.id);
    if (!tile) {
      tile = new Tile(job, this);
      this.tiles.set(job.id, tile);
      // The newest comes first, so that the one that is drawn now stands where its pictures will be.
      const older = [...this.tiles.values()].filter((other) => other.job.created < job.created).sort((a, b) => b.job.created - a.job.created)[0];
      for (const node of tile.nodes) this.list.insertBefore(node, older?.nodes[0] ?? null);
      this.list.hidden = false;
    }
    return tile.show();
  }

  async act(call) {
    await call().catch((refusal) => this.toasts.say(refusal.message, "bad"));
    this.gallery.summary();
  }

  /** Cancels the newest job. */
  cancelNewest() {
    const newest = this.jobs.active.at(-1);
    if (newest) this.act(() => this.jobs.cancel(newest).then(() => this.toasts.say(words.cancelled)));
  }
}

/** A job: one tile that says how far it is, and an empty one for each further picture. */
class Tile {
  constructor(job, view) {
    this.job = job;
    this.view = view;
    this.preview = h("img", { class: "preview", alt: "", hidden: true });
    this.prompt = h("p", { class: "job-prompt" });
    this.state = h("p", { class: "job-state" });
    this.bar = h("progress", { max: 1 });
    this.act = h("button", { type: "button", class: "quiet" });
    this.close = h("button", { type: "button", class: "icon", onclick: () => this.dismiss() }, icon("close"));
    const main = h("li", { class: "job" }, this.preview, this.prompt, h("div", { class: "job-foot" }, this.state, this.bar, this.act), this.close);
    const further = Array.from({ length: (job.input?.num_outputs ?? 1) - 1 }, () => h("li", { class: "job blank", "aria-hidden": "true" }));
    this.nodes = [main, ...further];
  }

  show() {
    const { job } = this;
    const hasFailed = !job.isActive;
    this.nodes[0].classList.toggle("failed", hasFailed);
    this.prompt.textContent = hasFailed ? `${job.status === "FAILED" ? words.failed : words.timedOut}: ${job.error ?? ""}` : job.prompt;
    this.state.textContent = hasFailed ? "" : this.stateOf(job);
    this.bar.hidden = hasFailed;
    this.bar.setAttribute("aria-label", job.prompt || words.draw);
    this.bar.value = job.progress ? job.progress.step / job.progress.steps : 0;
    this.preview.hidden = !job.preview;
    this.prompt.hidden = Boolean(job.preview);
    if (job.preview && this.preview.src !== job.preview) {
      this.preview.src = job.preview;
      this.preview.alt = words.preview(job.prompt);
    }
    this.act.hidden = !hasFailed;
    this.act.textContent = words.tryAgain;
    this.act.setAttribute("aria-label", `${words.tryAgain}: ${job.prompt}`);
    this.act.onclick = () => this.view.act(() => this.view.jobs.retry(job));
    const label = hasFailed ? words.dismissThe(job.prompt) : words.cancelThe(job.prompt);
    this.close.title = label;
    this.close.setAttribute("aria-label", label);
  }

  stateOf({ status, place, progress }) {
    if (status === "IN_QUEUE") return words.waiting(place);
    if (!progress) return words.starting;
    const { step, steps, left } = progress;
    if (step >= steps) return words.finishing;
    return [words.step(step, steps), typeof left === "number" && words.left(left / 1000)].filter(Boolean).join(" · ");
  }

  /** Cancels a job that goes on; takes one that failed off the page. */
  dismiss() {
    if (this.job.isActive) return this.view.act(() => this.view.jobs.cancel(this.job));
    this.view.dismissed.add(this.job.id);
    this.view.remove(this.job);
    return this.view.gallery.summary();
  }
}
