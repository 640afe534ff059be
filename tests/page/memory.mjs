// Measures the page's memory over 500 jobs: `node tests/page/memory.mjs`, after `cargo build`. It takes some minutes, so it
// is no test. Pictures are deleted as they come, and garbage is collected before each line.

import { chromium } from "playwright-core";

import { KEY, Server } from "./server.mjs";

const ROUNDS = 5;
const server = await new Server().start();
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
const page = await browser.newPage();
await page.goto(`${server.url}#key=${KEY}`);
await page.getByRole("textbox", { name: "Prompt", exact: true }).waitFor();
const devtools = await page.context().newCDPSession(page);
const tiles = (enough) => page.waitForFunction(enough, null, { timeout: 60_000, polling: 300 });

async function twentyJobs() {
  for (let job = 0; job < 20; job += 1) await server.run({ prompt: `fox ${job}`, num_inference_steps: 2, width: 64, height: 64 });
  await tiles(() => document.querySelectorAll(".pictures img").length >= 18);
  for (let rest = 1; rest > 0;) {
    const { requests } = await server.ask("requests?limit=100");
    for (const { id } of requests) await server.ask(`delete/${id}`, {});
    rest = requests.length;
    await page.waitForTimeout(1000);
  }
  await tiles(() => document.querySelectorAll(".pictures img, .job").length === 0);
}

for (let round = 0; round <= ROUNDS; round += 1) {
  for (let part = 0; round > 0 && part < 5; part += 1) await twentyJobs();
  for (let time = 0; time < 2; time += 1) await devtools.send("HeapProfiler.collectGarbage");
  const { usedSize } = await devtools.send("Runtime.getHeapUsage");
  const { nodes, jsEventListeners } = await devtools.send("Memory.getDOMCounters");
  console.log(`${round * 100} jobs: ${(usedSize / 1e6).toFixed(2)} MB, ${nodes} nodes, ${jsEventListeners} listeners`);
}
await browser.close();
await server.close();
