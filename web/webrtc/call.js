// A call: who is in the room (presence on the topic `webrtc.<room>`), and a peer connection to each of them, negotiated by
// signals that the server hands over. Knows nothing of the page, which listens for "change", "text" and "problem".
//
// Each side has a random tag for its call, and says it in a hello to everyone whom it sees in the room. Peers go by these
// tags: a client's id is another one after a reconnect, and a connection between two browsers outlives the server's.

import { Roster } from "../ui/roster.js";
import { Peer } from "./peer.js";

export const TOPIC_PREFIX = "webrtc.";
/** A mesh: everyone sends to everyone, so a room is small. Oneself is counted. */
export const MOST_PEOPLE = 4;
// How long somebody who left the room without a word may take to come back.
const COMES_BACK_MS = 15_000;
// How many signals wait until it is known whether their senders are in the room.
const MOST_WAITING = 64;

export class RoomFull extends Error {}

export class Call extends EventTarget {
  /** @type {Map<string, Peer>} by the tag of the other's call */
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
  #waiting = [];
  #isAsking = false;
  #awaited = new Map();
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
    if (roster.total > MOST_PEOPLE) throw new RoomFull(`This room is full: ${MOST_PEOPLE} people are in it already.`);
    this.roster = roster;
    this.#lookAround();
    if (this.#waiting.length > 0) this.#askWhoIsHere();
  }

  /** The peer whose signals come from this client, if there is one. */
  peerOf(clientId) {
    return [...this.peers.values()].find((peer) => peer.clientId === clientId) ?? null;
  }

  /** Says something to everyone in the call; gives how many it could be sent to. */
  say(text) {
    return [...this.peers.values()].filter((peer) => peer.say(text)).length;
  }

  /** Leaves at once; what is said to the server is not waited for. */
  leave() {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort();
    for (const timer of this.#awaited.values()) clearTimeout(timer);
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
    if (this.roster === null) return;
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

  #hello(to, theirTag) {
    // Who is not there any more has left, which presence tells as well.
    this.#send(to, { kind: "hello", to: theirTag }).catch(() => this.#greeted.delete(to));
  }

  #send(to, signal) {
    return this.#client.signal(to, { room: this.#topic, call: this.#tag, ...signal });
  }

  #receive({ from, data }) {
    const isOurs = data?.room === this.#topic && typeof data.call === "string" && data.call !== this.#tag;
    if (!isOurs || (data.to && data.to !== this.#tag)) return;
    if (this.roster?.members.has(from)) {
      this.#take(from, data);
    } else if (this.#waiting.length < MOST_WAITING) {
      // Signals come past the topic: who has just come in may be heard before being seen. Who is not in the room is not
      // listened to.
      this.#waiting.push({ from, data });
      this.#askWhoIsHere();
    }
  }

  async #askWhoIsHere() {
    if (this.#isAsking || this.roster === null) return;
    this.#isAsking = true;
    await this.roster.refresh();
    this.#isAsking = false;
    for (const { from, data } of this.#waiting.splice(0)) {
      if (this.roster.members.has(from)) this.#take(from, data);
    }
  }

  #take(from, data) {
    if (this.#ended.signal.aborted) return;
    const known = this.peers.get(data.call);
    if (data.kind === "bye") {
      if (known) this.#drop(known);
    } else if (data.kind === "hello") {
      const peer = known ?? this.#meet(from, data.call);
      if (!peer) return;
      // Who did not say our tag has not heard it yet.
      if (data.to !== this.#tag) this.#hello(from, data.call);
      if (known) this.#isBack(peer, from);
    } else if (data.kind === "negotiate") {
      // What is negotiated before any hello came is as good as one.
      (known ?? this.#meet(from, data.call))?.receive(data);
    }
  }

  #meet(clientId, tag) {
    if (this.peers.size >= MOST_PEOPLE - 1) return null;
    const peer = new Peer({
      tag,
      clientId,
      // Whichever side: only that the two differ counts.
      isPolite: this.#tag < tag,
      send: (to, signal) => this.#send(to.clientId, { kind: "negotiate", to: to.tag, ...signal }),
      iceServers: this.#iceServers,
      local: this.#local,
    });
    this.peers.set(tag, peer);
    peer.addEventListener("change", () => {
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

  #isBack(peer, clientId) {
    clearTimeout(this.#awaited.get(peer));
    this.#awaited.delete(peer);
    peer.rebind(clientId);
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
    if (this.peers.get(peer.tag) !== peer) return;
    clearTimeout(this.#awaited.get(peer));
    this.#awaited.delete(peer);
    this.peers.delete(peer.tag);
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
