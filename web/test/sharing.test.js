// Several subscriptions of one client to one topic, and wrong options.

import assert from "node:assert/strict";
import { test } from "node:test";

import WebSocket from "ws";

import { connect } from "../qws.js";
import { client, next, subscribed } from "./support/scripted.js";
import { needsServer, startServer } from "./support/server.js";

const bounded = { timeout: 20_000 };
/** A message of a type that clients ignore. */
const NO_REPLY = { type: "none" };

/** A server with one topic, whose log a test fills. */
async function topicServer(t, { answer = () => null, ...options } = {}) {
  const log = [];
  const message = (offset) => ({ type: "message", topic: "t", offset, content: String(offset), timestamp: 1 });
  const server = await client(
    t,
    (request, peer, connection) => {
      const { type, id, since, limit = 100, reverse } = request;
      const own = answer(request, peer, connection);
      if (own) return own;
      if (type === "subscribe") return subscribed(request, log.length, since ? { recovered: true } : {});
      if (type === "unsubscribe") return { type: "ok", re: id, topic: "t" };
      if (type !== "history") return null;
      const from = since?.epoch === "e" ? since : undefined;
      const all = log.filter((offset) => from === undefined || (reverse ? offset < from.offset : offset > from.offset));
      const page = (reverse ? (all.toReversed?.() ?? [...all].reverse()) : all).slice(0, limit);
      const more = all.length > page.length;
      return { type: "history", re: id, topic: "t", epoch: "e", offset: log.length, messages: page.map(message), more };
    },
    options,
  );
  const publish = (count, peer = server.server.peers.at(-1)) => {
    for (let at = 0; at < count; at += 1) {
      log.push(log.length + 1);
      peer?.send(message(log.length));
    }
  };
  return { ...server, publish, log };
}

/** Records the offsets of messages, and other events. */
function listen(subscription) {
  const heard = [];
  subscription.addEventListener("message", ({ detail }) => heard.push(detail.offset));
  for (const type of ["lost", "gap", "join"]) subscription.addEventListener(type, () => heard.push(type));
  return heard;
}

const upTo = (last, first = 1) => Array.from({ length: last - first + 1 }, (_, at) => first + at);

async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

test("two parts of a page share one subscription at the server, which ends with the last", bounded, async (t) => {
  const { client: it, server, publish } = await topicServer(t);
  const [one, two] = [it.subscribe("t"), it.subscribe("t")];
  const [first, second] = [listen(one), listen(two)];
  await Promise.all([one.ready, two.ready]);
  publish(2);
  await until(() => second.length === 2);
  await one.unsubscribe();
  assert.deepEqual([one.state, two.state, server.of("unsubscribe").length], ["ended", "active", 0]);
  const three = it.subscribe("t");
  const third = listen(three);
  assert.deepEqual(await three.ready, { epoch: "e", offset: 2, recovered: null });
  publish(1);
  await until(() => third.length === 1);
  assert.deepEqual([first, second, third], [[1, 2], [1, 2, 3], [3]]);
  await Promise.all([two.unsubscribe(), three.unsubscribe()]);
  assert.deepEqual([server.of("subscribe").length, server.of("unsubscribe").length], [1, 1]);
});

test("each gets what it asked for: from a position, the newest, or only what comes", bounded, async (t) => {
  const { client: it, server, publish } = await topicServer(t);
  await it.ready;
  publish(10);
  const one = it.subscribe("t");
  const others = [it.subscribe("t", { since: { epoch: "e", offset: 4 } }), it.subscribe("t", { recent: 3 })];
  const heard = [one, ...others].map(listen);
  assert.deepEqual((await one.ready).recovered, null);
  assert.deepEqual(await others[0].ready, { epoch: "e", offset: 10, recovered: true });
  assert.deepEqual((await others[1].ready).recovered, null);
  publish(3);
  await until(() => heard.every((offsets) => offsets.at(-1) === 13));
  assert.deepEqual(heard, [upTo(13, 11), upTo(13, 5), upTo(13, 8)]);
  const late = it.subscribe("t", { since: { epoch: "other", offset: 4 } });
  const lateHeard = listen(late);
  assert.equal((await late.ready).recovered, false);
  await until(() => lateHeard.at(-1) === 13);
  assert.deepEqual(lateHeard, ["lost", ...upTo(13)]);
  assert.equal(server.of("subscribe").length, 1);
});

