// The members of a topic: the beginning of the server's list when it was requested, plus what came since: who joined,
// left, returned with another id, or changed state. Clients of one user are one person.

/** @import { Member } from "../qws.js" */

/**
 * One person in a topic: a user with all clients, or a client without a user.
 *
 * @typedef {object} Person
 * @property {string} key identifies the person across connections, if the server has verified the user
 * @property {string} id of the first client
 * @property {string | null} user
 * @property {Member[]} members
 * @property {number} clients
 * @property {boolean} isAway no client is in use
 */

/**
 * Follows a subscription with presence. Dispatches "join" and "leave" (detail: the member), "return" (detail: the
 * member and the id that it had), "state" (detail: the member), and "change".
 */
export class Roster extends EventTarget {
  /** By client id; a user whom the server lists with all clients, by `keyOf`. @type {Map<string, Member>} */
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
  /** @type {Person[] | null} */
  #people = null;

  constructor(client, subscription) {
    super();
    this.#client = client;
    this.#topic = subscription.topic;
    subscription.addEventListener("join", ({ detail }) => this.#joined(detail.client));
    subscription.addEventListener("leave", ({ detail }) => this.#left(detail.client));
    subscription.addEventListener("return", ({ detail }) => this.#returned(detail.client, detail.was));
    subscription.addEventListener("state", ({ detail }) => this.#showed(detail.client));
    subscription.addEventListener("occupancy", ({ detail }) => this.#counted(detail));
    // After a reconnect, all others may have new IDs as well.
    subscription.addEventListener("resumed", () => this.refresh());
    subscription.addEventListener("lost", () => this.refresh());
  }

  /** The people among the members that are known by name. */
  get people() {
    this.#people ??= peopleOf(this.members.values());
    return this.#people;
  }

  /** The number of people; of members beyond the end of the list, each counts. */
  get count() {
    return this.people.length + Math.max(0, this.total - this.members.size);
  }

  /** Whether another member is the same user's. @param {Member} member */
  hasOther({ id, user }) {
    if (!user) return false;
    return [...this.members.values()].some((member) => member.user === user && member.id !== id);
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
      this.members = new Map(clients.map((client) => [keyOf(client), client]));
      this.total = total;
      this.error = null;
      this.isKnown = true;
      this.#since = null;
      for (const [key, member] of since) this.#apply(key, member);
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
    const key = this.#keyOf(member);
    const isNew = !this.members.has(key);
    this.#put(key, member);
    if (isNew) this.#dispatch("join", member);
    this.#changed();
  }

  #left(member) {
    this.#put(this.#keyOf(member), null);
    this.#dispatch("leave", member);
    this.#changed();
  }

  #returned(member, was) {
    const key = this.#keyOf(member);
    if (was !== key) this.#put(was, null);
    this.#put(key, member);
    this.#dispatch("return", { member, was });
    this.#changed();
  }

  #showed(member) {
    const key = this.#keyOf(member);
    // A member beyond the end of the list stays there.
    if (this.members.has(key)) this.#put(key, member);
    this.#dispatch("state", member);
    this.#changed();
  }

  #counted({ clients }) {
    this.total = Math.max(clients, this.members.size);
    this.isKnown = true;
    this.#changed();
  }

  /** A message about a user need not say how many clients the user has. @param {Member} member */
  #keyOf(member) {
    const asUser = `user ${member.user}`;
    return this.members.has(asUser) ? asUser : keyOf(member);
  }

  #put(key, member) {
    const known = this.members.get(key);
    const whole = member === null || known?.clients === undefined ? member : { clients: known.clients, ...member };
    this.#since?.set(key, whole);
    this.#apply(key, whole);
  }

  #apply(key, member) {
    const unlisted = Math.max(0, this.total - this.members.size);
    const wasListed = this.members.has(key);
    if (member === null) this.members.delete(key);
    else this.members.set(key, member);
    // A member that left without being listed was one of those beyond the list's end.
    const rest = member === null && !wasListed ? Math.max(0, unlisted - 1) : unlisted;
    this.total = this.members.size + rest;
  }

  #changed() {
    this.version += 1;
    this.#people = null;
    this.dispatchEvent(new Event("change"));
  }

  #dispatch(type, detail) {
    this.#people = null;
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/**
 * A user that the server lists with all clients stays one member when the first of them leaves.
 * @param {Member} member
 */
const keyOf = ({ id, user, clients }) => (clients !== undefined && user ? `user ${user}` : id);

/** The people among members, in the order of their first clients. @param {Iterable<Member>} members */
function peopleOf(members) {
  /** @type {Map<string, Person>} */
  const people = new Map();
  for (const member of members) {
    const user = member.user ?? null;
    const key = personOf(member.id, user);
    const clients = member.clients ?? 1;
    const isAway = member.away === true || member.state?.away === true;
    const known = people.get(key);
    if (known) {
      known.members.push(member);
      known.clients += clients;
      known.isAway &&= isAway;
    } else people.set(key, { key, id: member.id, user, members: [member], clients, isAway });
  }
  return [...people.values()];
}

/** What identifies a person: the verified user, else the client. @param {string} id @param {string | null} [user] */
export const personOf = (id, user) => (user ? `user ${user}` : id);
