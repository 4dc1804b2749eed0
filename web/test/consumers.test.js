// Durable consumers and queue groups: what is asked for, what comes again, and acknowledgements.

import assert from "node:assert/strict";
import { test } from "node:test";

import { internals } from "../qws.js";
import { client, next, subscribed } from "./support/scripted.js";

const { Routes } = internals;

const delivery = (offset, more = {}) => ({
  type: "message", topic: "t", offset, durable: "w", content: String(offset), timestamp: 1, ...more,
});
const plain = (offset, topic = "t") => ({ type: "message", topic, offset, content: String(offset), timestamp: 1 });
const durableReply = (message, more = {}) => subscribed(message, 9, { durable: "w", acked: 0, pending: 2, ...more });

/** Reads so many messages of a subscription. */
async function read(subscription, count) {
  const got = [];
  if (count === 0) return got;
  for await (const message of subscription) {
    got.push(message);
    if (got.length === count) break;
  }
  return got;
}

const offsets = (messages) => messages.map(({ offset, tries }) => (tries ? `${offset}#${tries}` : `${offset}`));

test("a durable consumer is asked for with its settings, and again by its name alone", async (t) => {
  const { client: ada, server } = await client(t, (message, peer) => {
    if (message.type !== "subscribe") return undefined;
    setTimeout(() => peer.send(delivery(8)), 5);
    return durableReply(message);
  });
  const settings = { ack: "each", ackWaitMs: 60_000, maxInFlight: 10, maxDeliver: 5, share: true };
  const orders = ada.subscribe("t", { durable: "w", sinceTime: 7, ...settings });
  assert.deepEqual(await orders.ready, { epoch: "e", offset: 9, recovered: null, acked: 0, pending: 2 });
  assert.deepEqual(offsets(await read(orders, 1)), ["8"]);
  assert.equal(orders.position, null, "the server has it");
  assert.equal(orders.durable, "w");
  const resumed = next(orders, "resumed");
  server.peers[0].drop();
  await resumed;
  const [first, second] = server.of("subscribe").map(({ id: _, ...fields }) => fields);
  const asked = {
    type: "subscribe", topic: "t", durable: "w", share: true, ack: "each", ack_wait_ms: 60_000, max_in_flight: 10,
    max_deliver: 5,
  };
  assert.deepEqual(first, { ...asked, since_time: 7 });
  assert.deepEqual(second, asked);
});

test("messages come again and out of order, and what was not read comes once", async (t) => {
  const { client: ada, server } = await client(t, (message, peer, connection) => {
    if (message.type !== "subscribe") return undefined;
    peer.send(durableReply(message));
    if (connection === 1) peer.together(delivery(8), delivery(9), delivery(8, { tries: 2 }));
    else peer.together(delivery(9, { tries: 2 }), delivery(8, { tries: 3 }), delivery(10));
    return "";
  });
  const orders = ada.subscribe("t", { durable: "w" });
  await orders.ready;
  // By its reply all three have come.
  await ada.ping();
  assert.deepEqual(offsets(await read(orders, 1)), ["8#2"]);
  const resumed = next(orders, "resumed");
  server.peers[0].drop();
  await resumed;
  assert.deepEqual(offsets(await read(orders, 3)), ["9#2", "8#3", "10"]);
});

test("acknowledgements name messages or offsets, and resolve with how many took effect", async (t) => {
  const { client: ada, server } = await client(t, (message) => {
    if (message.type === "subscribe") return durableReply(message);
    if (message.type !== "ack") return undefined;
    if (message.durable === "gone") return { type: "error", re: message.id, code: 404, message: "no such consumer" };
    return { type: "ok", re: message.id, acked: message.offsets?.length ?? 1 };
  });
  const orders = ada.subscribe("t", { durable: "w" });
  await orders.ready;
  assert.equal(await orders.ack(7), 1);
  assert.equal(await orders.ack([8, delivery(9)]), 2);
  assert.equal(await orders.retry(delivery(10), 500), 1);
  assert.equal(await orders.reject(11), 1);
  await assert.rejects(ada.ack("t", "gone", 1), { kind: "request", code: 404 });
  const base = { type: "ack", topic: "t", durable: "w" };
  assert.deepEqual(server.of("ack").slice(0, 4).map(({ id: _, ...fields }) => fields), [
    { ...base, offset: 7 },
    { ...base, offsets: [8, 9] },
    { ...base, offset: 10, outcome: "retry", delay_ms: 500 },
    { ...base, offset: 11, outcome: "reject" },
  ]);
  for (const wrong of [
    () => orders.ack([]),
    () => orders.ack("7"),
    () => orders.retry(7, -1),
    () => orders.retry(7, 86_400_001),
    () => ada.ack("t", "a.b", 7),
    () => ada.ack("t", "w", 7, { delayMs: 5 }),
    () => ada.subscribe("u").ack(7),
    () => ada.subscribe("u").forget(),
  ]) {
    await assert.rejects(wrong(), { kind: "usage" }, String(wrong));
  }
});

