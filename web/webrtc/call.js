// A call: who is in the room (presence on the topic `webrtc.<room>`), and a peer connection to each of them, negotiated by
// signals that the server hands over. Knows nothing of the page, which listens for "change", "text" and "problem".
//
// Each side has a random tag for its call, and says it in a hello to everyone whom it sees in the room. Everybody there knows
// it, so it proves nothing: peers go by the client id that the server vouches for. That is another one after a reconnect, and a
// connection between two browsers outlives the server's: who comes back shows by a key, which was told over that connection
// alone, to whom it belongs.

import { Roster } from "../ui/roster.js";
import { Beginnings } from "./beginnings.js";
import { Peer } from "./peer.js";

export const TOPIC_PREFIX = "webrtc.";
/** A mesh: everyone sends to everyone, so a room is small. Oneself is counted. */
export const MOST_PEOPLE = 4;
// How long somebody who left the room without a word may take to come back.
const COMES_BACK_MS = 15_000;
// How many signals of how many senders wait until it is known whether these are in the room, and how often that is asked.
const MOST_WAITING = 24;
const MOST_SENDERS = 16;
const ASK_MS = 2000;
// How long a connection may take to come about, with the tries to find another path.
const CONNECTS_MS = 45_000;

/** Said where the server refuses the signals without which there is no call. */
export const MAY_NOT_CALL = "Your access does not allow calls.";

export class RoomFull extends Error {}

export class Call extends EventTarget {
  /** @type {Map<string, Peer>} by the other's client id */
  peers = new Map();
  /** @type {Roster | null} */
  roster = null;
  #client;
  #topic;
  #people;
  #local;
  #iceServers;
  #tag = crypto.randomUUID();
  #subscription = null;
  #greeted = new Set();
  #greetedAs = null;
  /** @type {Map<string, object[]>} signals by sender */
  #waiting = new Map();
  #asking = 0;
  #askedAt = -Infinity;
  /** Signals are taken one after the other. */
  #taken = Promise.resolve();
  #awaited = new Map();
  #connecting = new Map();
  #beginnings = new Beginnings();
  #isRefused = false;
  #ended = new AbortController();

  /**
   * @param {import("../qws.js").Client} client connected
   * @param {string} room
   * @param {object} parts
   * @param {import("../ui/people.js").People} parts.people
   * @param {import("./media.js").LocalMedia} parts.local
   * @param {import("./ice.js").IceServers} parts.iceServers
   */
  constructor(client, room, { people, local, iceServers }) {
    super();
    this.#client = client;
    this.#topic = TOPIC_PREFIX + room;
    this.#people = people;
    this.#local = local;
    this.#iceServers = iceServers;
  }

