// The client against a real server, over WebSocket.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, test } from "node:test";

import WebSocket from "ws";

import { connect } from "../qws.js";
import { next } from "./support/scripted.js";
import { needsServer, startRelay, startServer } from "./support/server.js";

const quick = { WebSocket, maxBackoffMs: 50 };

/** @type {Awaited<ReturnType<typeof startServer>>} */
let server;
before(async () => {
  if (!needsServer.skip) server = await startServer();
});
after(() => server?.stop());

/** Clients that are closed with the test. */
async function clients(t, ...options) {
  const made = options.map(({ url, ...more }) => connect(url ?? server.url, { ...quick, ...more }));
  t.after(() => Promise.all(made.map((client) => client.close())));
  await Promise.all(made.map((client) => client.ready));
  return made;
}

/** Reads this many messages of a subscription. */
async function read(subscription, count) {
  const messages = [];
  for await (const message of subscription) {
    messages.push(message);
    if (messages.length === count) break;
  }
  return messages;
}

const contents = (messages) => messages.map(({ content }) => content);
const numbers = (count, from = 0) => Array.from({ length: count }, (_, at) => String(from + at));
let topics = 0;
const newTopic = () => `test.${process.pid}.${(topics += 1)}`;

test("two clients exchange all kinds of messages", needsServer, async (t) => {
  const [ada, bob] = await clients(t, { name: "Ada" }, { name: "Bob" });
  assert.notEqual(ada.id, bob.id);
  assert.equal(await ada.echo("hé"), "Echo: hé");
  const bytes = Uint8Array.from({ length: 300_000 }, (_, at) => at % 251);
  assert.deepEqual(await ada.echo(bytes), bytes);
  assert.deepEqual(await ada.echo(new Uint8Array(0)), new Uint8Array(0));
  assert.ok((await ada.ping()) >= 0);

  const [heard, own] = [next(bob, "broadcast"), next(ada, "broadcast")];
  assert.equal(await ada.broadcast("all"), 2);
  const { from, content, timestamp } = await heard;
  assert.deepEqual([from, content, typeof timestamp], [ada.id, "all", "number"]);
  assert.equal((await own).content, "all");
  const [direct, signal] = [next(bob, "direct"), next(bob, "signal")];
  await ada.direct(bob.id, new Uint8Array([7]));
  await ada.signal(bob.id, { sdp: [null, 1] });
  assert.deepEqual([(await direct).bytes, (await direct).content], [new Uint8Array([7]), undefined]);
  assert.deepEqual((await signal).data, { sdp: [null, 1] });
  await assert.rejects(ada.direct("eab95712-f81a-4916-a1a4-ee1bdbd0d292", "x"), { kind: "request", code: 404 });

  const listed = [];
  for await (const client of ada.clients()) listed.push(client);
  assert.deepEqual(listed.map(({ name }) => name).sort(), ["Ada", "Bob"]);
  assert.ok(listed.every(({ transport }) => transport === "websocket"));
  const page = await ada.listClients({ limit: 1 });
  assert.deepEqual([page.clients.length, page.total, typeof page.next], [1, 2, "string"]);
});

test("a topic is published to, read, listed and left", needsServer, async (t) => {
  const [ada, bob] = await clients(t, { name: "Ada" }, { name: "Bob" });
  const topic = newTopic();
  const seen = ada.subscribe(topic, { presence: true });
  assert.equal((await seen.ready).offset, 0);
  const joined = next(seen, "join");
  const other = bob.subscribe(topic);
  await other.ready;
  assert.equal((await joined).client.name, "Bob");
  assert.deepEqual((await bob.presence(topic)).clients.map(({ name }) => name).sort(), ["Ada", "Bob"]);

  const first = await bob.publish(topic, "one", { key: "k" });
  assert.deepEqual(await bob.publish(topic, "one", { key: "k" }), { ...first, duplicate: true });
  await bob.publish(topic, new Uint8Array([1, 2]));
  const messages = await read(seen, 2);
  assert.deepEqual([messages[0].content, messages[0].from, messages[0].topic], ["one", bob.id, topic]);
  assert.deepEqual(messages[1].bytes, new Uint8Array([1, 2]));
  assert.deepEqual(seen.position, { epoch: first.epoch, offset: messages[1].offset });

  const history = await ada.history(topic, { reverse: true, limit: 1 });
  assert.deepEqual([history.messages[0].bytes, history.more], [new Uint8Array([1, 2]), true]);
  const later = await ada.history(topic, { since: first });
  assert.equal(later.messages.length, 1);

  const left = next(seen, "leave");
  await other.unsubscribe();
  assert.equal((await left).client.name, "Bob");
  const replay = bob.subscribe(topic, { since: first });
  assert.equal((await replay.ready).recovered, true);
  assert.deepEqual((await read(replay, 1))[0].bytes, new Uint8Array([1, 2]));
});