test("an acknowledgement is not repeated when its reply is lost", async (t) => {
  const { client: ada, server } = await client(t, (message, peer) => {
    if (message.type === "ack") peer.drop();
    return message.type === "ack" ? "" : undefined;
  });
  await ada.ready;
  await assert.rejects(ada.ack("t", "w", 7), { kind: "closed" });
  assert.equal(server.of("ack").length, 1);
});

test("a client that takes over ends the subscription, which is not asked for again", async (t) => {
  const { client: ada, server } = await client(t, (message) =>
    message.type === "subscribe" ? durableReply(message) : undefined,
  );
  const orders = ada.subscribe("t", { durable: "w" });
  await orders.ready;
  const ended = next(orders, "end");
  server.peers[0].send({ type: "unsubscribed", topic: "t", code: 409, reason: "taken over" });
  const error = await ended;
  assert.equal(error.code, 409);
  assert.equal(orders.state, "ended");
  const open = next(ada, "open");
  server.peers[0].drop();
  await open;
  await ada.ping();
  assert.equal(server.of("subscribe").length, 1);
});

test("a consumer is forgotten with its subscription, or the refusal is told", async (t) => {
  let code = 0;
  const { client: ada, server } = await client(t, (message) => {
    if (message.type === "subscribe") return durableReply(message);
    if (message.type !== "unsubscribe") return undefined;
    return code ? { type: "error", re: message.id, code, message: "no" } : { type: "ok", re: message.id, topic: "t" };
  });
  const orders = ada.subscribe("t", { durable: "w" });
  await orders.ready;
  await orders.forget();
  assert.equal(server.of("unsubscribe")[0].forget, true);
  code = 503;
  const again = ada.subscribe("t", { durable: "w" });
  await again.ready;
  await assert.rejects(again.forget(), { kind: "request", code: 503 });
  await assert.rejects(again.forget(), { kind: "closed" });
});

test("a log that was started again is reported, and a reconnect is not", async (t) => {
  const { client: ada, server } = await client(t, (message, peer, connection) =>
    message.type === "subscribe" ? durableReply(message, { epoch: connection < 3 ? "e" : "f" }) : undefined,
  );
  const orders = ada.subscribe("t", { durable: "w" });
  await orders.ready;
  const resumed = next(orders, "resumed");
  server.peers[0].drop();
  assert.equal((await resumed).epoch, "e");
  const lost = next(orders, "lost");
  server.peers[1].drop();
  assert.equal((await lost).epoch, "f");
});

test("a consumer and a pattern each get their own copy", async (t) => {
  const { client: ada } = await client(t, (message, peer) => {
    if (message.type !== "subscribe") return undefined;
    if (message.durable) return durableReply(message);
    peer.send({ type: "subscribed", re: message.id, topic: message.topic });
    peer.together(plain(1, "t"), delivery(1), delivery(2, { durable: "other" }), plain(7, "u"));
    return "";
  });
  const [orders, all] = [ada.subscribe("t", { durable: "w" }), ada.subscribe(">")];
  assert.deepEqual(offsets(await read(all, 2)), ["1", "7"]);
  assert.deepEqual(offsets(await read(orders, 1)), ["1"]);
});

test("a queue group has no position, and passes on whatever the server sends it", async (t) => {
  const { client: ada, server } = await client(t, (message, peer, connection) => {
    if (message.type !== "subscribe") return undefined;
    peer.send(subscribed(message, 9, { epoch: `e${connection}` }));
    peer.together(plain(10 - connection), plain(20 - connection));
    return "";
  });
  const jobs = ada.subscribe("t", { share: true });
  const got = [];
  let heard;
  jobs.addEventListener("message", ({ detail }) => got.push(detail.offset) && heard?.());
  await jobs.ready;
  const resumed = next(jobs, "resumed");
  server.peers[0].drop();
  await resumed;
  if (got.length < 4) await new Promise((resolve) => (heard = () => got.length === 4 && resolve()));
  assert.deepEqual(got, [9, 19, 8, 18]);
  const asked = server.of("subscribe").map(({ since, share }) => [since, share]);
  assert.deepEqual(asked, [[undefined, true], [undefined, true]]);
  assert.equal(jobs.position, null);
});