test("a position that the log no longer reaches is reported, and what is left comes", bounded, async (t) => {
  const answer = ({ type, id, since }) => {
    if (type !== "history") return null;
    const left = [8, 9, 10].filter((offset) => offset > (since?.offset ?? 0));
    const messages = left.map((offset) => ({ type: "message", topic: "t", offset, content: "x", timestamp: 1 }));
    return {
      type: "history",
      re: id,
      topic: "t",
      epoch: "e",
      offset: 10,
      recovered: since.offset >= 7,
      messages,
      more: false,
    };
  };
  const { client: it, log } = await topicServer(t, { answer });
  log.push(...upTo(10));
  await it.subscribe("t").ready;
  for (const [offset, recovered, expected] of [
    [2, false, ["lost", 8, 9, 10]],
    [8, true, [9, 10]],
  ]) {
    const made = it.subscribe("t", { since: { epoch: "e", offset } });
    const heard = listen(made);
    assert.deepEqual(await made.ready, { epoch: "e", offset: 10, recovered });
    assert.deepEqual(heard, expected);
    assert.deepEqual(made.position, { epoch: "e", offset: 10 });
  }
});

test("a slow reader does not hold up the other, and loses nothing", bounded, async (t) => {
  const { client: it, server, publish } = await topicServer(t);
  const [slow, fast] = [it.subscribe("t", { highWaterMark: 8 }), it.subscribe("t")];
  const heard = listen(fast);
  await Promise.all([slow.ready, fast.ready]);
  publish(50);
  await until(() => heard.length === 50);
  assert.equal(slow.state, "paused");
  const read = [];
  for await (const { offset } of slow) {
    read.push(offset);
    // Messages published while it catches up come once as well.
    if (read.length % 10 === 0 && read.length <= 50) publish(1);
    if (read.length === 55) break;
  }
  assert.deepEqual(read, upTo(55));
  assert.deepEqual(slow.position, { epoch: "e", offset: 55 });
  await until(() => heard.length === 55);
  assert.deepEqual([heard, server.of("unsubscribe").length], [upTo(55), 0]);
});

test("when the only one is paused, another one gets what comes", bounded, async (t) => {
  const { client: it, publish } = await topicServer(t);
  const slow = it.subscribe("t", { highWaterMark: 4 });
  await slow.ready;
  publish(4);
  await until(() => slow.state === "paused");
  await it.ping();
  const other = it.subscribe("t");
  const heard = listen(other);
  await other.ready;
  publish(2);
  await until(() => heard.length === 2);
  const read = [];
  for await (const { offset } of slow) if (read.push(offset) === 6) break;
  assert.deepEqual([heard, read], [[5, 6], upTo(6)]);
});

test("a slow reader that the others leave during a pause gets what comes", bounded, async (t) => {
  let confirm = null;
  const answer = ({ type, id }, peer) => {
    if (type !== "unsubscribe") return null;
    confirm = () => peer.send({ type: "ok", re: id, topic: "t" });
    return NO_REPLY;
  };
  const { client: it, publish } = await topicServer(t, { answer });
  const [slow, fast] = [it.subscribe("t", { highWaterMark: 4 }), it.subscribe("t")];
  const heard = listen(fast);
  await Promise.all([slow.ready, fast.ready]);
  publish(5);
  await until(() => heard.length === 5);
  const watching = it.subscribe("t", { presence: true });
  await until(() => confirm !== null);
  await Promise.all([fast.unsubscribe(), watching.unsubscribe()]);
  confirm();
  await it.ping();
  const read = [];
  for await (const { offset } of slow) {
    if (read.push(offset) === 5) setTimeout(() => publish(1), 50);
    if (offset === 6) break;
  }
  assert.deepEqual(read, upTo(6));
});