test("patterns get what matches, except topics that have their own subscription", needsServer, async (t) => {
  const [client] = await clients(t, {});
  const topic = newTopic();
  const [pattern, exact] = [client.subscribe(`${topic}.>`), client.subscribe(`${topic}.a`)];
  assert.deepEqual((await pattern.ready).epoch, null);
  await exact.ready;
  for (const [level, content] of [
    ["a", "1"],
    ["b", "2"],
    ["b.c", "3"],
    ["a", "4"],
  ])
    await client.publish(`${topic}.${level}`, content);
  assert.deepEqual(contents(await read(exact, 2)), ["1", "4"]);
  assert.deepEqual(contents(await read(pattern, 2)), ["2", "3"]);
});

test("each message comes once and in order, however often the connection is cut", needsServer, async (t) => {
  const relay = await startRelay(server.port);
  t.after(() => relay.stop());
  const [reader, writer] = await clients(t, { url: relay.url }, {});
  const topic = newTopic();
  const subscription = reader.subscribe(topic);
  const heard = [];
  subscription.addEventListener("message", ({ detail }) => heard.push(detail.content));
  subscription.addEventListener("lost", () => assert.fail("nothing is lost"));
  await subscription.ready;
  const all = read(subscription, 3000);
  for (let round = 0; round < 6; round += 1) {
    await Promise.all(numbers(500, round * 500).map((content) => writer.publish(topic, content)));
    relay.cut();
    await next(reader, "open");
  }
  assert.deepEqual(contents(await all), numbers(3000));
  assert.deepEqual(heard, numbers(3000), "and to listeners as well");
  assert.equal(reader.reconnects, 6);
});

test("everything is published once over a connection that is cut", needsServer, async (t) => {
  const relay = await startRelay(server.port);
  t.after(() => relay.stop());
  const [writer, reader] = await clients(t, { url: relay.url }, {});
  const topic = newTopic();
  const subscription = reader.subscribe(topic);
  await subscription.ready;
  const published = Promise.all(numbers(2000).map((content) => writer.publish(topic, content)));
  for (let cut = 0; cut < 5; cut += 1) {
    await new Promise((resolve) => setTimeout(resolve, 30));
    relay.cut();
  }
  const offsets = (await published).map(({ offset }) => offset);
  assert.equal(new Set(offsets).size, 2000);
  assert.ok(writer.reconnects >= 1, "the connection was cut");
  const all = contents(await read(subscription, 2000));
  assert.deepEqual([...all].sort(), numbers(2000).sort());
  const { offset } = await writer.publish(topic, "end");
  assert.equal(offset, Math.max(...offsets) + 1, "nothing twice");
});

