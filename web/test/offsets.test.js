// Offsets grow, not always by one: replays, resumed positions and gaps do not depend on their distances.

import assert from "node:assert/strict";
import { test } from "node:test";

import { internals } from "../qws.js";
import { client, next, subscribed } from "./support/scripted.js";

const { Entry, Feed, Routes } = internals;
const bounded = { timeout: 10_000 };
const message = (offset) => ({ type: "message", topic: "t", offset, content: String(offset), timestamp: 1 });

/**
 * A server with one topic, which keeps to the protocol whatever the offsets are. A subscription gets its replay right
 * after the answer, or as much of it as `replays` lets through.
 */
async function topicServer(t, log, { replays = () => Infinity, answer = () => null, ...options } = {}) {
  const topic = { log, epoch: "e" };
  const server = await client(
    t,
    (request, peer, connection) => {
      const { type, id, since, recent, limit = 100, reverse } = request;
      const newest = topic.log.at(-1) ?? 0;
      const own = answer(request, peer, connection);
      if (own) return own;
      if (type === "subscribe") {
        const recovered = since && since.epoch === topic.epoch && since.offset <= newest;
        const after = recovered ? topic.log.filter((offset) => offset > since.offset) : [];
        const rest = recovered
          ? after
          : recent === undefined
            ? since
              ? topic.log
              : []
            : topic.log.slice(-recent || newest);
        const reply = subscribed(request, newest, { epoch: topic.epoch, ...(since ? { recovered } : {}) });
        peer.together(reply, ...rest.slice(0, replays(connection)).map(message));
        return "";
      }
      if (type === "unsubscribe") return { type: "ok", re: id, topic: "t" };
      if (type !== "history") return null;
      const from = since?.epoch === topic.epoch ? since : undefined;
      const all = topic.log.filter((offset) => !from || (reverse ? offset < from.offset : offset > from.offset));
      const page = (reverse ? [...all].reverse() : all).slice(0, limit);
      const more = all.length > page.length;
      return {
        type: "history",
        re: id,
        topic: "t",
        epoch: topic.epoch,
        offset: newest,
        messages: page.map(message),
        more,
      };
    },
    options,
  );
  const publish = (...offsets) => {
    for (const offset of offsets) {
      topic.log.push(offset);
      server.server.peers.at(-1)?.send(message(offset));
    }
  };
  return { ...server, topic, publish };
}

/** Records the offsets of messages, and other events. */
function listen(subscription) {
  const heard = [];
  subscription.addEventListener("message", ({ detail }) => heard.push(detail.offset));
  for (const type of ["resumed", "lost"]) subscription.addEventListener(type, () => heard.push(type));
  subscription.addEventListener("gap", ({ detail: { first, last } }) => heard.push([first, last]));
  return heard;
}

