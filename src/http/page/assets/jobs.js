// The jobs of the server, as this page knows them: listed, followed, submitted. The server keeps them; this page keeps
// nothing that it could lose.

import { readJson, writeJson } from "./json.js";
import { pngTexts } from "./png_texts.js";
import { words } from "./words.js";

const POLL_MS = 2500;
const IDLE_MS = 15000;
/** Streams at once. A browser opens six connections to a server, and pictures need some. */
const STREAMS = 2;
const ACTIVE = new Set(["IN_QUEUE", "IN_PROGRESS"]);

/** What a request draws, in words. */
function promptOf(input) {
  return input?.prompt || (input?.upscale ? words.enlarged : input?.prompt);
}

/** One job. `pictures` are `{job, index, url, seed, nsfw}`; `preview` is a data URI. */
class Job {
  constructor(endpoint, id) {
    this.endpoint = endpoint;
    this.id = id;
    this.status = "IN_QUEUE";
    this.input = null;
    this.pictures = [];
    this.progress = null;
    this.preview = null;
    this.place = null;
  }

  /** When it was submitted: the id begins with the time, in milliseconds (UUID version 7). */
  get created() {
    return Number.parseInt(this.id.replace("sync-", "").replaceAll("-", "").slice(0, 12), 16);
  }

  get isActive() {
    return ACTIVE.has(this.status);
  }

  get prompt() {
    return promptOf(this.input) ?? this.knownPrompt ?? "";
  }
}

/** A picture of a job. */
export class Picture {
  constructor(job, index, { image, seed, nsfw }, url) {
    this.job = job;
    this.index = index;
    this.seed = seed;
    this.isWithheld = Boolean(nsfw);
    /** Null if the safety checker withheld it, or if it lies in a client's own bucket. */
    this.url = url;
    this.elsewhere = image && !url ? image : null;
    this.expires = url ? Number(new URL(url).searchParams.get("expires")) * 1000 : null;
  }

  get key() {
    return `${this.job.id}/${this.index}`;
  }

  get fileName() {
    return `${this.seed}-${this.job.id.slice(-6)}-${this.index}.png`;
  }
}

/** Tells of `change` (a job), `gone` (a job) and `connection` (a sentence, or nothing when all is well). */
export class Jobs extends EventTarget {
  constructor(api) {
    super();
    this.api = api;
    this.endpoints = [];
    this.byId = new Map();
    this.streams = new Map();
    this.isConnected = true;
    document.addEventListener("visibilitychange", () => document.hidden || this.lookSoon(0));
  }

  /** All jobs, newest first. */
  get all() {
    return [...this.byId.values()].sort((a, b) => b.created - a.created);
  }

  get active() {
    return this.all.filter((job) => job.isActive).reverse();
  }

  /** Asks no more, until it is started again. */
  stop() {
    clearTimeout(this.timer);
    this.endpoints = [];
    for (const stream of this.streams.values()) stream.abort();
  }

  /** Lists what there is, and goes on looking for as long as the page is open. */
  async start(endpoints) {
    this.endpoints = endpoints;
    for (const endpoint of endpoints) await this.guarded(() => this.list(endpoint, true));
    this.lookSoon(POLL_MS);
  }

  lookSoon(after) {
    clearTimeout(this.timer);
    if (this.endpoints.length) this.timer = setTimeout(async () => {
      for (const endpoint of this.endpoints) await this.guarded(() => this.list(endpoint, false));
      const busy = this.active.length > 0 || !this.isConnected;
      const pause = busy ? POLL_MS * Math.max(1, this.endpoints.length / 2) : IDLE_MS;
      this.lookSoon(document.hidden ? IDLE_MS : Math.max(pause, this.pause ?? 0));
    }, after);
  }

  /** Runs a call of the background. What fails shows as one line, and is tried again later. */
  async guarded(call) {
    try {
      await call();
      this.pause = 0;
      this.report(null);
    } catch (refusal) {
      if (refusal.status === undefined) throw refusal;
      this.pause = (refusal.retryAfter ?? 0) * 1000;
      if (refusal.status === 0 || refusal.status >= 500) this.report(refusal.message);
    }
  }

  report(sentence) {
    this.isConnected = sentence === null;
    this.dispatchEvent(new CustomEvent("connection", { detail: sentence }));
  }