test("a slow reader is waited for: little is kept, nothing is lost, and others continue", needsServer, async (t) => {
  const [reader, writer] = await clients(t, {}, {});
  const [slow, other] = [newTopic(), newTopic()];
  const subscription = reader.subscribe(slow, { highWaterMark: 32 });
  const beside = reader.subscribe(other);
  await Promise.all([subscription.ready, beside.ready]);
  let resumed = 0;
  subscription.addEventListener("resumed", () => (resumed += 1));
  subscription.addEventListener("lost", () => assert.fail("nothing is lost"));
  await Promise.all(numbers(1000).map((content) => writer.publish(slow, content)));
  await writer.publish(other, "x");
  assert.deepEqual(contents(await read(beside, 1)), ["x"]);
  while (subscription.state !== "paused") await reader.ping();
  const messages = [];
  for await (const { content } of subscription) {
    messages.push(content);
    if (messages.length % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
    if (messages.length === 1000) break;
  }
  assert.deepEqual(messages, numbers(1000));
  assert.ok(resumed >= 5, `it was paused and resumed ${resumed} times`);
  assert.equal(reader.reconnects, 0);
});

test("a reader that is paused while the connection is cut loses nothing", needsServer, async (t) => {
  const relay = await startRelay(server.port);
  t.after(() => relay.stop());
  const [reader, writer] = await clients(t, { url: relay.url }, {});
  const topic = newTopic();
  const subscription = reader.subscribe(topic, { highWaterMark: 8 });
  await subscription.ready;
  await Promise.all(numbers(100).map((content) => writer.publish(topic, content)));
  while (subscription.state !== "paused") await reader.ping();
  relay.cut();
  await next(reader, "open");
  assert.equal(subscription.state, "paused");
  assert.deepEqual(contents(await read(subscription, 100)), numbers(100));
});

test("lost logs of the server are reported, and the subscription continues", needsServer, async (t) => {
  let other = await startServer();
  t.after(() => other.stop());
  const [reader] = await clients(t, { url: other.url });
  const subscription = reader.subscribe("a");
  await subscription.ready;
  await reader.publish("a", "before");
  assert.deepEqual(contents(await read(subscription, 1)), ["before"]);
  const before = subscription.position;
  const closed = next(reader, "close");
  await other.stop();
  assert.deepEqual([(await closed).code, (await closed).willReconnect], [1006, true]);
  const sent = reader.publish("a", "after");
  const lost = next(subscription, "lost");
  other = await startServer({ port: other.port });
  assert.notEqual((await lost).epoch, before?.epoch);
  assert.equal((await sent).offset, 1, "what was published while there was no server");
  assert.deepEqual(contents(await read(subscription, 1)), ["after"]);
});

test("a server that drains announces when to reconnect", needsServer, async (t) => {
  const other = await startServer();
  t.after(() => other.stop());
  const [client] = await clients(t, { url: other.url });
  const closed = next(client, "close");
  const stopped = other.stop("SIGTERM");
  const { code, willReconnect } = await closed;
  assert.deepEqual([code, willReconnect], [1001, true]);
  await stopped;
});

test("leaving an iteration keeps the subscription, and unsubscribing ends it", needsServer, async (t) => {
  const [client] = await clients(t, {});
  const topic = newTopic();
  const subscription = client.subscribe(topic);
  await subscription.ready;
  for (const content of ["1", "2", "3"]) await client.publish(topic, content);
  assert.deepEqual(contents(await read(subscription, 1)), ["1"]);
  assert.equal(subscription.state, "active");
  const rest = read(subscription, 99);
  const ended = next(subscription, "end");
  await client.ping();
  await subscription.unsubscribe();
  assert.deepEqual(contents(await rest), ["2", "3"], "what waits is still there");
  assert.equal(await ended, null);
  await client.publish(topic, "4");
  assert.equal(client.subscribe(topic).topic, topic, "the text is free again");
});

test("many requests at once are sent bit by bit, and all of them arrive", needsServer, async (t) => {
  const [client] = await clients(t, {});
  const large = new Uint8Array(500_000).fill(3);
  const echoes = await Promise.all(Array.from({ length: 40 }, () => client.echo(large)));
  assert.ok(echoes.every((echo) => echo.length === large.length));
  assert.equal(client.reconnects, 0);
});

test("requests above the server's rates all succeed, as fast as the server allows", needsServer, async (t) => {
  const settings = "[rates]\nloopback = true\nclient_messages = 200\nclient_messages_burst = 100";
  const strict = await startServer({ settings });
  t.after(() => strict.stop());
  const [client] = await clients(t, { url: strict.url });
  const began = performance.now();
  const echoes = await Promise.all(numbers(600).map((number) => client.echo(number)));
  assert.deepEqual(
    echoes,
    numbers(600).map((number) => `Echo: ${number}`),
  );
  assert.ok(performance.now() - began > 2000, "the rate was kept to");
  assert.equal(client.reconnects, 0);
});

test("subscriptions above the rate for topics are all accepted in time", needsServer, async (t) => {
  const settings =
    "[rates]\nloopback = true\nclient_messages = 100\nclient_messages_burst = 50\n" +
    "client_topics = 100\nclient_topics_burst = 150";
  const strict = await startServer({ settings });
  t.after(() => strict.stop());
  const [client] = await clients(t, { url: strict.url });
  const closed = [];
  client.addEventListener("close", ({ detail }) => closed.push(detail));
  const subscriptions = numbers(350).map((number) => client.subscribe(`rate.t${number}`));
  // Requests have a pace of their own: they get through meanwhile.
  await subscriptions[0].ready;
  assert.equal(await client.echo("x"), "Echo: x");
  await Promise.all(subscriptions.map(({ ready }) => ready));
  // All are ended as well, at once.
  await Promise.all(subscriptions.map((subscription) => subscription.unsubscribe()));
  assert.deepEqual([closed, client.reconnects], [[], 0]);
});

const SECRET = "0123456789abcdef0123456789abcdef";

/** A token for a user, valid for this many seconds. */
function token(sub, seconds) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub, exp: Math.floor(Date.now() / 1000) + seconds })}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

