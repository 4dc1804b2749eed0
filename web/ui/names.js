// A name to begin with, for who has none yet: two tabs of one browser get two. Tabs ask each other over a channel that only
// pages of this server hear.

const FIRST = ["Amber", "Bold", "Calm", "Clever", "Copper", "Gentle", "Jolly", "Lucky", "Quick", "Quiet", "Sunny", "Swift"];
const SECOND = ["Badger", "Crane", "Falcon", "Fox", "Heron", "Lynx", "Otter", "Owl", "Panda", "Robin", "Seal", "Wren"];
const ANSWER_MS = 150;
const MOST_ASKED = 50;

/** A name that is none of these. @param {Set<string>} taken @param {() => number} [random] */
export function suggestName(taken = new Set(), random = Math.random) {
  const one = (list) => list[Math.floor(random() * list.length)];
  let name = "";
  for (let tries = 0; tries < 20; tries += 1) {
    name = `${one(FIRST)} ${one(SECOND)}`;
    if (!taken.has(name)) break;
  }
  return name;
}

/** The names under which this browser is signed in in other tabs. */
export class OtherTabs {
  #channel;
  #own = null;
  #heard = new Set();

  /** @param {string} page which of the pages, as each has people of its own */
  constructor(page) {
    // Old browsers, and private windows of some, have none: then every tab is the only one.
    this.#channel = typeof BroadcastChannel === "function" ? new BroadcastChannel(`qws.names.${page}`) : null;
    this.#channel?.addEventListener("message", ({ data }) => {
      if (data?.ask && this.#own !== null) this.#channel.postMessage({ name: this.#own });
      if (typeof data?.name === "string" && this.#heard.size < MOST_ASKED) this.#heard.add(data.name);
    });
  }

  /** The name of this tab; `null` while it has none. */
  is(name) {
    this.#own = name;
  }

  /** Asks them; resolves a moment later. */
  async names() {
    if (this.#channel === null) return new Set();
    this.#heard = new Set();
    this.#channel.postMessage({ ask: true });
    await new Promise((done) => setTimeout(done, ANSWER_MS));
    return this.#heard;
  }
}
