// Requests that another client answers: both sides of them, against a scripted server.

import assert from "node:assert/strict";
import { test } from "node:test";

import { QwsError } from "../qws.js";
import { accepted, client, next, subscribed } from "./support/scripted.js";

const bounded = { timeout: 10_000 };
const reply = (re, fields) => ({ type: "reply", re, from: "f", timestamp: 1, ...fields });

/** A client of a server that has an answer for some messages, and accepts the rest. */
const ready = (t, answer, options) =>
  client(
    t,
    (message, peer, connection) => {
      const own = answer(message, peer, connection);
      if (own !== undefined) return own;
      if (message.type === "handshake") return accepted(message, connection);
      if (message.type === "subscribe") return subscribed(message, 0);
      return ["reply", "unsubscribe"].includes(message.type) ? { type: "ok", re: message.id } : null;
    },
    options,
  );

async function until(condition) {
  const end = performance.now() + 5_000;
  while (!condition()) {
    assert.ok(performance.now() < end, `still waiting for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test("an answer has its sender and its value, in any order of the requests", bounded, async (t) => {
  const { client: it, server } = await ready(t, ({ type }) => (type === "request" ? "" : undefined));
  const one = it.request("rpc.sum", [1, 2], { timeoutMs: 5000, meta: { trace: "a" } });
  const two = it.request({ user: "ada" }, "Are you there?");
  const three = it.request({ to: "id-1" }, new Uint8Array([1]));
  await until(() => server.of("request").length === 3);
  const [first, second, third] = server.of("request");
  assert.ok(first.timeout_ms > 100 && first.timeout_ms <= 5000, `${first.timeout_ms}`);
  const shown = [first, second, third].map(({ id: _id, timeout_ms: _ms, ...rest }) => rest);
  assert.deepEqual(shown, [
    { type: "request", topic: "rpc.sum", data: [1, 2], meta: { trace: "a" } },
    { type: "request", user: "ada", content: "Are you there?" },
    { type: "request", to: "id-1" },
  ]);
  const [peer] = server.peers;
  peer.send(reply(third.id, { content: "third" }));
  assert.equal((await three).text, "third");
  peer.send(reply(second.id, { user: "ada", error: "closed", code: 403, data: { why: 1 } }));
  await assert.rejects(two, { kind: "request", code: 403, message: "closed" });
  assert.deepEqual((await two.catch((error) => error)).answer.data, { why: 1 });
  peer.send(`{"type":"reply","re":${first.id},"from":"f","name":"Sum","data":9007199254740993,"timestamp":7}`);
  const { from, name, json, timestamp } = await one;
  assert.deepEqual([from, name, json, timestamp], ["f", "Sum", "9007199254740993", 7]);
});

test("slow answers hold up neither other requests nor publishes", bounded, async (t) => {
  const { client: it, server } = await ready(t, ({ type, id, topic }) => {
    if (type === "request") return "";
    if (type === "publish") return { type: "published", re: id, topic, epoch: "e", offset: 1 };
    return undefined;
  });
  // The scripted server says that four may be open at once.
  const all = Array.from({ length: 6 }, (_, at) => it.request("rpc", at));
  for (let at = 0; at < 40; at += 1) await it.publish("t", at);
  assert.deepEqual(server.of("request").map(({ data }) => data), [0, 1, 2, 3]);
  server.peers[0].send(reply(server.of("request")[2].id, { data: "two" }));
  assert.equal((await all[2]).data, "two");
  await until(() => server.of("request").length === 5);
  for (const { id, data } of server.of("request")) if (data !== 2) server.peers[0].send(reply(id, { data }));
  await until(() => server.of("request").length === 6);
  server.peers[0].send(reply(server.of("request")[5].id, { data: 5 }));
  assert.deepEqual((await Promise.all(all)).map(({ data }) => data), [0, 1, "two", 3, 4, 5]);
});

test("more requests than a new connection takes at once are asked while no answer comes", bounded, async (t) => {
  const limits = { max_message_bytes: 1000, max_request_lanes: 0, max_open_requests: 200 };
  const { client: it, server } = await ready(t, (message, _, connection) => {
    if (message.type === "handshake") return accepted(message, connection, { limits });
    return message.type === "request" ? "" : undefined;
  });
  const all = Array.from({ length: 150 }, (_, at) => it.request("rpc", at));
  await until(() => server.of("request").length === 150);
  for (const { id, data } of server.of("request").reverse()) server.peers[0].send(reply(id, { data }));
  assert.deepEqual((await Promise.all(all)).map(({ data }) => data), all.map((_, at) => at));
});

test("a request that is given up or too late is cancelled at the server", bounded, async (t) => {
  const { client: it, server } = await ready(t, ({ type }) => (["request", "cancel"].includes(type) ? "" : undefined));
  const stop = new AbortController();
  const given = it.request("rpc", 1, { signal: stop.signal });
  await until(() => server.of("request").length === 1);
  const reason = new Error("changed my mind");
  stop.abort(reason);
  await assert.rejects(given, reason);
  await until(() => server.of("cancel").length === 1);
  assert.equal(server.of("cancel")[0].re, server.of("request")[0].id);
  await assert.rejects(it.request("rpc", 1, { signal: stop.signal }), reason, "not even sent");
  const late = it.request("rpc", 2, { timeoutMs: 100 });
  await assert.rejects(late, { kind: "timeout", code: 504 });
  await until(() => server.of("cancel").length === 2);
  assert.deepEqual([server.of("request").length, server.of("cancel")[1].re], [2, server.of("request")[1].id]);
});

test("what the server says of a request is its error", bounded, async (t) => {
  const { client: it, server } = await ready(t, ({ type, id, data }) =>
    type === "request" ? { type: "error", re: id, code: data, message: "no" } : undefined,
  );
  for (const code of [404, 409, 502, 503]) await assert.rejects(it.request("rpc", code), { kind: "request", code });
  await assert.rejects(it.request("rpc", 504), { kind: "timeout", code: 504 });
  assert.equal(server.of("request").length, 5);
});

test("a lost connection ends open requests, which are not repeated", bounded, async (t) => {
  const { client: it, server } = await ready(t, ({ type }) => (type === "request" ? "" : undefined));
  const open = it.request("rpc", 1);
  await until(() => server.of("request").length === 1);
  server.peers[0].drop();
  await assert.rejects(open, { kind: "closed" });
  await it.ping();
  assert.equal(server.of("request").length, 1);
});

test("a handler answers requests to its topic, several at once", bounded, async (t) => {
  const { client: it, server } = await ready(t, () => undefined);
  const waiting = new Map();
  const service = it.serve("rpc.sum", async (asked) => {
    if (asked.data === "throw") throw new QwsError("request", "forbidden here", { code: 403 });
    if (asked.data === "fail") throw new TypeError("");
    if (asked.data === "nothing") return undefined;
    if (asked.data === "early") return void asked.respond("before", { meta: { took: 1 } });
    if (asked.data === "wait") return new Promise((resolve) => waiting.set(asked.json, resolve));
    return [asked.topic, asked.user, asked.text, asked.bytes, asked.timeoutMs];
  });
  await service.ready;
  assert.equal(server.of("subscribe")[0].requests, true);
  const [peer] = server.peers;
  const ask = (request, fields) =>
    peer.send({ type: "request", request, topic: "rpc.sum", from: "f", timestamp: 1, timeout_ms: 500, ...fields });
  ask("r1", { data: "wait" });
  ask("r2", { content: "text", user: "ada" });
  ask("r3", { data: "throw" });
  ask("r4", { data: "fail" });
  ask("r5", { data: "nothing" });
  ask("r6", { data: "early" });
  await until(() => server.of("reply").length === 5);
  waiting.get('"wait"')("done");
  await until(() => server.of("reply").length === 6);
  const replies = {};
  for (const { request, id: _id, type: _type, ...rest } of server.of("reply")) replies[request] = rest;
  assert.deepEqual(replies, {
    r1: { content: "done" },
    r2: { data: ["rpc.sum", "ada", "text", null, 500] },
    r3: { error: "forbidden here", code: 403 },
    r4: { error: "the handler failed", code: 500 },
    r5: { data: null },
    r6: { content: "before", meta: { took: 1 } },
  });
  await service.unsubscribe();
  ask("r7", { data: 1 });
  await until(() => server.of("reply").length === 7);
  assert.deepEqual(server.of("reply")[6].code, 404, "nothing answers here any more");
});

test("a handler learns that nobody waits any more", bounded, async (t) => {
  const { client: it, server } = await ready(t, () => undefined);
  const stopped = [];
  await it.serve("rpc", ({ data, signal }) => {
    signal.addEventListener("abort", () => stopped.push([data, signal.reason.code]));
    return new Promise((resolve) => signal.addEventListener("abort", () => resolve("too late")));
  }).ready;
  const ask = (peer, request, data) =>
    peer.send({ type: "request", request, topic: "rpc", from: "f", data, timestamp: 1, timeout_ms: 500 });
  ask(server.peers[0], "r1", 1);
  ask(server.peers[0], "r2", 2);
  server.peers[0].send({ type: "cancel", request: "r1", reason: "given up" });
  server.peers[0].send({ type: "cancel", request: "unknown" });
  await until(() => stopped.length === 1);
  server.peers[0].drop();
  await until(() => stopped.length === 2);
  await it.ping();
  assert.deepEqual(stopped, [[1, 499], [2, 499]]);
  assert.deepEqual(server.of("reply"), [], "and its answer goes nowhere");
});

test("requests to the client itself have a handler of their own, or are refused", bounded, async (t) => {
  const ask = { type: "request", request: "r1", from: "f", data: 1, timestamp: 1, timeout_ms: 500 };
  const one = await ready(t, () => undefined, { onRequest: ({ data }) => data + 1 });
  await one.client.ready;
  assert.equal(one.server.of("handshake")[0].requests, true);
  one.server.peers[0].send(ask);
  await until(() => one.server.of("reply").length === 1);
  assert.equal(one.server.of("reply")[0].data, 2);
  const none = await ready(t, () => undefined);
  await none.client.ready;
  assert.equal(none.server.of("handshake")[0].requests, undefined);
  none.server.peers[0].send(ask);
  await until(() => none.server.of("reply").length === 1);
  assert.equal(none.server.of("reply")[0].code, 404);
});

test("an answer that the server does not take fails the request", bounded, async (t) => {
  const { client: it, server } = await ready(t, ({ type, id, data }) =>
    type === "reply" && data === "bad" ? { type: "error", re: id, code: 400, message: "meta: too long" } : undefined,
  );
  await it.serve("rpc", ({ data }) => (data === "long" ? "x".repeat(200_000) : data)).ready;
  const ask = (request, data) =>
    server.peers[0].send({ type: "request", request, topic: "rpc", from: "f", data, timestamp: 1, timeout_ms: 500 });
  ask("r1", "long");
  await until(() => server.of("reply").length === 1);
  assert.match(server.of("reply")[0].error, /too long/);
  ask("r2", { toJSON: undefined });
  ask("r3", null);
  await until(() => server.of("reply").length === 3);
  assert.deepEqual(server.of("reply").slice(1).map(({ data }) => data), [{}, null]);
});

test("a subscription begins and ends to answer without losing a message", bounded, async (t) => {
  const { client: it, server } = await ready(t, (message) => {
    if (message.type !== "subscribe" || !message.since) return undefined;
    return subscribed(message, 5, { recovered: true });
  });
  const room = it.subscribe("t");
  const heard = [];
  room.addEventListener("message", ({ detail }) => heard.push(detail.offset));
  await room.ready;
  const service = it.serve("t", () => "x");
  await until(() => server.of("subscribe").length === 2);
  await service.ready;
  const [first, second] = server.of("subscribe");
  assert.deepEqual([first.requests, first.since], [undefined, undefined]);
  assert.deepEqual([second.requests, second.since.offset], [true, 0]);
  const other = it.serve("t", () => "y");
  await assert.rejects(other.ready, { code: 409 });
  const resumed = next(room, "resumed");
  await service.unsubscribe();
  await resumed;
  assert.deepEqual(server.of("subscribe").at(-1).requests, undefined);
});
