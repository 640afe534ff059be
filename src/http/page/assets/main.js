// Puts the page together.

import { Api } from "./api.js";
import { Door } from "./door.js";
import { DrawPanel } from "./draw_panel.js";
import { Drops } from "./drops.js";
import { h, isTyping } from "./element.js";
import { Gallery } from "./gallery.js";
import { icon } from "./icons.js";
import { Jobs } from "./jobs.js";
import { JobsView } from "./jobs_view.js";
import { Keyring } from "./keyring.js";
import { Painting } from "./painting.js";
import { ServerView } from "./server_view.js";
import { Toasts } from "./toast.js";
import { Viewer } from "./viewer.js";
import { words } from "./words.js";

const RETRY_MS = 2000;

const keyring = new Keyring();
const toasts = new Toasts();
const door = new Door(keyring);
const api = new Api(keyring, (wasRefused) => {
  jobs.stop();
  door.open(wasRefused);
});
const jobs = new Jobs(api);
const painting = new Painting();
const panel = new DrawPanel({ api, keyring, jobs, toasts, paint: (subject, form) => painting.open(subject, form) });
const gallery = new Gallery({ jobs, api, toasts });
const jobsView = new JobsView({ jobs, toasts, gallery });
const viewer = new Viewer({ api, jobs, gallery, toasts });
const server = new ServerView({ api, toasts, jobs, changed: () => panel.choose(panel.endpoint) });
const drops = new Drops();

const connection = h("p", { class: "connection", role: "status", hidden: true });
const news = h("p", { class: "unseen", role: "status", "aria-live": "polite" });
const views = { draw: h("a", { href: "#draw" }, words.draw), server: h("a", { href: "#server" }, words.run) };
const lock = h("button", { type: "button", class: "icon", title: words.lock, "aria-label": words.lock, hidden: !keyring.key, onclick: forget }, icon("lock"));
const draw = h("div", { class: "draw" }, panel.node, gallery.node);
const main = h("main", { hidden: true }, draw, server.node);
gallery.tiles.prepend(jobsView.list);
document.body.append(
  h("a", { class: "skip", href: "#pictures", onclick: (event) => (event.preventDefault(), gallery.node.focus()) }, words.skip),
  h("header", {},
    h("h1", {}, words.name),
    h("nav", { "aria-label": words.views }, Object.values(views)),
    h("span", { class: "spread" }),
    h("a", { class: "icon", href: "docs", title: words.documentation, "aria-label": words.documentation }, icon("book")), lock),
  connection, main, news, viewer.node, painting.node, door.node, drops.node, toasts.node);

function showView() {
  const open = location.hash === "#server" ? "server" : "draw";
  for (const [name, link] of Object.entries(views)) {
    if (name === open) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  draw.hidden = open !== "draw";
  if (!main.hidden) server.isOpen = open === "server";
}

/** The endpoint that clients get who name none comes first. */
function defaultFirst(endpoints) {
  const usual = "stable-diffusion-v1";
  return [...endpoints].sort((a, b) => (b === usual) - (a === usual));
}

/** Opens the page: the models, the form, the jobs. Tried again until the server answers. */
async function open() {
  try {
    const index = await api.index();
    const description = await api.document();
    const endpoints = defaultFirst(index.endpoints);
    await panel.start(endpoints, description);
    door.close();
    lock.hidden = !keyring.key;
    await server.start(index, (name) => api.model(name));
    main.hidden = false;
    showView();
    connection.hidden = true;
    if (matchMedia("(min-width: 60rem)").matches) panel.form.prompt.area.focus();
    await jobs.start(endpoints);
    gallery.summary();
  } catch (refusal) {
    if (refusal.status === undefined) throw refusal;
    if (refusal.status === 401) return;
    showConnection(refusal.message);
    setTimeout(open, RETRY_MS);
  }
}

function showConnection(sentence) {
  if (sentence === null && !connection.hidden) toasts.say(words.backOnline);
  connection.hidden = sentence === null;
  connection.textContent = sentence ?? "";
}

function forget() {
  keyring.forget();
  location.reload();
}

const finished = new Set();
jobs.addEventListener("connection", ({ detail }) => showConnection(detail));
for (const event of ["change", "gone"]) {
  jobs.addEventListener(event, () => {
    document.title = words.title(jobs.active.length);
  });
}
jobs.addEventListener("change", ({ detail: job }) => {
  if (job.status === "COMPLETED" && job.wasFollowed && !finished.has(job.id)) {
    finished.add(job.id);
    news.textContent = words.finished(job.pictures.length);
  }
});

// On a narrow screen the pictures are below the form.
panel.addEventListener("sent", () => {
  if (matchMedia("(max-width: 60rem)").matches) gallery.node.scrollIntoView({ block: "start" });
});
gallery.addEventListener("example", ({ detail }) => {
  panel.form.prompt.value = detail;
  panel.submitted();
});
viewer.addEventListener("again", ({ detail: { request, picture } }) => fill(request, picture.job.endpoint, words.againDone));
viewer.addEventListener("vary", async ({ detail: { request, picture } }) => {
  const [seed] = crypto.getRandomValues(new Uint32Array(1));
  const varied = panel.form.has("subseed") ? { ...request, subseed: seed, subseed_strength: 0.2 } : { ...request, seed };
  if (await panel.submit(varied, picture.job.endpoint)) toasts.say(words.varyDone);
});
viewer.addEventListener("start", async ({ detail: { picture } }) => startFrom(await api.picture(picture.url), words.asStartDone));
drops.addEventListener("settings", ({ detail }) => fill(detail, panel.endpoint, words.readParameters));
drops.addEventListener("picture", ({ detail }) => startFrom(detail, words.asStartDone));
drops.addEventListener("bare", ({ detail }) => startFrom(detail, words.noParameters));

/** Fills the form. What was in it can be taken back: somebody has written it. */
async function fill(request, endpoint, sentence) {
  location.hash = "#draw";
  const before = panel.state;
  await panel.put({ endpoint, input: request });
  toasts.say(sentence, "plain", { label: words.takeBack, act: () => panel.put(before) });
  panel.form.prompt.area.focus();
}

async function startFrom(blob, sentence) {
  if (!panel.form?.start) return;
  location.hash = "#draw";
  await panel.form.start.take(blob);
  if (panel.form.start.picture) toasts.say(sentence);
}

addEventListener("hashchange", showView);
addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || main.hidden) return;
  // Of a key that is held down, the first press counts. A press that ends the composing of a letter is for that alone.
  if (event.repeat || event.isComposing) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    panel.submitted();
  } else if (event.key === "Escape" && !event.defaultPrevented) {
    jobsView.cancelNewest();
  } else if (event.key === "/" && !isTyping(event)) {
    event.preventDefault();
    panel.form.prompt.area.focus();
  }
});
addEventListener("pagehide", () => panel.form && panel.remember());

door.tried = open;
showView();
open();