test("one that gets its first listener from another's listener keeps the order", bounded, async (t) => {
  const { client: it, publish } = await topicServer(t);
  const [one, two] = [it.subscribe("t"), it.subscribe("t")];
  await Promise.all([one.ready, two.ready]);
  let heard = [];
  one.addEventListener("message", ({ detail }) => {
    if (detail.offset === 3) heard = listen(two);
  });
  publish(4);
  await until(() => heard.length === 4);
  assert.deepEqual([heard, two.position], [upTo(4), { epoch: "e", offset: 4 }]);
});

test("one whose loop ends just as its queue is full keeps up", bounded, async (t) => {
  const { client: it, publish } = await topicServer(t);
  const [one, two] = [it.subscribe("t", { highWaterMark: 4 }), it.subscribe("t")];
  const [first, second] = [listen(one), listen(two)];
  await Promise.all([one.ready, two.ready]);
  const loop = one[Symbol.asyncIterator]();
  one.addEventListener("message", ({ detail }) => void (detail.offset === 4 && loop.return()));
  publish(6);
  await until(() => second.length === 6);
  await it.ping();
  assert.deepEqual([first, one.state], [upTo(6), "active"]);
});

test("a subscription with presence makes the client ask again, and alone gets the events", bounded, async (t) => {
  const { client: it, server, publish } = await topicServer(t);
  const one = it.subscribe("t");
  const heard = listen(one);
  await one.ready;
  publish(1);
  await until(() => heard.length === 1);
  const two = it.subscribe("t", { presence: true });
  const news = listen(two);
  await two.ready;
  server.peers[0].send({ type: "join", topic: "t", client: { id: "x", name: null } });
  publish(1);
  await until(() => heard.length === 2);
  assert.deepEqual(
    [heard, news],
    [
      [1, 2],
      ["join", 2],
    ],
  );
  const asked = server.of("subscribe").map(({ presence, since }) => [presence, since?.offset]);
  assert.deepEqual(asked, [
    [undefined, undefined],
    [true, 1],
  ]);
});

test("a refusal of one does not end the others", bounded, async (t) => {
  const answer = ({ type, id, presence }) =>
    type === "subscribe" && presence ? { type: "error", re: id, code: 403, message: "presence: no" } : null;
  const { client: it, publish } = await topicServer(t, { answer });
  const one = it.subscribe("t");
  const heard = listen(one);
  await one.ready;
  await assert.rejects(it.subscribe("t", { presence: true }).ready, { kind: "request", code: 403 });
  // Neither if it is the first of them.
  const [bad, good] = [it.subscribe("u", { presence: true }), it.subscribe("u")];
  await assert.rejects(bad.ready, { code: 403 });
  await good.ready;
  publish(1);
  await until(() => heard.length === 1);
});

test("options of one that leaves before the answer are dropped", bounded, async (t) => {
  const answer = ({ type, id, since }) =>
    type === "subscribe" && since ? { type: "error", re: id, code: 403, message: "since: no" } : null;
  const { client: it, server, publish } = await topicServer(t, { answer });
  await it.ready;
  const [one, two] = [it.subscribe("t", { since: { epoch: "e", offset: 0 } }), it.subscribe("t")];
  await one.unsubscribe();
  await two.ready;
  // One that may not read the history ends alone as well, and the last one ends it at the server.
  const refuses = ({ type, id }) =>
    type === "history" ? { type: "error", re: id, code: 403, message: "topic: no" } : null;
  const other = await topicServer(t, { answer: refuses });
  const [first, second] = [other.client.subscribe("t"), other.client.subscribe("t", { recent: 3 })];
  await first.ready;
  await assert.rejects(second.ready, { code: 403 });
  assert.equal(first.state, "active");
  const heard = listen(two);
  publish(1);
  await until(() => heard.length === 1);
  assert.equal(server.of("subscribe").length, 2);
});

