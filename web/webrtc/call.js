// A call: the members of the room (presence on the topic `webrtc.<room>`), and a peer connection to each of them,
// negotiated by signals through the server. Independent of the page, which listens for "change", "text" and "problem".
//
// Each side has a random tag for its call, and sends it in a hello to everyone in the room. All of them know the tag,
// so it proves nothing: peers are identified by the client ID, which the server vouches for. The ID changes with a
// reconnect, while the connection between two browsers survives it. Therefore each side sends a key over that
// connection only, and after a reconnect proves with it that it is the same peer.

import { Roster } from "../ui/roster.js";
import { AttemptLimit } from "./attempts.js";
import { Peer } from "./peer.js";

export const TOPIC_PREFIX = "webrtc.";
/** The maximum number of people in a room, including the user. Small, because in a mesh everyone sends to everyone. */
export const MAX_PEOPLE = 4;
// How long a peer that left the room without a "bye" may take to come back.
const COMES_BACK_MS = 15_000;
// Bounds on the signals that wait until their sender is known to be in the room, and how often that is checked.
const MAX_WAITING = 24;
const MAX_SENDERS = 16;
const ASK_MS = 2000;
// How long a connection may take, including attempts to find another path.
const CONNECTS_MS = 45_000;

/** Shown if the server refuses signals, without which there is no call. */
export const MAY_NOT_CALL = "You are not allowed to make calls.";

export class RoomFull extends Error {}

export class Call extends EventTarget {
  /** @type {Map<string, Peer>} by the other's client ID */
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
  /** The end of the queue of signals, which are handled one after the other. */
  #queue = Promise.resolve();
  #awaited = new Map();
  #connecting = new Map();
  #attempts = new AttemptLimit();
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