test("an expiring token is followed by another, and a client without one is refused", needsServer, async (t) => {
  const settings = `[auth]
leeway_ms = 0
warn_ms = 1500
[auth.token]
publish = ["open.>"]
subscribe = ["open.>"]
[[auth.keys]]
algorithm = "HS256"
secret = "${SECRET}"`;
  const asking = await startServer({ settings });
  t.after(() => asking.stop());
  const nobody = connect(asking.url, quick);
  await assert.rejects(nobody.ready, { kind: "closed", code: 4401 });
  assert.equal(nobody.state, "closed");

  let made = 0;
  const fresh = () => token("ada", (made += 1) === 1 ? 3 : 60);
  const [client] = await clients(t, { url: asking.url, token: fresh });
  assert.equal(client.user, "ada");
  const { expires_at } = await next(client, "expiring");
  await new Promise((resolve) => setTimeout(resolve, expires_at - Date.now() + 300));
  assert.equal((await client.publish("open.a", "x")).offset, 1, "its first token has ended");
  assert.deepEqual([made, client.reconnects], [2, 0]);
  await assert.rejects(client.publish("closed.a", "x"), { kind: "request", code: 403 });
  await assert.rejects(client.subscribe("closed.a").ready, { kind: "request", code: 403 });
  await assert.rejects(client.refresh(token("bob", 60)), { kind: "request", code: 403 });
  assert.ok((await client.refresh(token("ada", 90))).expires_at > Date.now());

  const [short] = await clients(t, { url: asking.url, token: token("ada", 2) });
  const { code, willReconnect } = await next(short, "close");
  assert.deepEqual([code, willReconnect], [4401, false]);
});

test("a durable consumer delivers until acknowledged, or taken over", needsServer, async (t) => {
  const [ada, bob] = await clients(t, {}, {});
  const topic = newTopic();
  for (const content of numbers(3)) await ada.publish(topic, content);
  const work = ada.subscribe(topic, { durable: "w", recent: 10, maxInFlight: 2 });
  assert.equal((await work.ready).pending, 3);
  const [first, second] = await read(work, 2);
  assert.deepEqual([first.content, first.durable, first.tries, second.content], ["0", "w", undefined, "1"]);
  assert.equal(await work.ack(second), 1);
  assert.equal(await work.retry(first), 1);
  const again = await read(work, 2);
  assert.deepEqual(again.map(({ content, tries }) => [content, tries]).sort(), [["0", 2], ["2", undefined]]);
  assert.equal(await work.ack(again), 2);

  const ended = next(work, "end");
  const newer = bob.subscribe(topic, { durable: "w" });
  assert.equal((await newer.ready).pending, 0);
  assert.equal((await ended).code, 409);
  await ada.publish(topic, "3");
  assert.deepEqual(contents(await read(newer, 1)), ["3"]);
  await newer.forget();
  await assert.rejects(bob.ack(topic, "w", 4), { kind: "request", code: 404 });
});

test("a queue group divides a topic's messages", needsServer, async (t) => {
  const [ada, bob] = await clients(t, {}, {});
  const topic = newTopic();
  const members = [ada, bob].map((client) => client.subscribe(topic, { share: true }));
  await Promise.all(members.map(({ ready }) => ready));
  for (const content of numbers(4)) await ada.publish(topic, content);
  const got = await Promise.all(members.map((member) => read(member, 2)));
  assert.deepEqual(contents(got.flat()).sort(), numbers(4));
});