test("all resume with one request after a reconnect, and those that were behind stay behind", bounded, async (t) => {
  const { client: it, server, publish } = await topicServer(t);
  const [slow, fast] = [it.subscribe("t", { highWaterMark: 4 }), it.subscribe("t")];
  const heard = listen(fast);
  await Promise.all([slow.ready, fast.ready]);
  publish(9);
  await until(() => heard.length === 9);
  const resumed = next(fast, "resumed");
  server.peers[0].drop();
  await resumed;
  publish(1);
  const read = [];
  for await (const { offset } of slow) if (read.push(offset) === 10) break;
  await until(() => heard.length === 10);
  assert.deepEqual([read, heard], [upTo(10), upTo(10)]);
});

test("if missed messages may not be replayed, the subscription continues and reports the loss", bounded, async (t) => {
  const answer = ({ type, id, since }) =>
    type === "subscribe" && since ? { type: "error", re: id, code: 403, message: "since: no" } : null;
  const { client: it, server, publish } = await topicServer(t, { answer });
  const one = it.subscribe("t");
  const heard = listen(one);
  await one.ready;
  publish(1);
  await until(() => heard.length === 1);
  server.peers[0].drop();
  await next(one, "lost");
  publish(1);
  await until(() => heard.length === 3);
  assert.deepEqual(heard, [1, "lost", 2]);
});

test("options that cannot be shared are an error of the later subscription alone", bounded, async (t) => {
  const { client: it } = await topicServer(t);
  const one = it.subscribe("t");
  await one.ready;
  await assert.rejects(it.subscribe("t", { delivery: "datagram" }).ready, {
    kind: "usage",
    code: 409,
    message: /delivery "stream"/,
  });
  await assert.rejects(it.subscribe("t", { lane: "control" }).ready, {
    kind: "usage",
    code: 409,
    message: /lane "own"/,
  });
  await it.subscribe("t", { delivery: "stream", lane: "own" }).ready;
  assert.equal(one.state, "active");
});

test("a wrong topic or value rejects `ready` and fires `end`", bounded, async (t) => {
  const { client: it, server } = await topicServer(t);
  await it.ready;
  for (const topic of ["", "a..b", "a b", "eur*", "a.>.b", "ä", "a".repeat(256), 7]) {
    const made = it.subscribe(topic);
    const ended = next(made, "end");
    await assert.rejects(made.ready, { kind: "usage", message: /not a topic/ });
    assert.equal((await ended).kind, "usage");
    assert.equal(made.state, "ended");
  }
  const wrong = [
    [{ recent: 1.5 }, /recent must be a whole number/],
    [{ since: { epoch: "e" } }, /since must be a position/],
    [{ delivery: "carrier pigeon" }, /delivery must be/],
    [{ highWaterMark: 0 }, /highWaterMark/],
  ];
  for (const [options, message] of wrong)
    await assert.rejects(it.subscribe("t", options).ready, { kind: "usage", message });
  await assert.rejects(it.subscribe("a.*", { since: { epoch: "e", offset: 1 } }).ready, {
    kind: "usage",
    message: /pattern/,
  });
  assert.deepEqual(server.of("subscribe"), []);
});

