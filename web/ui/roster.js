// The members of a topic: the server's list when it was requested, plus the joins and leaves since.

/** Follows a subscription with presence. Dispatches "join" and "leave" (detail: the member), and "change". */
export class Roster extends EventTarget {
  /** @type {Map<string, {id: string, name: string | null, user?: string}>} */
  members = new Map();
  /** The number of members, including those beyond the end of the server's list. */
  total = 0;
  /** Why the list could not be loaded, or `null`. @type {import("../qws.js").QwsError | null} */
  error = null;
  /** Whether the members are known. They are not if presence is off or not allowed. */
  isKnown = false;
  /** Incremented with each change. */
  version = 0;
  #client;
  #topic;
  /** Changes during a request, which may be newer than its list: the member, or `null` if it left. */
  #since = null;
  #again = false;

  constructor(client, subscription) {
    super();
    this.#client = client;
    this.#topic = subscription.topic;
    subscription.addEventListener("join", ({ detail }) => this.#joined(detail.client));
    subscription.addEventListener("leave", ({ detail }) => this.#left(detail.client));
    // After a reconnect, all others may have new IDs as well.
    subscription.addEventListener("resumed", () => this.refresh());
    subscription.addEventListener("lost", () => this.refresh());
  }

  /** Requests the list from the server. Never rejects. */
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

  #joined(member) {
    const isNew = !this.members.has(member.id);
    this.#since?.set(member.id, member);
    this.#apply(member.id, member);
    if (isNew) this.dispatchEvent(new CustomEvent("join", { detail: member }));
    this.#changed();
  }

  #left(member) {
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
    // A member that left without being listed was one of those beyond the list's end.
    const rest = member === null && !wasListed ? Math.max(0, unlisted - 1) : unlisted;
    this.total = this.members.size + rest;
  }

  #changed() {
    this.version += 1;
    this.dispatchEvent(new Event("change"));
  }
}