  /** Reads the list of an endpoint: all pages, or the newest one. */
  async list(endpoint, whole) {
    let cursor = null;
    let oldest = Infinity;
    const seen = new Set();
    const newer = { waiting: 0 };
    const { jobs } = await this.api.health(endpoint);
    do {
      const page = await this.api.requests(endpoint, { cursor });
      for (const body of page.requests) {
        const place = body.status === "IN_QUEUE" ? jobs.inQueue - newer.waiting : null;
        if (body.status === "IN_QUEUE") newer.waiting += 1;
        const job = this.take(endpoint, body, place);
        seen.add(job.id);
        oldest = Math.min(oldest, job.created);
      }
      cursor = page.cursor;
    } while (whole && cursor && seen.size < 2000);
    if (!cursor) oldest = -Infinity;
    const now = Date.now() + this.api.skew;
    for (const job of this.byId.values()) {
      if (job.endpoint !== endpoint || seen.has(job.id)) continue;
      const isListed = job.created >= oldest && now - job.created > POLL_MS;
      const hasExpired = job.pictures.some((picture) => picture.expires && picture.expires < now);
      if (isListed || hasExpired) this.drop(job);
    }
    this.followSome();
  }

  /** Takes the status body of a job. */
  take(endpoint, body, place = null) {
    const known = this.byId.get(body.id);
    const job = known ?? new Job(endpoint, body.id);
    const before = known && writeJson([job.status, job.place, job.progress, job.error, job.pictures.length]);
    job.status = body.status;
    job.place = body.status === "IN_QUEUE" ? (place ?? job.place) : null;
    job.input = body.input ?? job.input;
    job.error = body.error;
    job.warnings = body.warnings ?? [];
    job.executionTime = body.executionTime;
    const progress = body.progress && { step: body.progress.step, steps: body.progress.steps, left: body.progress.eta };
    if (job.status !== "IN_PROGRESS") job.progress = null;
    else if (progress && progress.step >= (job.progress?.step ?? 0)) job.progress = progress;
    if (body.output && job.pictures.length !== body.output.length) {
      job.pictures = body.output.map((picture, index) =>
        new Picture(job, index, picture, picture.image && this.api.ownUrl(picture.image)));
    }
    if (!job.isActive) job.preview = null;
    this.byId.set(job.id, job);
    if (before !== writeJson([job.status, job.place, job.progress, job.error, job.pictures.length])) this.tell(job);
    return job;
  }

  tell(job) {
    this.dispatchEvent(new CustomEvent("change", { detail: job }));
  }

  drop(job) {
    this.streams.get(job.id)?.abort();
    this.byId.delete(job.id);
    this.dispatchEvent(new CustomEvent("gone", { detail: job }));
  }

  /** Follows the jobs that are drawn now, and the one that comes next. */
  followSome() {
    const active = this.active.sort((a, b) => (b.status === "IN_PROGRESS") - (a.status === "IN_PROGRESS"));
    for (const job of active.slice(0, STREAMS)) if (!this.streams.has(job.id) && this.streams.size < STREAMS) this.follow(job);
  }

  async follow(job) {
    const stop = new AbortController();
    job.wasFollowed = true;
    this.streams.set(job.id, stop);
    try {
      for await (const { event, data } of this.api.events(job.endpoint, job.id, stop.signal)) {
        if (event === "status") job.status = data.status;
        if (event === "progress") {
          job.status = "IN_PROGRESS";
          job.progress = { step: data.step, steps: data.steps, left: data.eta_ms };
          job.preview = data.preview ?? job.preview;
        }
        if (event === "end") {
          if (data.status) this.take(job.endpoint, await this.api.status(job.endpoint, job.id));
          break;
        }
        if (event !== "image") this.tell(job);
      }
    } catch (error) {
      if (error.name !== "AbortError" && error.status === 0) this.report(error.message);
    } finally {
      this.streams.delete(job.id);
      this.lookSoon(this.isConnected ? 300 : POLL_MS);
    }
  }

  async submit(endpoint, input) {
    const once = Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
    const submit = () => this.api.run(endpoint, input, once);
    // The answer may be lost on the way; the same key makes sure that nothing is drawn twice.
    const { id, status } = await submit().catch((refusal) => {
      if (refusal.status !== 0) throw refusal;
      return submit();
    });
    const job = this.take(endpoint, { id, status, input });
    this.followSome();
    this.lookSoon(600);
    return job;
  }

  async cancel(job) {
    const { status } = await this.api.cancel(job.endpoint, job.id);
    job.status = status;
    this.tell(job);
    this.lookSoon(300);
  }

  async retry(job) {
    const { status } = await this.api.retry(job.endpoint, job.id);
    this.take(job.endpoint, { id: job.id, status });
    this.lookSoon(300);
  }

  async delete(job) {
    await this.api.delete(job.endpoint, job.id).catch((refusal) => {
      if (refusal.status !== 404) throw refusal;
    });
    this.drop(job);
  }

  /** The prompt of a job whose request the list left out, from one of its pictures. */
  async findPrompt(job) {
    const [{ url }] = job.pictures;
    const texts = await pngTexts(await this.api.picture(url));
    job.knownPrompt = promptOf(readJson(texts.stablehand ?? "{}"));
    this.tell(job);
  }

  /** The request of a job, also if the list left it out because it is long. */
  async inputOf(job) {
    if (!job.input) job.input = (await this.api.status(job.endpoint, job.id)).input;
    return job.input ?? {};
  }
}