test("a misspelt option is a TypeError that names it and the one that was meant", bounded, async (t) => {
  const { client: it, server } = await topicServer(t);
  const cases = [
    [() => connect(server.url, { WebSocket, tokn: "x" }), /connect: unknown option "tokn"; did you mean "token"\?/],
    [() => connect(server.url, { WebSocket, nmae: "x" }), /did you mean "name"\?/],
    [() => connect(server.url, { WebSocket, max_backoff_ms: 1 }), /did you mean "maxBackoffMs"\?/],
    [() => connect(server.url, { WebSocket, colour: 1 }), /unknown option "colour"; expected one of name, token,/],
    [() => it.subscribe("t", { recnet: 3 }), /subscribe: unknown option "recnet"; did you mean "recent"\?/],
    [() => it.subscribe("t", { limit: 3 }), /subscribe: unknown option "limit"; expected one of since, sinceTime/],
  ];
  for (const [call, message] of cases) assert.throws(call, { name: "TypeError", message });
  await assert.rejects(it.publish("t", "x", { keys: "k" }), { name: "TypeError", message: /did you mean "key"\?/ });
  await assert.rejects(it.listClients({ before: "x" }), { name: "TypeError", message: /expected one of limit, after/ });
  await assert.rejects(it.history("t", { revers: true }), { name: "TypeError", message: /did you mean "reverse"\?/ });
  await assert.rejects(it.history("t", { recent: 3, limit: 3 }), {
    kind: "usage",
    message: /recent cannot be combined/,
  });
  await assert.rejects(it.history("t", { limit: 0 }), {
    kind: "usage",
    message: /limit must be a whole number from 1 to 1000/,
  });
});

test("history accepts the options of subscribe too, and is empty for a topic without messages", bounded, async (t) => {
  const { client: it, publish } = await topicServer(t);
  await it.ready;
  assert.deepEqual(await it.history("t"), { epoch: "e", offset: 0, messages: [], more: false, recovered: null });
  publish(5);
  const offsets = async (options) => (await it.history("t", options)).messages.map(({ offset }) => offset);
  assert.deepEqual(await offsets({ recent: 2 }), [4, 5]);
  assert.deepEqual(await offsets({ limit: 2, reverse: true }), [5, 4]);
  assert.deepEqual(await offsets({ since: { epoch: "e", offset: 3 } }), [4, 5]);
  assert.deepEqual(await offsets({ since: null, recent: null, limit: 1 }), [1], "null counts as absent");
  const none = it.subscribe("t", { since: it.subscribe("u").position, recent: null });
  assert.equal((await none.ready).recovered, null);
  // An older server answers 404.
  const old = await client(t, ({ type, id }) =>
    type === "history" ? { type: "error", re: id, code: 404, message: "none" } : null,
  );
  assert.deepEqual((await old.client.history("t")).messages, []);
});

test("a `gap` of many topics is reported to the pattern that it names", bounded, async (t) => {
  const { client: it, server } = await client(t, (message) =>
    message.type === "subscribe" ? subscribed(message, 0) : null,
  );
  const [all, some] = [it.subscribe(">"), it.subscribe("a.>")];
  await Promise.all([all.ready, some.ready]);
  all.addEventListener("gap", () => assert.fail("it is the other's"));
  const told = next(some, "gap");
  server.peers[0].send({ type: "gap", topic: "a.>", first: 0, last: 0, reason: "several" });
  assert.deepEqual(await told, { topic: "a.>", first: 0, last: 0, reason: "several" });
});

test("subscriptions to one topic work with a real server", needsServer, async (t) => {
  const server = await startServer();
  t.after(() => server.stop());
  const it = connect(server.url, { WebSocket });
  t.after(() => it.close());
  const writer = connect(server.url, { WebSocket });
  t.after(() => writer.close());
  const [slow, fast] = [it.subscribe("t", { highWaterMark: 16 }), it.subscribe("t", { presence: true })];
  const heard = listen(fast);
  await Promise.all([slow.ready, fast.ready]);
  await Promise.all(upTo(300).map((number) => writer.publish("t", String(number))));
  await until(() => heard.length === 300);
  const late = it.subscribe("t", { recent: 20 });
  const lateHeard = listen(late);
  await late.ready;
  const read = [];
  for await (const { offset } of slow) if (read.push(offset) === 300) break;
  await until(() => lateHeard.length === 20);
  assert.deepEqual([heard, read, lateHeard], [upTo(300), upTo(300), upTo(300, 281)]);
});
