// Values, users, requests, members and narrowed subscriptions, with a real server.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, test } from "node:test";

import { connect, JsonText } from "../qws.js";
import { next, quick } from "./support/scripted.js";
import { needsServer, startRelay, startServer } from "./support/server.js";

const SECRET = "a secret of more than 32 bytes, for tests alone";
const settings = `
[limits]
compress_min_bytes = 64
[[topics]]
pattern = "room"
presence_grace_ms = 600000
[auth]
[[auth.keys]]
algorithm = "HS256"
secret = "${SECRET}"
`;

let server;
before(async () => {
  if (!needsServer.skip) server = await startServer({ settings });
});
after(() => server?.stop());

/** A token of a user, who may do everything to everybody. */
function token(sub, claims = {}) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const topics = { subscribe: ">", publish: ">", history: ">", presence: ">" };
  const others = { direct: true, signal: true, broadcast: true };
  const payload = { sub, exp: Math.floor(Date.now() / 1000) + 3600, ...topics, ...others, ...claims };
  const head = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(payload)}`;
  return `${head}.${createHmac("sha256", SECRET).update(head).digest("base64url")}`;
}

async function client(t, user, options = {}) {
  const made = connect(options.url ?? server.url, { ...quick, token: token(user, options.claims), ...options.options });
  t.after(() => made.close());
  await made.ready;
  return made;
}

async function until(condition) {
  const end = performance.now() + 10_000;
  while (!condition()) {
    assert.ok(performance.now() < end, `still waiting for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test("values arrive as they were sent, with their sender, live and from history", needsServer, async (t) => {
  const ada = await client(t, "ada", { claims: { name: "Ada L." } });
  const topic = "values";
  const room = ada.subscribe(topic);
  await room.ready;
  const exact = new JsonText('{"n" : 18446744073709551617}');
  await ada.publish(topic, exact, { meta: { event: "made" }, ttlMs: 60_000, bytes: new Uint8Array([7]) });
  await ada.publish(topic, null);
  const { value: live } = await room[Symbol.asyncIterator]().next();
  const { messages } = await ada.history(topic);
  for (const message of [live, messages[0]]) {
    assert.deepEqual([message.user, message.name, message.from], ["ada", "Ada L.", ada.id]);
    assert.deepEqual([message.json, message.meta, [...message.bytes]], [exact.text, { event: "made" }, [7]]);
    assert.equal(message.expiresAt, message.timestamp + 60_000);
  }
  assert.deepEqual([messages[1].data, messages[1].text, messages[1].json], [null, undefined, "null"]);
});

test("long messages are compressed, and arrive as they were", needsServer, async (t) => {
  const [ada, plain] = [await client(t, "ada"), await client(t, "bob", { options: { compression: false } })];
  const rooms = [ada.subscribe("long"), plain.subscribe("long")];
  for (const room of rooms) await room.ready;
  const text = "häufige Wörter ".repeat(5000);
  await ada.publish("long", { text });
  await ada.publish("long", "short");
  for (const room of rooms) {
    const all = room[Symbol.asyncIterator]();
    assert.equal((await all.next()).value.data.text, text);
    assert.equal((await all.next()).value.text, "short");
  }
});

test("a user is reached on every connection", needsServer, async (t) => {
  const ada = await client(t, "ada");
  const bobs = [await client(t, "bob"), await client(t, "bob", { claims: { info: { role: "dev" } } })];
  const heard = bobs.map((bob) => Promise.all([next(bob, "direct"), next(bob, "signal")]));
  assert.equal(await ada.direct({ user: "bob" }, { task: 7 }, { meta: { event: "assigned" } }), 2);
  assert.equal(await ada.signal({ user: "bob" }, [1]), 2);
  for (const [direct, signal] of await Promise.all(heard)) {
    assert.deepEqual([direct.data, direct.meta, direct.user], [{ task: 7 }, { event: "assigned" }, "ada"]);
    assert.deepEqual([signal.data, signal.user], [[1], "ada"]);
  }
  assert.deepEqual([bobs[1].info, ada.info], [{ role: "dev" }, null]);
  await assert.rejects(ada.direct({ user: "nobody" }, "x"), { code: 404 });
});

