// Who is on a topic: the server's list when it was asked, and who came and went since.

/** Follows a subscription that was made with presence. Dispatches "join" and "leave" (detail: the member), and "change". */
export class Roster extends EventTarget {
  /** @type {Map<string, {id: string, name: string | null, user?: string}>} */
  members = new Map();
  /** How many there are, with those beyond the end of the server's list. */
  total = 0;
  /** Why the list cannot be had, or `null`. @type {import("../qws.js").QwsError | null} */
  error = null;
  /** Whether it is known who is there: not where that is not told, or no account is kept of it. */
  isKnown = false;
  /** Grows with each change. */
  version = 0;
  #client;
  #topic;
  /** What came while the list was under way, and may be newer than it: the member, or `null` for who left. */
  #since = null;
  #again = false;

  constructor(client, subscription) {
    super();
    this.#client = client;
    this.#topic = subscription.topic;
    subscription.addEventListener("join", ({ detail }) => this.#came(detail.client));
    subscription.addEventListener("leave", ({ detail }) => this.#went(detail.client));
    // Over another connection everybody may have come back under another id, too.
    subscription.addEventListener("resumed", () => this.refresh());
    subscription.addEventListener("lost", () => this.refresh());
  }

  /** Asks the server who is there. Never rejects. */
  async refresh() {
    if (this.#since !== null) {
      this.#again = true;
      return;
    }
    const since = new Map();
    this.#since = since;
    try {
      const { clients, total } = await this.#client.presence(this.#topic);
      this.members = new Map(clients.map((client) => [client.id, client]));
      this.total = total;
      this.error = null;
      this.isKnown = true;
      this.#since = null;
      for (const [id, member] of since) this.#apply(id, member);
    } catch (error) {
      this.error = error;
      if (error.code === 403 || error.code === 404) this.isKnown = false;
    }
    this.#since = null;
    this.#changed();
    if (this.#again) {
      this.#again = false;
      await this.refresh();
    }
  }

  #came(member) {
    const isNew = !this.members.has(member.id);
    this.#since?.set(member.id, member);
    this.#apply(member.id, member);
    if (isNew) this.dispatchEvent(new CustomEvent("join", { detail: member }));
    this.#changed();
  }

  #went(member) {
    this.#since?.set(member.id, null);
    this.#apply(member.id, null);
    this.dispatchEvent(new CustomEvent("leave", { detail: member }));
    this.#changed();
  }

  #apply(id, member) {
    const unlisted = Math.max(0, this.total - this.members.size);
    const wasListed = this.members.has(id);
    if (member === null) this.members.delete(id);
    else this.members.set(id, member);
    // Who left and was not on the list was one of those beyond its end.
    const rest = member === null && !wasListed ? Math.max(0, unlisted - 1) : unlisted;
    this.total = this.members.size + rest;
  }

  #changed() {
    this.version += 1;
    this.dispatchEvent(new Event("change"));
  }
}
