// The public API of the server, call by call. This is all that the page knows of it.

import { readJson, writeJson } from "./json.js";
import { serverEvents } from "./server_events.js";
import { words } from "./words.js";

/** A refusal, in the server's own sentence. Status 0: no answer came. */
export class Refusal extends Error {
  constructor(status, sentence, retryAfter = null) {
    super(sentence);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export class Api {
  /** `keyring` has the key; `locked` is called when the server refuses it. */
  constructor(keyring, locked) {
    this.root = new URL("./", document.baseURI);
    this.keyring = keyring;
    this.locked = locked;
    /** The server's clock minus ours, in milliseconds. */
    this.skew = 0;
  }

  index() {
    return this.json("GET", "");
  }

  document() {
    return this.json("GET", "openapi.json");
  }

  model(endpoint) {
    return this.json("GET", `v2/${endpoint}/model`);
  }

  tokens(endpoint, prompt, signal) {
    return this.json("POST", `v2/${endpoint}/tokens`, { prompt }, { signal });
  }

  /** Submits a job. `once` makes a second try safe. */
  run(endpoint, input, once) {
    return this.json("POST", `v2/${endpoint}/run`, { input }, { headers: { "Idempotency-Key": once } });
  }

  status(endpoint, id) {
    return this.json("GET", `v2/${endpoint}/status/${id}`);
  }

  requests(endpoint, { cursor, status, limit = 100 } = {}) {
    const query = new URLSearchParams({ limit });
    if (cursor) query.set("cursor", cursor);
    if (status) query.set("status", status);
    return this.json("GET", `v2/${endpoint}/requests?${query}`);
  }

  cancel(endpoint, id) {
    return this.json("POST", `v2/${endpoint}/cancel/${id}`);
  }

  retry(endpoint, id) {
    return this.json("POST", `v2/${endpoint}/retry/${id}`);
  }

  delete(endpoint, id) {
    return this.json("POST", `v2/${endpoint}/delete/${id}`);
  }

  purge(endpoint) {
    return this.json("POST", `v2/${endpoint}/purge-queue`);
  }

  health(endpoint) {
    return this.json("GET", `v2/${endpoint}/health`);
  }

  async metrics() {
    return (await this.fetch("GET", "metrics")).text();
  }

  library() {
    return this.json("GET", "v2/library");
  }

  /** Begins a task. `kind` is `model` or `controlnet`. */
  pullModel(kind, name) {
    return this.json("POST", "v2/library/pull", { name, kind });
  }

  /** Begins a task. */
  checkModel(name) {
    return this.json("POST", "v2/library/check", { name });
  }

  removeModel(kind, name) {
    return this.json("POST", "v2/library/remove", { name, kind });
  }

  task(id) {
    return this.json("GET", `v2/library/tasks/${id}`);
  }

  cancelTask(id) {
    return this.json("POST", `v2/library/tasks/${id}/cancel`);
  }

  /** The events of a job, until it ends or `signal` stops it. */
  async *events(endpoint, id, signal) {
    const response = await this.fetch("GET", `v2/${endpoint}/events/${id}`, undefined, { signal });
    yield* serverEvents(response.body);
  }

  /** The bytes of a picture. Its URL needs no key. */
  async picture(url) {
    const response = await fetch(url).catch(() => null);
    if (!response?.ok) throw new Refusal(response?.status ?? 0, words.pictureGone);
    return response.blob();
  }

  /** A picture's URL as this page reaches the server, perhaps through a proxy. null: it lies on another host. */
  ownUrl(url) {
    const { pathname, search } = new URL(url, this.root);
    const at = pathname.search(/\/v[12]\/[^/]+\/images\//);
    return at < 0 ? null : new URL(pathname.slice(at + 1) + search, this.root).href;
  }

  async json(method, path, body, options) {
    return readJson(await (await this.fetch(method, path, body, options)).text());
  }

  async fetch(method, path, body, { headers = {}, signal } = {}) {
    const sent = { Accept: "application/json, text/event-stream", ...headers };
    if (this.keyring.key) sent.Authorization = `Bearer ${this.keyring.key}`;
    if (body !== undefined) sent["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(new URL(path, this.root), {
        method, signal, headers: sent, body: body === undefined ? undefined : writeJson(body),
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal(0, words.offline);
    }
    const date = Date.parse(response.headers.get("date") ?? "");
    if (date) this.skew = date - Date.now();
    if (response.ok) return response;
    const sentence = await response.json().then(({ error }) => error, () => null);
    if (response.status === 401) this.locked(Boolean(this.keyring.key));
    throw new Refusal(response.status, sentence ?? words.refused(response.status), Number(response.headers.get("retry-after")) || null);
  }
}
