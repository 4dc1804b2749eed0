// Signals of a call, with peer connections that only record what is done to them. Real ones are tested in tests/web/.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { Call, MAY_NOT_CALL } from "../webrtc/call.js";
import { IceServers } from "../webrtc/ice.js";

const TOPIC = "webrtc.lobby";

class Channel extends EventTarget {
  readyState = "open";
  bufferedAmount = 0;
  sent = [];
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  hear(message) {
    this.dispatchEvent(Object.assign(new Event("message"), { data: JSON.stringify(message) }));
  }
}

class Connection extends EventTarget {
  static all = [];
  connectionState = "new";
  signalingState = "stable";
  localDescription = null;
  remoteDescription = null;
  channel = new Channel();
  constructor() {
    super();
    Connection.all.push(this);
  }
  createDataChannel() {
    return this.channel;
  }
  addTransceiver() {
    return { sender: { replaceTrack: async () => {} } };
  }
  getTransceivers() {
    return [];
  }
  async setRemoteDescription(description) {
    this.remoteDescription = description;
  }
  async setLocalDescription() {
    this.localDescription = { toJSON: () => ({ type: "answer", sdp: "ours" }) };
  }
  async addIceCandidate() {}
  restartIce() {}
  setConfiguration() {}
  close() {
    this.connectionState = "closed";
    this.channel.readyState = "closed";
  }
  /** The two sides have connected. */
  connect() {
    this.connectionState = "connected";
    this.channel.dispatchEvent(new Event("open"));
    this.dispatchEvent(new Event("connectionstatechange"));
  }
}

const calls = [];
beforeEach(() => {
  Connection.all = [];
  globalThis.RTCPeerConnection = Connection;
  globalThis.MediaStream = class {};
});
afterEach(() => {
  for (const call of calls.splice(0)) call.leave();
  mock.timers.reset();
});

/** A call of a client in a room with others, by their ids; signals between them are passed on as by the server. */
async function callOf(id, others, { signal } = {}) {
  const present = new Set([id, ...others]);
  const subscription = Object.assign(new EventTarget(), {
    topic: TOPIC,
    ready: Promise.resolve(),
    unsubscribe: async () => {},
  });
  const client = Object.assign(new EventTarget(), {
    id,
    name: id,
    state: "open",
    sent: [],
    asked: 0,
    signal: signal ?? (async (to, data) => void client.sent.push({ to, data })),
    subscribe: () => subscription,
    presence: async () => {
      client.asked += 1;
      return { clients: [...present].map((id) => ({ id, name: id })), total: present.size };
    },
  });
  const people = { learnOwn() {}, learn() {}, name: (id) => id };
  const local = Object.assign(new EventTarget(), { stream: {}, state: {}, track: () => null });
  const iceServers = { current: [], renew: async () => [], problem: "" };
  const call = new Call(client, "lobby", { people, local, iceServers });
  calls.push(call);
  const problems = [];
  call.addEventListener("problem", ({ detail }) => problems.push(detail));
  await call.join();
  const member = (type, id) => {
    if (type === "join") present.add(id);
    else present.delete(id);
    subscription.dispatchEvent(Object.assign(new Event(type), { detail: { topic: TOPIC, client: { id, name: id } } }));
  };
  return {
    call,
    client,
    problems,
    present,
    join: (id) => member("join", id),
    leave: (id) => member("leave", id),
    hear: (from, data) =>
      client.dispatchEvent(new CustomEvent("signal", { detail: { from, data: { room: TOPIC, ...data } } })),
    peers: () => [...call.peers.values()].map(({ clientId, tag }) => `${clientId} ${tag}`),
  };
}

