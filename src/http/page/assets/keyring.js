// The key of the server: from the link that the server prints, or asked for once. It is kept for this tab or, if wanted,
// on this device. What else the page remembers is kept in the same place.

import { readJson, writeJson } from "./json.js";

const KEY = "stablehand.key";

export class Keyring {
  constructor() {
    this.key = localStorage.getItem(KEY) ?? sessionStorage.getItem(KEY) ?? "";
    this.takeFromAddress();
    addEventListener("hashchange", () => {
      if (this.takeFromAddress()) location.reload();
    });
  }

  /** Takes a key out of the address, so that neither the history nor a screenshot shows it. */
  takeFromAddress() {
    const found = new URLSearchParams(location.hash.slice(1)).get("key");
    if (!found) return false;
    history.replaceState(null, "", location.pathname + location.search);
    this.keep(found, this.isOnDevice);
    return true;
  }

  get isOnDevice() {
    return localStorage.getItem(KEY) !== null;
  }

  /** Where this page remembers things. */
  get storage() {
    return this.isOnDevice ? localStorage : sessionStorage;
  }

  keep(key, onDevice) {
    this.key = key;
    (onDevice ? localStorage : sessionStorage).setItem(KEY, key);
    if (!onDevice) localStorage.removeItem(KEY);
  }

  /** Forgets the key and everything that this page remembers. */
  forget() {
    this.key = "";
    for (const storage of [localStorage, sessionStorage]) {
      const own = Object.keys(storage).filter((name) => name.startsWith("stablehand."));
      own.forEach((name) => storage.removeItem(name));
    }
  }

  /** Whether the browser has room for it. */
  remember(name, value) {
    const item = `stablehand.${name}`;
    try {
      this.storage.setItem(item, writeJson(value));
      return true;
    } catch {
      // The page works without, and what was there before is no longer true.
      this.storage.removeItem(item);
      return false;
    }
  }

  recall(name) {
    try {
      return readJson(this.storage.getItem(`stablehand.${name}`) ?? "null");
    } catch {
      return null;
    }
  }
}