  /** Joins the room. Rejects if the server refuses, and with `RoomFull`. */
  async join() {
    const { signal } = this.#ended;
    this.#client.addEventListener("signal", ({ detail }) => this.#receive(detail), { signal });
    this.#client.addEventListener("open", () => this.#learnOwnId(), { signal });
    this.#local.addEventListener(
      "change",
      ({ detail: kind }) => {
        for (const peer of this.peers.values()) peer.setTrack(kind, this.#local.track(kind));
        this.#changed();
      },
      { signal },
    );
    this.#learnOwnId();
    await this.#iceServers.renew();
    const subscription = this.#client.subscribe(this.#topic, { presence: true });
    this.#subscription = subscription;
    const roster = new Roster(this.#client, subscription);
    roster.addEventListener("leave", ({ detail }) => this.#left(detail.id), { signal });
    // For the call, another ID is another client, until it proves to be the same peer.
    roster.addEventListener("return", ({ detail }) => this.#left(detail.was), { signal });
    roster.addEventListener("change", () => this.#greetAll(), { signal });
    subscription.addEventListener(
      "end",
      ({ detail }) => {
        if (detail !== null && this.#client.state !== "closed")
          this.#report(`You are no longer in this room: ${detail.message}`);
      },
      { signal },
    );
    await subscription.ready;
    await roster.refresh();
    if (roster.error !== null) throw roster.error;
    if (roster.total > MAX_PEOPLE) throw new RoomFull(`This room is full: it already has ${MAX_PEOPLE} people.`);
    this.roster = roster;
    this.#greetAll();
    if (this.#waiting.size > 0) this.#askWhoIsHere();
  }

  /** The peer with this client ID, or `null`. */
  peerOf(clientId) {
    return this.peers.get(clientId) ?? null;
  }

  /** The mark to show next to a client's name, or "". */
  markOf(id) {
    const name = this.#people.name(id);
    const others = [...(this.roster?.members.keys() ?? [])].filter((other) => other !== id);
    return this.#people.mark(
      id,
      others.some((other) => this.#people.name(other) === name),
    );
  }

  /** Sends a text to everyone in the call. Returns to how many it could be sent. */
  say(text) {
    return [...this.peers.values()].filter((peer) => peer.say(text)).length;
  }

  /** Leaves at once, without waiting for the server. */
  leave() {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort();
    clearTimeout(this.#asking);
    for (const timer of [...this.#awaited.values(), ...this.#connecting.values()]) clearTimeout(timer);
    for (const peer of this.peers.values()) {
      // Through the server and over the peer connection, as either may still work.
      this.#send(peer.clientId, { kind: "bye", to: peer.tag }).catch(() => {});
      peer.close();
    }
    this.peers.clear();
    this.#subscription?.unsubscribe().catch(() => {});
  }

  #learnOwnId() {
    const { id, name } = this.#client;
    if (id !== null) this.#people.learnOwn(id, name);
  }

  /** Sends a hello to everyone in the room who has not got one from the current client ID. */
  #greetAll() {
    if (this.roster === null || this.#ended.signal.aborted) return;
    this.#handleWaiting();
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
      // The other has probably left, which presence reports as well.
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
    else this.#hold(from, data);
  }

  /** Keeps a signal of an unknown sender: signals bypass the topic, so they may arrive before a member's presence. */
  #hold(from, data) {
    const signals = this.#waiting.get(from) ?? [];
    if (signals.length >= MAX_WAITING) return;
    signals.push(data);
    this.#waiting.set(from, signals);
    if (this.#waiting.size > MAX_SENDERS) this.#waiting.delete(this.#waiting.keys().next().value);
    this.#askWhoIsHere();
  }

  /** Refreshes the roster, at most once per interval, because any client can trigger this by sending signals. */
  #askWhoIsHere() {
    if (this.#asking !== 0 || this.roster === null) return;
    const wait = Math.max(0, this.#askedAt + ASK_MS - performance.now());
    this.#asking = setTimeout(async () => {
      this.#askedAt = performance.now();
      const asked = [...this.#waiting.keys()];
      await this.roster.refresh();
      this.#asking = 0;
      // The list is newer than these signals, so their senders are not in the room.
      for (const from of asked) this.#waiting.delete(from);
      if (this.#waiting.size > 0 && !this.#ended.signal.aborted) this.#askWhoIsHere();
    }, wait);
  }

  /** Handles the waiting signals of clients that are in the room now. */
  #handleWaiting() {
    for (const [from, signals] of this.#waiting) {
      if (!this.roster.members.has(from)) continue;
      this.#waiting.delete(from);
      for (const data of signals) this.#enqueue(from, data);
    }
  }

  #enqueue(from, data) {
    this.#queue = this.#queue.then(() => this.#handle(from, data)).catch((error) => this.#report(error.message));
  }

  async #handle(from, data) {
    // A client has one call, and only that client can send signals for it.
    if (!this.peers.has(from) && data.kind === "hello") await this.#rebind(from, data);
    if (this.#ended.signal.aborted) return;
    const known = this.peers.get(from);
    if (known && known.tag !== data.call) return;
    if (data.kind === "bye") {
      if (known) this.#drop(known);
    } else if (data.kind === "hello") {
      const peer = known ?? this.#addPeer(from, data.call);
      if (!peer) return;
      // A hello without our tag is from a peer that does not know it yet.
      if (data.to !== this.#tag) this.#hello(from, data.call);
      if (known) this.#resume(peer);
    } else if (data.kind === "negotiate") {
      // A negotiation that arrives before any hello counts as one.
      if (known?.isRestart(data) && !this.#mayConnect(from)) return this.#giveUp(known);
      const peer = known ?? this.#addPeer(from, data.call);
      // Not awaited: if the connection is closed meanwhile, the browser never settles its promises.
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

  /** Whether a connection to this client may be attempted now. Reports the first refusal. */
  #mayConnect(clientId) {
    const answer = this.#attempts.ask(clientId);
    if (answer === "first no") {
      const name = this.#people.name(clientId);
      this.#report(`Gave up connecting to ${name} after too many attempts. Try again in a minute.`);
    }
    return answer === "yes";
  }

  /** Finds the peer that came back with this client ID, and binds it to the ID. */
  async #rebind(from, { call, back }) {
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

  #addPeer(clientId, tag) {
    if (this.peers.size >= MAX_PEOPLE - 1) {
      const gone = [...this.peers.values()].find(
        (peer) => !this.roster.members.has(peer.clientId) && peer.state !== "connected",
      );
      if (!gone) return null;
      this.#drop(gone);
    }
    if (!this.#mayConnect(clientId)) return null;
    const peer = new Peer({
      tag,
      clientId,
      // Arbitrary, but different on the two sides.
      isPolite: this.#tag < tag,
      send: (to, signal) => this.#send(to.clientId, { kind: "negotiate", to: to.tag, ...signal }),
      iceServers: this.#iceServers,
      local: this.#local,
    });
    this.peers.set(clientId, peer);
    this.#startTimer(peer);
    peer.addEventListener("change", () => {
      if (peer.state === "connected") this.#stopTimer(peer);
      if (peer.isOver && !this.roster?.members.has(peer.clientId)) this.#drop(peer);
      this.#changed();
    });
    peer.addEventListener("gone", () => this.#drop(peer));
    peer.addEventListener("text", ({ detail: text }) => {
      this.dispatchEvent(new CustomEvent("text", { detail: { from: peer.clientId, text } }));
    });
    peer.addEventListener("problem", ({ detail: error }) => {
      this.#report(`Problem with the connection to ${this.#people.name(peer.clientId)}: ${error.message}`);
    });
    this.#changed();
    return peer;
  }

  #resume(peer) {
    clearTimeout(this.#awaited.get(peer));
    this.#awaited.delete(peer);
    peer.resume();
  }

  /** Gives up a connection that is not established in time, as another peer may need its place. */
  #startTimer(peer) {
    const late = () => {
      this.#report(`Could not connect to ${this.#people.name(peer.clientId)}. To retry, hang up and join again.`);
      this.#giveUp(peer);
    };
    this.#connecting.set(peer, setTimeout(late, CONNECTS_MS));
  }

  /** Drops a peer that may still be there, and tells it. */
  #giveUp(peer) {
    this.#send(peer.clientId, { kind: "bye", to: peer.tag }).catch(() => {});
    this.#drop(peer);
  }

  #stopTimer(peer) {
    clearTimeout(this.#connecting.get(peer));
    this.#connecting.delete(peer);
  }

  /** Handles a member that left: for good, or until its connection to the server is back. */
  #left(clientId) {
    this.#greeted.delete(clientId);
    const peer = this.peerOf(clientId);
    if (!peer) return;
    if (peer.isOver) this.#drop(peer);
    else this.#awaitReturn(peer);
  }

  #awaitReturn(peer) {
    clearTimeout(this.#awaited.get(peer));
    const check = () => {
      this.#awaited.delete(peer);
      if (this.roster?.members.has(peer.clientId)) return;
      // The two may still be connected directly, without the server.
      if (peer.state === "connected") this.#awaitReturn(peer);
      else this.#drop(peer);
    };
    this.#awaited.set(peer, setTimeout(check, COMES_BACK_MS));
  }

  #drop(peer) {
    if (this.peers.get(peer.clientId) !== peer) return;
    clearTimeout(this.#awaited.get(peer));
    this.#awaited.delete(peer);
    this.#stopTimer(peer);
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

/** Proves knowledge of the key, from one client to another. */
async function proof(key, from, to) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`${key} ${from} ${to}`));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