async function until(condition) {
  const end = performance.now() + 5_000;
  while (!condition()) {
    assert.ok(performance.now() < end, `still waiting for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test("the newest messages all come, however far apart their offsets are", bounded, async (t) => {
  const { client: it, server, publish } = await topicServer(t, [10, 40, 70, 100]);
  const one = it.subscribe("t", { recent: 3 });
  const heard = listen(one);
  assert.deepEqual(await one.ready, { epoch: "e", offset: 100, recovered: null });
  await until(() => heard.length === 3);
  publish(130, 1000);
  await until(() => heard.length === 5);
  assert.deepEqual(heard, [40, 70, 100, 130, 1000]);
  assert.deepEqual(one.position, { epoch: "e", offset: 1000 });

  const resumed = next(one, "resumed");
  server.peers[0].drop();
  await resumed;
  assert.deepEqual(server.of("subscribe").at(-1).since, { epoch: "e", offset: 1000 });
  publish(1001);
  await until(() => heard.length === 7);
  assert.deepEqual(heard, [40, 70, 100, 130, 1000, "resumed", 1001]);
});

test("a position is not known before the first of the newest messages has come", bounded, async (t) => {
  const { client: it } = await topicServer(t, [40, 70, 100]);
  const one = it.subscribe("t", { recent: 2 });
  await one.ready;
  assert.equal(one.position, null);
  for await (const { offset } of one) if (offset === 70) break;
  assert.deepEqual(one.position, { epoch: "e", offset: 70 });
  const empty = await topicServer(t, []);
  const none = empty.client.subscribe("t", { recent: 2 });
  await none.ready;
  assert.deepEqual(none.position, { epoch: "e", offset: 0 });
});

for (const [arrived, name] of [
  [0, "none"],
  [1, "one"],
  [2, "two"],
]) {
  test(
    `a connection that is lost when ${name} of the newest messages has come loses none of the others`,
    bounded,
    async (t) => {
      const replays = (connection) => (connection === 1 ? arrived : Infinity);
      const { client: it, server, topic, publish } = await topicServer(t, [10, 40, 70, 100], { replays });
      const one = it.subscribe("t", { recent: 3 });
      const heard = listen(one);
      await one.ready;
      await it.ping();
      assert.deepEqual(heard, [40, 70].slice(0, arrived));
      topic.log.push(130, 160, 190, 220, 250);
      const resumed = next(one, "resumed");
      server.peers[0].drop();
      await resumed;
      publish(280);
      await until(() => heard.at(-1) === 280);
      const expected = [40, 70, 100, 130, 160, 190, 220, 250, 280];
      assert.deepEqual(heard, [...expected.slice(0, arrived), "resumed", ...expected.slice(arrived)]);
      assert.deepEqual(one.position, { epoch: "e", offset: 280 });
      assert.equal(one.state, "active");
    },
  );
}

test("another epoch while the newest messages are awaited is a loss", bounded, async (t) => {
  const replays = (connection) => (connection === 1 ? 0 : Infinity);
  const { client: it, server, topic, publish } = await topicServer(t, [40, 70, 100], { replays });
  const one = it.subscribe("t", { recent: 2 });
  const heard = listen(one);
  await one.ready;
  Object.assign(topic, { epoch: "other", log: [5, 25] });
  server.peers[0].drop();
  await until(() => heard.length === 3);
  publish(26);
  await until(() => heard.length === 4);
  assert.deepEqual(heard, ["lost", 5, 25, 26]);
  assert.deepEqual(one.position, { epoch: "other", offset: 26 });
});

test("if a position cannot be recovered, the newest messages come instead", bounded, async (t) => {
  for (const since of [
    { epoch: "other", offset: 70 },
    { epoch: "e", offset: 500 },
  ]) {
    const { client: it, publish } = await topicServer(t, [40, 70, 100]);
    const one = it.subscribe("t", { since, recent: 2 });
    const heard = listen(one);
    assert.equal((await one.ready).recovered, false);
    publish(130);
    await until(() => heard.at(-1) === 130);
    assert.deepEqual(heard, ["lost", 70, 100, 130]);
  }
});

test("a gap is reported with its bounds, and what follows it comes", bounded, async (t) => {
  const { client: it, server, publish } = await topicServer(t, [40]);
  const one = it.subscribe("t");
  const heard = listen(one);
  await one.ready;
  const [peer] = server.peers;
  publish(70);
  peer.send({ type: "gap", topic: "t", first: 100, last: 130 });
  publish(160);
  // A jump alone is no gap.
  publish(500);
  await until(() => heard.length === 4);
  assert.deepEqual(heard, [70, [100, 130], 160, 500]);
  // A replay may begin with a gap.
  const other = it.subscribe("u", { recent: 5 });
  const told = listen(other);
  await other.ready;
  server.heard.length = 0;
  peer.send({ type: "gap", topic: "u", first: 70, last: 130 });
  peer.send({ ...message(160), topic: "u" });
  await until(() => told.includes(160));
  assert.deepEqual(told.slice(-2), [[70, 130], 160]);
});

test("several subscriptions to one topic each begin where they asked to", bounded, async (t) => {
  const { client: it, publish } = await topicServer(t, [10, 40, 70, 100], { replays: () => 1 });
  await it.ready;
  const one = it.subscribe("t", { recent: 3 });
  await one.ready;
  await it.ping();
  const others = [{ since: { epoch: "e", offset: 55 } }, { recent: 2 }, { recent: 4 }, {}].map((how) =>
    it.subscribe("t", how),
  );
  const heard = others.map(listen);
  await Promise.all(others.map(({ ready }) => ready));
  publish(130);
  await until(() => heard.every((offsets) => offsets.at(-1) === 130));
  assert.deepEqual(heard, [[70, 100, 130], [70, 100, 130], [10, 40, 70, 100, 130], [130]]);
});

test("one that joins while the newest messages are awaited gets only what comes later", bounded, async (t) => {
  const { client: it, server, publish } = await topicServer(t, [40, 70, 100], { replays: () => 0 });
  const one = it.subscribe("t", { recent: 3 });
  const first = listen(one);
  await one.ready;
  const two = it.subscribe("t");
  const second = listen(two);
  assert.deepEqual(await two.ready, { epoch: "e", offset: 100, recovered: null });
  for (const offset of [40, 70, 100]) server.peers[0].send(message(offset));
  publish(130);
  await until(() => second.length > 0 && first.length === 4);
  assert.deepEqual([first, second], [[40, 70, 100, 130], [130]]);
});

test("asking again for presence while the newest messages are awaited loses none of them", bounded, async (t) => {
  const replays = () => 0;
  const { client: it, server, publish } = await topicServer(t, [40, 70, 100], { replays });
  const one = it.subscribe("t", { recent: 3 });
  const first = listen(one);
  await one.ready;
  const two = it.subscribe("t", { presence: true });
  const second = listen(two);
  await until(() => server.of("subscribe").length === 2);
  await two.ready;
  publish(130);
  await until(() => second.length > 0 && first.at(-1) === 130);
  assert.deepEqual(first.filter(Number), [40, 70, 100, 130]);
  assert.deepEqual(second.filter(Number), [130]);
});

test("a subscription that moves before its replay is complete fetches the rest from the history", () => {
  const entry = new Entry("t", { recent: 3 });
  const feed = new Feed(entry, { recent: 3 }, 1000, () => {});
  feed.subscription = new EventTarget();
  const heard = listen(feed.subscription);
  feed.listened(1);
  entry.feeds.add(feed);
  const ask = (routes, offset, more) => {
    const binding = routes.bind(entry);
    const asked = entry.toAsk();
    const answer = () => {
      const reply = { type: "subscribed", topic: "t", epoch: "e", offset, ...more };
      routes.answered(binding, reply);
      entry.answered(binding, reply, asked);
    };
    return { binding, asked, answer };
  };
  const first = ask(new Routes(null), 100, {});
  entry.binding = first.binding;
  first.answer();
  const second = ask(new Routes(null), 130, { recovered: true });
  assert.deepEqual(second.asked.since, { epoch: "e", offset: 100 });
  entry.moveTo(second.binding);
  // The old connection brings a part of it meanwhile.
  entry.deliver(first.binding, "control", { json: message(40), text: "" });
  second.answer();
  entry.switch(second.binding);
  assert.deepEqual(
    [feed.behind?.recent, feed.seen, entry.seen],
    [undefined, { epoch: "e", offset: 40 }, { epoch: "e", offset: 100 }],
  );
  // The page that the client asks for, and a message that comes meanwhile.
  feed.behind.pending = [];
  entry.deliver(second.binding, "control", { json: message(130), text: "" });
  const page = { epoch: "e", offset: 130, messages: [message(70), message(100)], more: false, recovered: true };
  assert.equal(feed.replay(page, feed.seen), true);
  entry.caughtUp(feed);
  assert.deepEqual(heard, [40, "resumed", 70, 100, 130]);
});

const upTo = (last, first = 1) => Array.from({ length: last - first + 1 }, (_, at) => first + at);

/** Answers the first `history` of one kind with the page of that moment, behind messages that are published since. */
function overtaken(isOne, publish) {
  let isFirst = true;
  return ({ type, id, since, limit = 100, reverse }, log) => {
    if (type !== "history" || !isFirst || !isOne(reverse === true)) return null;
    isFirst = false;
    const all = log.filter((offset) => !since || (reverse ? offset < since.offset : offset > since.offset));
    const messages = all.slice(0, limit).map(message);
    const offset = log.at(-1) ?? 0;
    publish();
    return { type: "history", re: id, topic: "t", epoch: "e", offset, messages, more: messages.length < all.length };
  };
}

test("a queue that fills with what came during a page of history loses nothing", bounded, async (t) => {
  const answer = overtaken(
    (isReverse) => !isReverse,
    () => made.publish(...upTo(16, 11)),
  );
  const made = await topicServer(t, upTo(10), {
    replays: (connection) => (connection === 1 ? 0 : Infinity),
    answer: (request) => answer(request, made.topic.log),
  });
  const one = made.client.subscribe("t", { recent: 4, highWaterMark: 6 });
  await one.ready;
  const resumed = next(one, "resumed");
  made.server.peers[0].drop();
  await resumed;
  await until(() => made.topic.log.length === 16);
  await made.client.ping();
  const read = [];
  for await (const { offset } of one) {
    if (read.push(offset) === 8) made.publish(17, 18);
    if (offset === 18) break;
  }
  assert.deepEqual(read, upTo(18, 7));
});

test("one that is behind when the others leave loses nothing", bounded, async (t) => {
  const answer = overtaken(
    (isReverse) => !isReverse,
    () => made.publish(...upTo(10, 7)),
  );
  const made = await topicServer(t, [], { answer: (request) => answer(request, made.topic.log) });
  const [slow, fast] = [made.client.subscribe("t", { highWaterMark: 4 }), made.client.subscribe("t")];
  const heard = listen(fast);
  await Promise.all([slow.ready, fast.ready]);
  made.publish(...upTo(6));
  await until(() => heard.length === 6);
  await fast.unsubscribe();
  const read = [];
  const take = slow[Symbol.asyncIterator]();
  for (let count = 0; count < 2; count += 1) read.push((await take.next()).value.offset);
  await until(() => made.topic.log.length === 10);
  await made.client.ping();
  while (read.at(-1) !== 10) read.push((await take.next()).value.offset);
  assert.deepEqual(read, upTo(10));
});

test("a message that overtakes an empty page of history comes", bounded, async (t) => {
  const answer = overtaken(
    (isReverse) => isReverse,
    () => made.publish(1),
  );
  const made = await topicServer(t, [], { answer: (request) => answer(request, made.topic.log) });
  const one = made.client.subscribe("t");
  const first = listen(one);
  await one.ready;
  const two = made.client.subscribe("t", { recent: 3 });
  const second = listen(two);
  await two.ready;
  await until(() => first.length === 1);
  made.publish(2);
  await until(() => second.at(-1) === 2);
  assert.deepEqual([first, second], [[1, 2], [1, 2]]);
});

test("a message that comes after a replay of which nothing is left comes", bounded, async (t) => {
  const answer = ({ type, id, reverse }) => {
    if (type !== "history" || !reverse) return null;
    // The log has forgotten its messages, not its newest offset.
    made.topic.log.splice(0);
    made.publish(130);
    return { type: "history", re: id, topic: "t", epoch: "e", offset: 100, messages: [], more: false };
  };
  const made = await topicServer(t, [40, 70, 100], { replays: () => 0, answer });
  const one = made.client.subscribe("t", { recent: 3 });
  const heard = listen(one);
  await one.ready;
  await made.client.ping();
  const resumed = next(one, "resumed");
  made.server.peers[0].drop();
  await resumed;
  await until(() => made.topic.log.length === 1);
  made.publish(160);
  await until(() => heard.at(-1) === 160);
  assert.deepEqual(heard, ["resumed", 130, 160]);
});

test("a loss is reported once if an empty page of history has to be fetched again", bounded, async (t) => {
  const answer = ({ type, id, since }) => {
    if (type !== "history") return null;
    const isFirst = made.topic.log.at(-1) === 10;
    // More than the client keeps comes before the page.
    if (isFirst) made.publish(11, 12);
    const [messages, offset] = isFirst ? [[], 10] : [[11, 12].filter((at) => at > since.offset).map(message), 12];
    const recovered = since.offset >= 10;
    return { type: "history", re: id, topic: "t", epoch: "e", offset, messages, more: false, recovered };
  };
  const made = await topicServer(t, [10], { answer });
  await made.client.subscribe("t").ready;
  const one = made.client.subscribe("t", { since: { epoch: "e", offset: 2 }, highWaterMark: 1 });
  const heard = listen(one);
  await one.ready;
  await until(() => heard.at(-1) === 12);
  assert.deepEqual(heard, ["lost", 11, 12]);
});

test("a slow reader loses nothing when offsets jump", bounded, async (t) => {
  const log = Array.from({ length: 30 }, (_, at) => 7 + at * at * 3);
  const { client: it } = await topicServer(t, [...log]);
  await it.subscribe("t").ready;
  const slow = it.subscribe("t", { since: { epoch: "e", offset: 0 }, highWaterMark: 4 });
  await slow.ready;
  await it.ping();
  const read = [];
  for await (const { offset } of slow) if (read.push(offset) === 30) break;
  assert.deepEqual(read, log);
});
