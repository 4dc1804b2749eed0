// Suggests a name for new users; two tabs of one browser get different ones. Tabs ask each other over a channel that is
// limited to pages of this server.

const FIRST = [
  "Amber",
  "Bold",
  "Calm",
  "Clever",
  "Copper",
  "Gentle",
  "Jolly",
  "Lucky",
  "Quick",
  "Quiet",
  "Sunny",
  "Swift",
];
const SECOND = ["Badger", "Crane", "Falcon", "Fox", "Heron", "Lynx", "Otter", "Owl", "Panda", "Robin", "Seal", "Wren"];
const ANSWER_MS = 150;
const MAX_ANSWERS = 50;

/** Suggests a name that is not taken. @param {Set<string>} taken @param {() => number} [random] */
export function suggestName(taken = new Set(), random = Math.random) {
  const one = (list) => list[Math.floor(random() * list.length)];
  let name = "";
  for (let tries = 0; tries < 20; tries += 1) {
    name = `${one(FIRST)} ${one(SECOND)}`;
    if (!taken.has(name)) break;
  }
  return name;
}

/** The names used in other tabs of this browser. */
export class OtherTabs {
  #channel;
  #own = null;
  #heard = new Set();

  /** @param {string} page the page's name, as each page has its own users */
  constructor(page) {
    // Old browsers and some private windows have no BroadcastChannel: there, every tab is on its own.
    this.#channel = typeof BroadcastChannel === "function" ? new BroadcastChannel(`qws.names.${page}`) : null;
    this.#channel?.addEventListener("message", ({ data }) => {
      if (data?.ask && this.#own !== null) this.#channel.postMessage({ name: this.#own });
      if (typeof data?.name === "string" && this.#heard.size < MAX_ANSWERS) this.#heard.add(data.name);
    });
  }

  /** Sets the name of this tab; `null` if it has none. */
  setName(name) {
    this.#own = name;
  }

  /** Asks the other tabs for their names; resolves a moment later. */
  async names() {
    if (this.#channel === null) return new Set();
    this.#heard = new Set();
    this.#channel.postMessage({ ask: true });
    await new Promise((done) => setTimeout(done, ANSWER_MS));
    return this.#heard;
  }
}