test("requests are answered by topic, by client and by user", needsServer, async (t) => {
  const ada = await client(t, "ada");
  const onRequest = ({ text, user }) => (text === "no" ? Promise.reject(new Error("not today")) : `hello ${user}`);
  const bob = await client(t, "bob", { options: { onRequest } });
  const service = bob.serve("rpc.sum", ({ data }) => data.reduce((one, other) => one + other));
  await service.ready;
  assert.equal((await ada.request("rpc.sum", [1, 2, 3])).data, 6);
  assert.equal((await ada.request({ user: "bob" }, "hi")).text, "hello ada");
  const { text, from, user } = await ada.request({ to: bob.id }, "hi");
  assert.deepEqual([text, from, user], ["hello ada", bob.id, "bob"]);
  await assert.rejects(ada.request({ user: "bob" }, "no"), { code: 500, message: "not today" });
  await assert.rejects(ada.request("rpc.sum", 1), { code: 500 });
  await service.unsubscribe();
  await assert.rejects(ada.request("rpc.sum", [1]), { kind: "request", code: 404 });
});

test("a request that is given up stops its handler, and many may be open", needsServer, async (t) => {
  const [ada, bob] = [await client(t, "ada"), await client(t, "bob")];
  let stopped = 0;
  const open = [];
  await bob.serve("rpc.slow", ({ data, signal }) => {
    signal.addEventListener("abort", () => (stopped += 1));
    return new Promise((resolve) => open.push(() => resolve(data)));
  }).ready;
  const stop = new AbortController();
  const given = ada.request("rpc.slow", "x", { signal: stop.signal });
  await until(() => open.length === 1);
  stop.abort(new Error("never mind"));
  await assert.rejects(given, { message: "never mind" });
  await until(() => stopped === 1);
  await assert.rejects(ada.request("rpc.slow", "x", { timeoutMs: 100 }), { kind: "timeout", code: 504 });
  await until(() => stopped === 2);
  open.length = 0;
  const all = Array.from({ length: 200 }, (_, at) => ada.request("rpc.slow", at));
  await until(() => open.length === 200);
  await ada.publish("other", "meanwhile");
  for (const resolve of open.reverse()) resolve();
  assert.deepEqual((await Promise.all(all)).map(({ data }) => data), all.map((_, at) => at));
  const left = ada.request("rpc.slow", "x");
  await until(() => open.length === 201);
  await bob.close();
  await assert.rejects(left, { code: 502 });
});

test("members are kept with their states, and come back from a lost connection", needsServer, async (t) => {
  const relay = await startRelay(server.port);
  t.after(() => relay.stop());
  const ada = await client(t, "ada");
  const room = ada.subscribe("room", { members: true });
  await next(room, "members");
  assert.deepEqual(room.members.map(({ id }) => id), [ada.id]);
  const bob = await client(t, "bob", { url: relay.url });
  const joined = next(room, "join");
  const atRoom = bob.subscribe("room", { state: { typing: true } });
  await atRoom.ready;
  assert.deepEqual((await joined).client.state, { typing: true });
  const entry = () => room.members.find(({ user }) => user === "bob");
  assert.deepEqual([entry().id, entry().state], [bob.id, { typing: true }]);
  const changed = next(room, "state");
  await atRoom.setState("away");
  assert.equal((await changed).client.state, "away");
  assert.equal(entry().state, "away");
  const before = bob.id;
  const back = next(room, "return");
  room.addEventListener("leave", () => assert.fail("nobody left"), { once: true });
  relay.cut();
  const { was, client: returned } = await back;
  assert.equal(was, before);
  await until(() => bob.id === returned.id);
  assert.deepEqual([entry().id, entry().state, entry().away], [bob.id, "away", undefined]);
  await room.setState({ mine: 1 });
  assert.deepEqual(room.members.find(({ id }) => id === ada.id).state, { mine: 1 });
  const { total, users, clients } = await bob.presence("room", { limit: 1 });
  assert.deepEqual([total, users, clients.length], [2, 2, 1]);
  const all = [];
  for await (const { user } of bob.members("room")) all.push(user);
  assert.deepEqual(all.sort(), ["ada", "bob"]);
});