  /** Enters the room. Rejects where the server does not let one in, and with `RoomFull`. */
  async join() {
    const { signal } = this.#ended;
    this.#client.addEventListener("signal", ({ detail }) => this.#receive(detail), { signal });
    this.#client.addEventListener("open", () => this.#recognise(), { signal });
    this.#local.addEventListener("change", ({ detail: kind }) => {
      for (const peer of this.peers.values()) peer.setTrack(kind, this.#local.track(kind));
      this.#changed();
    }, { signal });
    this.#recognise();
    await this.#iceServers.renew();
    const subscription = this.#client.subscribe(this.#topic, { presence: true });
    this.#subscription = subscription;
    const roster = new Roster(this.#client, subscription);
    roster.addEventListener("leave", ({ detail }) => this.#left(detail.id), { signal });
    roster.addEventListener("change", () => this.#lookAround(), { signal });
    subscription.addEventListener("end", ({ detail }) => {
      if (detail !== null && this.#client.state !== "closed") this.#report(`You are no longer in this room: ${detail.message}`);
    }, { signal });
    await subscription.ready;
    await roster.refresh();
    if (roster.error !== null) throw roster.error;
    if (roster.total > MOST_PEOPLE) throw new RoomFull(`This room is full: ${MOST_PEOPLE} people are in it.`);
    this.roster = roster;
    this.#lookAround();
    if (this.#waiting.size > 0) this.#askWhoIsHere();
  }

  /** The peer whose signals come from this client, if there is one. */
  peerOf(clientId) {
    return this.peers.get(clientId) ?? null;
  }

  /** What has to stand beside the name of somebody, or "". */
  markOf(id) {
    const name = this.#people.name(id);
    const others = [...(this.roster?.members.keys() ?? [])].filter((other) => other !== id);
    return this.#people.mark(id, others.some((other) => this.#people.name(other) === name));
  }

  /** Says something to everyone in the call; gives how many it could be sent to. */
  say(text) {
    return [...this.peers.values()].filter((peer) => peer.say(text)).length;
  }

  /** Leaves at once; what is said to the server is not waited for. */
  leave() {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort();
    clearTimeout(this.#asking);
    for (const timer of [...this.#awaited.values(), ...this.#connecting.values()]) clearTimeout(timer);
    for (const peer of this.peers.values()) {
      // Over either way, whichever still works.
      this.#send(peer.clientId, { kind: "bye", to: peer.tag }).catch(() => {});
      peer.close();
    }
    this.peers.clear();
    this.#subscription?.unsubscribe().catch(() => {});
  }

  #recognise() {
    const { id, name } = this.#client;
    if (id !== null) this.#people.learnOwn(id, name);
  }

  /** Greets everyone in the room who was not greeted yet under our present id. */
  #lookAround() {
    if (this.roster === null || this.#ended.signal.aborted) return;
    this.#takeWaiting();
    const own = this.#client.id;
    if (own !== this.#greetedAs) {
      this.#greetedAs = own;
      this.#greeted.clear();
    }
    for (const member of this.roster.members.values()) {
      this.#people.learn(member);
      if (own === null || member.id === own || this.#greeted.has(member.id)) continue;
      this.#greeted.add(member.id);
      this.#hello(member.id, null);
    }
    this.#changed();
  }

  async #hello(to, theirTag) {
    try {
      const keys = [...this.peers.values()].map(({ key }) => key);
      const back = await Promise.all(keys.map((key) => proof(key, this.#client.id, to)));
      await this.#send(to, { kind: "hello", to: theirTag, back });
    } catch {
      // Who is not there any more has left, which presence tells as well.
      this.#greeted.delete(to);
    }
  }

  async #send(to, signal) {
    try {
      await this.#client.signal(to, { room: this.#topic, call: this.#tag, ...signal });
    } catch (error) {
      if (error.code === 403 && !this.#isRefused) {
        this.#isRefused = true;
        this.#report(MAY_NOT_CALL);
      }
      throw error;
    }
  }

  #receive({ from, data }) {
    const isOurs = data?.room === this.#topic && typeof data.call === "string" && data.call !== this.#tag;
    if (!isOurs || (data.to && data.to !== this.#tag)) return;
    if (this.roster?.members.has(from)) this.#enqueue(from, data);
    else this.#wait(from, data);
  }

  /** Signals come past the topic: who has just come in may be heard before being seen. Others are not listened to. */
  #wait(from, data) {
    const signals = this.#waiting.get(from) ?? [];
    if (signals.length >= MOST_WAITING) return;
    signals.push(data);
    this.#waiting.set(from, signals);
    if (this.#waiting.size > MOST_SENDERS) this.#waiting.delete(this.#waiting.keys().next().value);
    this.#askWhoIsHere();
  }

  /** Whoever sends signals can bring this about: so not more often than now and then. */
  #askWhoIsHere() {
    if (this.#asking !== 0 || this.roster === null) return;
    const wait = Math.max(0, this.#askedAt + ASK_MS - performance.now());
    this.#asking = setTimeout(async () => {
      this.#askedAt = performance.now();
      const asked = [...this.#waiting.keys()];
      await this.roster.refresh();
      this.#asking = 0;
      // The list is newer than these: they are not here.
      for (const from of asked) this.#waiting.delete(from);
      if (this.#waiting.size > 0 && !this.#ended.signal.aborted) this.#askWhoIsHere();
    }, wait);
  }

  /** Takes what waited, of those who are here now. */
  #takeWaiting() {
    for (const [from, signals] of this.#waiting) {
      if (!this.roster.members.has(from)) continue;
      this.#waiting.delete(from);
      for (const data of signals) this.#enqueue(from, data);
    }
  }

  #enqueue(from, data) {
    this.#taken = this.#taken.then(() => this.#take(from, data)).catch((error) => this.#report(error.message));
  }

  async #take(from, data) {
    // A client has one call, and only its own client speaks for it.
    if (!this.peers.has(from) && data.kind === "hello") await this.#findAgain(from, data);
    if (this.#ended.signal.aborted) return;
    const known = this.peers.get(from);
    if (known && known.tag !== data.call) return;
    if (data.kind === "bye") {
      if (known) this.#drop(known);
    } else if (data.kind === "hello") {
      const peer = known ?? this.#meet(from, data.call);
      if (!peer) return;
      // Who did not say our tag has not heard it yet.
      if (data.to !== this.#tag) this.#hello(from, data.call);
      if (known) this.#isBack(peer);
    } else if (data.kind === "negotiate") {
      // What is negotiated before any hello came is as good as one.
      if (known?.beginsAnew(data) && !this.#mayBegin(from)) return this.#giveUp(known);
      const peer = known ?? this.#meet(from, data.call);
      // Not waited for: where a connection ends meanwhile, the browser never says what became of what it was told.
      if (peer) this.#negotiate(peer, data);
    }
  }

  async #negotiate(peer, data) {
    try {
      await peer.receive(data);
    } catch (error) {
      this.#report(error.message);
    }
  }

  /** Whether a connection to this client may be begun now; that it may not is said once. */
  #mayBegin(clientId) {
    const answer = this.#beginnings.ask(clientId);
    if (answer === "first no") {
      this.#report(`The connection to ${this.#people.name(clientId)} was given up after too many attempts. Try again in a minute.`);
    }
    return answer === "yes";
  }

  /** Binds the peer to this id that came back under it, if one has. */
  async #findAgain(from, { call, back }) {
    if (!Array.isArray(back)) return;
    const to = this.#client.id;
    for (const peer of [...this.peers.values()]) {
      if (peer.tag !== call || peer.theirKey === null) continue;
      const shown = await proof(peer.theirKey, from, to);
      if (!back.includes(shown) || this.peers.get(peer.clientId) !== peer || this.peers.has(from)) continue;
      this.peers.delete(peer.clientId);
      peer.clientId = from;
      this.peers.set(from, peer);
      return;
    }
  }

  #meet(clientId, tag) {
    if (this.peers.size >= MOST_PEOPLE - 1) {
      const gone = [...this.peers.values()].find((peer) => !this.roster.members.has(peer.clientId) && peer.state !== "connected");
      if (!gone) return null;
      this.#drop(gone);
    }
    if (!this.#mayBegin(clientId)) return null;
    const peer = new Peer({
      tag,
      clientId,
      // Whichever side: only that the two differ counts.
      isPolite: this.#tag < tag,
      send: (to, signal) => this.#send(to.clientId, { kind: "negotiate", to: to.tag, ...signal }),
      iceServers: this.#iceServers,
      local: this.#local,
    });
    this.peers.set(clientId, peer);
    this.#giveTime(peer);
    peer.addEventListener("change", () => {
      if (peer.state === "connected") this.#enoughTime(peer);
      if (peer.isOver && !this.roster?.members.has(peer.clientId)) this.#drop(peer);
      this.#changed();
    });
    peer.addEventListener("gone", () => this.#drop(peer));
    peer.addEventListener("text", ({ detail: text }) => {
      this.dispatchEvent(new CustomEvent("text", { detail: { from: peer.clientId, text } }));
    });
    peer.addEventListener("problem", ({ detail: error }) => {
      this.#report(`The connection to ${this.#people.name(peer.clientId)} had a problem: ${error.message}`);
    });
    this.#changed();
    return peer;
  }

  #isBack(peer) {
    clearTimeout(this.#awaited.get(peer));
    this.#awaited.delete(peer);
    peer.resume();
  }

  /** A connection that never comes about is given up: its place may be another's. */
  #giveTime(peer) {
    const late = () => {
      this.#report(`No connection to ${this.#people.name(peer.clientId)} could be made. Hang up and enter again to retry.`);
      this.#giveUp(peer);
    };
    this.#connecting.set(peer, setTimeout(late, CONNECTS_MS));
  }

  /** Drops somebody who may well be there, and tells them. */
  #giveUp(peer) {
    this.#send(peer.clientId, { kind: "bye", to: peer.tag }).catch(() => {});
    this.#drop(peer);
  }

  #enoughTime(peer) {
    clearTimeout(this.#connecting.get(peer));
    this.#connecting.delete(peer);
  }

  /** Somebody is not in the room any more: for good, or until the connection to the server is back. */
  #left(clientId) {
    this.#greeted.delete(clientId);
    const peer = this.peerOf(clientId);
    if (!peer) return;
    if (peer.isOver) this.#drop(peer);
    else this.#await(peer);
  }

  #await(peer) {
    clearTimeout(this.#awaited.get(peer));
    const check = () => {
      this.#awaited.delete(peer);
      if (this.roster?.members.has(peer.clientId)) return;
      // The two may still talk to each other, without the server.
      if (peer.state === "connected") this.#await(peer);
      else this.#drop(peer);
    };
    this.#awaited.set(peer, setTimeout(check, COMES_BACK_MS));
  }

  #drop(peer) {
    if (this.peers.get(peer.clientId) !== peer) return;
    clearTimeout(this.#awaited.get(peer));
    this.#awaited.delete(peer);
    this.#enoughTime(peer);
    this.peers.delete(peer.clientId);
    peer.close();
    this.#changed();
  }

  #report(text) {
    this.dispatchEvent(new CustomEvent("problem", { detail: text }));
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** What only who knows the key can show, in the name of one client and to another. */
async function proof(key, from, to) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`${key} ${from} ${to}`));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