test("a slow reader of a queue group loses the oldest messages, and is told", async (t) => {
  const { client: ada } = await client(t, (message, peer) => {
    if (message.type !== "subscribe") return undefined;
    peer.send(subscribed(message, 0));
    peer.together(plain(1), plain(2), plain(3));
    return "";
  });
  const jobs = ada.subscribe("t", { share: true, highWaterMark: 2 });
  assert.deepEqual(await next(jobs, "gap"), { topic: "t", first: 1, last: 1, reason: "not read fast enough" });
  assert.deepEqual(offsets(await read(jobs, 2)), ["2", "3"]);
});

test("what cannot go together, or is out of bounds, is refused with the option's name", async (t) => {
  const { client: ada, server } = await client(t, () => undefined);
  await ada.ready;
  for (const [topic, options, named] of [
    ["t.*", { durable: "w" }, "durable"],
    ["t", { durable: "a.b" }, "durable"],
    ["t", { durable: "w".repeat(65) }, "durable"],
    ["t", { durable: "w", delivery: "datagram" }, "durable"],
    ["t", { durable: "w", share: true, ack: "upto" }, "ack"],
    ["t", { durable: "w", ackWaitMs: 999 }, "ackWaitMs"],
    ["t", { durable: "w", maxInFlight: 1001 }, "maxInFlight"],
    ["t", { durable: "w", maxDeliver: 1.5 }, "maxDeliver"],
    ["t", { ack: "each" }, "ack"],
    ["t", { maxDeliver: 0 }, "maxDeliver"],
    ["t.>", { share: true }, "share"],
    ["t", { share: true, recent: 1 }, "recent"],
    ["t", { share: 1 }, "share"],
    ["t", { sinceTime: -1 }, "sinceTime"],
    ["t.*", { sinceTime: 1 }, "sinceTime"],
    ["t", { sinceTime: 1, since: { epoch: "e", offset: 1 } }, "sinceTime"],
  ]) {
    const { ready } = ada.subscribe(topic, options);
    await assert.rejects(ready, ({ kind, message }) => kind === "usage" && message.includes(`${named}`), named);
  }
  await assert.rejects(ada.history("t", { sinceTime: 1, since: { epoch: "e", offset: 1 } }), { kind: "usage" });
  assert.throws(() => ada.subscribe("t", { durabel: "w" }), /did you mean "durable"/);
  assert.equal(server.of("subscribe").length, 0);
});

test("a subscription to a consumer stands alone", async (t) => {
  const { client: ada } = await client(t, (message) =>
    message.type === "subscribe" ? subscribed(message, 0) : undefined,
  );
  const [orders, other] = [ada.subscribe("t", { durable: "w" }), ada.subscribe("u")];
  await Promise.all([orders.ready, other.ready]);
  const others = [["t", {}], ["t", { durable: "w" }], ["u", { durable: "w" }], ["u", { share: true }]];
  for (const [topic, options] of others) {
    await assert.rejects(ada.subscribe(topic, options).ready, { kind: "usage", code: 409 });
  }
});

test("history begins at a time, and a publish tells how safe it is", async (t) => {
  const { client: ada, server } = await client(t, ({ type, id }) => {
    if (type === "history") return { type, re: id, topic: "t", epoch: "e", offset: 2, messages: [], more: false };
    if (type === "publish") return { type: "published", re: id, topic: "t", epoch: "e", offset: 3, stored: "fsync" };
    if (type !== "handshake") return undefined;
    return { type: "handshake_response", re: id, accepted: true, client_id: "c", server_name: "S", inbox: "inbox.ada" };
  });
  await ada.history("t", { sinceTime: 1755992190002, reverse: true });
  assert.equal(server.of("history")[0].since_time, 1755992190002);
  assert.equal((await ada.publish("t", "x")).stored, "fsync");
  assert.equal(ada.inbox, "inbox.ada");
});

test("messages of a consumer are told from a pattern's on a topic lane as well", () => {
  const routes = new Routes(null);
  const { Entry } = internals;
  const pattern = routes.bind(new Entry("t.*", {}));
  routes.answered(pattern, { lane: 1 });
  const consumer = Object.assign(new Entry("t.a", { durable: "w" }), { isDurable: true });
  const binding = routes.bind(consumer);
  const asked = { isUnderWay: true };
  binding.order = asked;
  assert.equal(routes.find(1, plain(1, "t.a"), false), pattern);
  assert.equal(routes.find(2, delivery(1, { topic: "t.a" }), false), binding, "it waits for the answer");
  routes.answered(binding, { lane: 2 });
  assert.equal(routes.find(2, delivery(1, { topic: "t.a" }), false), binding);
  assert.equal(routes.find(1, plain(1, "t.a"), false), pattern);
  assert.equal(routes.find(2, delivery(1, { topic: "t.a", durable: "v" }), false), null);
});