test("numbers of members, and subscriptions that bring less", needsServer, async (t) => {
  const [ada, bob] = [await client(t, "ada"), await client(t, "bob")];
  const counts = [];
  const stadium = ada.subscribe("stadium", { presence: "counts" });
  stadium.addEventListener("occupancy", ({ detail }) => counts.push([detail.clients, detail.users]));
  await stadium.ready;
  await bob.subscribe("stadium").ready;
  await until(() => counts.at(-1)?.[0] === 2);
  assert.deepEqual(counts.at(-1), [2, 2]);
  const heard = [];
  const load = ada.subscribe("load", { filter: { host: { prefix: "eu-" }, core: 0 }, echo: false });
  load.addEventListener("message", ({ detail }) => heard.push(detail.text));
  await load.ready;
  for (const [from, host] of [[ada, "eu-1"], [bob, "us-1"], [bob, "eu-2"]]) {
    await from.publish("load", host, { meta: { host, core: 0 } });
  }
  await until(() => heard.length > 0);
  assert.deepEqual(heard, ["eu-2"]);
  const many = [];
  const slow = ada.subscribe("many", { maxRate: 1 });
  slow.addEventListener("message", ({ detail }) => many.push(detail.data));
  await slow.ready;
  for (let at = 0; at < 10; at += 1) await bob.publish("many", at);
  await until(() => many.at(-1) === 9);
  assert.ok(many.length <= 3, String(many));
});

test("the server's subscriptions come by themselves, and resume", needsServer, async (t) => {
  const relay = await startRelay(server.port);
  t.after(() => relay.stop());
  const desk = await client(t, "desk");
  const url = relay.url;
  const ada = connect(url, { ...quick, token: token("ada", { subscriptions: ["news"], subscribe: undefined }) });
  t.after(() => ada.close());
  const news = await next(ada, "subscription");
  assert.equal(news.topic, "news");
  const heard = [];
  news.addEventListener("message", ({ detail }) => heard.push(detail.text));
  await news.ready;
  await desk.publish("news", "1");
  await until(() => heard.length === 1);
  relay.open(false);
  relay.cut();
  await until(() => ada.state !== "open");
  await desk.publish("news", "2");
  const resumed = next(news, "resumed");
  relay.open(true);
  await resumed;
  await desk.publish("news", "3");
  await until(() => heard.length === 3);
  assert.deepEqual(heard, ["1", "2", "3"]);
});

test("long messages come on a second WebSocket, and on the first if it ends", needsServer, async (t) => {
  const relay = await startRelay(server.port);
  t.after(() => relay.stop());
  const desk = await client(t, "desk");
  const ada = await client(t, "ada", { url: relay.url, options: { bulkSocket: true } });
  const [bulk, small] = [ada.subscribe("bulk", { lane: "bulk" }), ada.subscribe("small")];
  await Promise.all([bulk.ready, small.ready]);
  assert.equal(relay.connections(), 2);
  const heard = [];
  bulk.addEventListener("message", ({ detail }) => heard.push(detail.bytes.length));
  small.addEventListener("message", ({ detail }) => heard.push(detail.text));
  await desk.publish("bulk", new Uint8Array(300_000));
  await desk.publish("small", "x");
  await until(() => heard.length === 2);
  assert.deepEqual(heard.sort(), [300_000, "x"]);
  const resumed = next(bulk, "resumed");
  relay.cutNewest();
  await resumed;
  await desk.publish("bulk", new Uint8Array(7));
  await until(() => heard.includes(7));
  assert.equal(ada.reconnects, 0, "the first connection goes on");
  await until(() => relay.connections() === 2);
});
