// The real binary on a port of its own, in a temporary folder.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const BINARY = process.env.STABLEHAND_BIN ?? join(ROOT, "target/debug/stablehand");
export const KEY = "page-key";
export const ENDPOINT = "stable-diffusion-v1";

export class Server {
  constructor(settings = {}) {
    this.settings = settings;
    this.folder = mkdtempSync(join(tmpdir(), "stablehand-page-"));
    this.listen = "127.0.0.1:0";
  }

  /** Starts it, on the same port as before if it ran before. */
  async start() {
    const own = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("STABLEHAND_")));
    this.process = spawn(BINARY, ["serve"], {
      env: {
        ...own, STABLEHAND_LISTEN: this.listen, STABLEHAND_DEVICE: "cpu", STABLEHAND_DATA_DIR: join(this.folder, "data"),
        STABLEHAND_CACHE_DIR: join(ROOT, "target/tmp/cache"), STABLEHAND_API_KEYS: KEY, STABLEHAND_LOG: "warn",
        STABLEHAND_MANAGE_MODELS: "on", STABLEHAND_ALLOW_ADDRESSES: "127.0.0.1", HF_HUB_CACHE: join(this.folder, "no-hub"), ...this.settings,
      },
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.url = await new Promise((resolve, reject) => {
      let text = "";
      this.process.once("exit", (code) => reject(new Error(`${BINARY} ended with ${code}`)));
      this.process.once("error", reject);
      this.process.stdout.on("data", (chunk) => {
        text += chunk;
        const address = text.match(/http:\/\/([\d.]+:\d+)/);
        if (!address) return;
        this.listen = address[1];
        resolve(`${address[0]}/`);
      });
    });
    return this;
  }

  async stop(signal = "SIGTERM") {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill(signal);
    await ended;
  }

  async close() {
    await this.stop();
    rmSync(this.folder, { recursive: true });
  }

  /** Asks the API as any client does. */
  async ask(path, body) {
    for (;;) {
      const response = await fetch(`${this.url}v2/${ENDPOINT}/${path}`, {
        method: body === undefined ? "GET" : "POST", headers: { Authorization: KEY },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      if (response.status !== 429) return response.json();
      // The page asks too, with the same key: a quick test meets the limit of ten lists in ten seconds.
      await setTimeout(1000 * Number(response.headers.get("retry-after")));
    }
  }

  run(input) {
    return this.ask("run", { input });
  }

  /** The newest job that is kept, once it has ended. */
  async newest() {
    const { requests: [job] } = await this.ask("requests?limit=1");
    for (;;) {
      const status = job && await this.ask(`status/${job.id}`);
      if (!["IN_QUEUE", "IN_PROGRESS"].includes(status?.status)) return status;
      await setTimeout(100);
    }
  }
}