/** Waits until all pending work is done, including hashing outside the thread. */
async function settled() {
  for (let turn = 0; turn < 20; turn += 1) {
    await crypto.subtle.digest("SHA-256", new Uint8Array(1));
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test("no client can speak for another: not by hello, negotiate or bye with the other's tag", async () => {
  const bob = await callOf("bob", ["ada", "mallory"]);
  bob.hear("ada", { kind: "hello", call: "tag of Ada" });
  bob.hear("ada", { kind: "negotiate", call: "tag of Ada", link: "1", description: { type: "offer", sdp: "Ada's" } });
  await settled();
  assert.deepEqual(bob.peers(), ["ada tag of Ada"]);
  const [connection] = Connection.all;
  connection.connect();

  bob.hear("mallory", { kind: "bye", call: "tag of Ada" });
  bob.hear("mallory", { kind: "hello", call: "tag of Ada", back: ["guessed"] });
  bob.hear("mallory", {
    kind: "negotiate",
    call: "tag of Ada",
    link: "2",
    description: { type: "offer", sdp: "Mallory's" },
  });
  await settled();
  assert.equal(connection.connectionState, "connected");
  assert.equal(connection.remoteDescription.sdp, "Ada's");
  assert.equal(bob.call.peerOf("ada").state, "connected");
  assert.notEqual(bob.call.peerOf("mallory"), bob.call.peerOf("ada"), "Mallory's signals are Mallory's");

  // Neither when Ada is away.
  bob.leave("ada");
  bob.hear("mallory", { kind: "hello", call: "tag of Ada" });
  await settled();
  assert.equal(bob.call.peerOf("ada").state, "connected");
});

test("a client that returns under another id is recognised by the key sent over the connection", async () => {
  const wire = new Map();
  const signal = (from) => async (to, data) => void wire.get(to)?.hear(from.id, data);
  const [ada, bob] = [{ id: "ada" }, { id: "bob" }];
  wire.set("ada", await callOf("ada", ["bob"], { signal: signal(ada) }));
  wire.set("bob", await callOf("bob", ["ada"], { signal: signal(bob) }));
  await settled();
  const ofAda = wire.get("ada");
  const ofBob = wire.get("bob");
  const here = ofBob.call.peerOf("ada");
  const there = ofAda.call.peerOf("bob");
  assert.ok(here && there);
  const [atBob, atAda] = [Connection.all.at(-2), Connection.all.at(-1)];
  for (const connection of [atBob, atAda]) connection.connect();
  for (const [one, other] of [
    [atBob, atAda],
    [atAda, atBob],
  ])
    for (const message of one.channel.sent) other.channel.hear(message);

  // Both have lost the server, and return under other ids.
  wire.clear();
  ofBob.leave("ada");
  ofAda.leave("bob");
  [ada.id, bob.id] = ["ada again", "bob again"];
  for (const [side, { id }, other] of [
    [ofAda, ada, bob],
    [ofBob, bob, ada],
  ]) {
    side.client.id = id;
    wire.set(id, side);
    side.join(id);
    side.join(other.id);
  }
  await settled();
  assert.equal(ofBob.call.peerOf("ada again"), here);
  assert.equal(ofAda.call.peerOf("bob again"), there);
  assert.equal(ofBob.call.peers.size, 1);
  assert.equal(Connection.all.length, 2, "no new connection was made");
});

test("a client has one place, however many tags it has", async () => {
  const bob = await callOf("bob", ["ada", "mallory"]);
  for (const tag of ["1", "2", "3"]) bob.hear("mallory", { kind: "hello", call: tag });
  bob.hear("ada", { kind: "hello", call: "tag of Ada" });
  await settled();
  assert.deepEqual(bob.peers(), ["mallory 1", "ada tag of Ada"]);
});

test("a connection that never opens is given up", async () => {
  const bob = await callOf("bob", ["ada", "eve"]);
  mock.timers.enable({ apis: ["setTimeout"] });
  bob.hear("ada", { kind: "hello", call: "tag of Ada" });
  bob.hear("eve", { kind: "hello", call: "tag of Eve" });
  await settled();
  Connection.all[1].connect();
  mock.timers.tick(60_000);
  assert.deepEqual(bob.peers(), ["eve tag of Eve"]);
  assert.match(bob.problems.join(), /Could not connect to ada/);
});

test("strangers cannot make the page ask for the list of members all the time", async () => {
  const bob = await callOf("bob", []);
  const before = bob.client.asked;
  mock.timers.enable({ apis: ["setTimeout"] });
  for (let round = 0; round < 50; round += 1) {
    bob.hear(`stranger ${round % 7}`, { kind: "hello", call: "x" });
    mock.timers.tick(1);
    await settled();
  }
  assert.equal(bob.client.asked - before, 1);
});

test("a stranger cannot displace clients whose signals wait until they are seen", async () => {
  const bob = await callOf("bob", []);
  for (let at = 0; at < 200; at += 1) bob.hear("stranger", { kind: "hello", call: "x" });
  bob.hear("ada", { kind: "hello", call: "tag of Ada" });
  bob.join("ada");
  await settled();
  assert.deepEqual(bob.peers(), ["ada tag of Ada"]);
});

/** A browser that has no more connections to give. */
class NoConnection {
  constructor() {
    throw new Error("no more connections");
  }
}

test("a client that starts again and again is dropped with a reason, and no other is", async (t) => {
  let now = 1_000_000;
  t.mock.method(performance, "now", () => now);
  const bob = await callOf("bob", ["ada", "mallory"]);
  const offer = (link) => ({
    kind: "negotiate",
    call: "tag of Mallory",
    link,
    description: { type: "offer", sdp: link },
  });
  bob.hear("ada", { kind: "negotiate", call: "tag of Ada", link: "1", description: { type: "offer", sdp: "Ada's" } });
  for (let at = 0; at < 1200; at += 1) bob.hear("mallory", offer(`link ${at}`));
  await settled();
  assert.deepEqual(bob.peers(), ["ada tag of Ada"]);
  assert.match(bob.problems.join("\n"), /^Gave up connecting to mallory.*attempts/);
  assert.ok(Connection.all.length <= 6, `${Connection.all.length} connections were made`);
  assert.equal(Connection.all.filter(({ connectionState }) => connectionState !== "closed").length, 1);

  // Hanging up in between, or another tag each time, is no way around that.
  for (let at = 0; at < 100; at += 1) {
    const call = `tag ${at}`;
    bob.hear("mallory", { kind: "hello", call });
    bob.hear("mallory", { kind: "bye", call });
  }
  await settled();
  assert.deepEqual([bob.peers(), bob.problems.length], [["ada tag of Ada"], 1]);
  assert.ok(Connection.all.length <= 6, `${Connection.all.length} connections were made`);

  now += 120_000;
  bob.hear("mallory", { kind: "hello", call: "tag of Mallory" });
  await settled();
  assert.deepEqual(bob.peers(), ["ada tag of Ada", "mallory tag of Mallory"], "later it may be tried again");
});

test("if the browser has no connection left, the page says so, and the present one stays", async () => {
  const bob = await callOf("bob", ["ada", "eve"]);
  bob.hear("ada", { kind: "negotiate", call: "tag of Ada", link: "1", description: { type: "offer", sdp: "first" } });
  await settled();
  globalThis.RTCPeerConnection = NoConnection;
  bob.hear("ada", { kind: "negotiate", call: "tag of Ada", link: "2", description: { type: "offer", sdp: "second" } });
  bob.hear("eve", { kind: "hello", call: "tag of Eve" });
  await settled();
  assert.deepEqual(bob.problems, ["Problem with the connection to ada: no more connections", "no more connections"]);
  assert.deepEqual(bob.peers(), ["ada tag of Ada"]);
  assert.equal(Connection.all[0].connectionState, "new");
});

test("a refusal of signals by the server is shown once", async () => {
  const signal = async () => {
    throw Object.assign(new Error("not allowed"), { code: 403 });
  };
  const bob = await callOf("bob", ["ada", "eve"], { signal });
  await settled();
  assert.deepEqual(bob.problems, [MAY_NOT_CALL]);
});

test("a client that may not call is told so, and not how far calls reach", async (t) => {
  const answer = (status, body) => async () => new Response(JSON.stringify(body), { status });
  const told = async (fetched) => {
    t.mock.method(globalThis, "fetch", fetched);
    const servers = new IceServers("a token");
    assert.deepEqual(await servers.renew(), []);
    return servers.problem;
  };
  assert.equal(await told(answer(403, { error: "this client may not signal" })), MAY_NOT_CALL);
  const problem = "No STUN or TURN servers (away): calls may work only within your network.";
  assert.equal(await told(answer(503, { error: "away" })), problem);
  assert.equal(await told(async () => Promise.reject(new Error("away"))), problem);
  assert.equal(await told(answer(200, { iceServers: [] })), "");
});
