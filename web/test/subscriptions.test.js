// Positions, reconnects, queues, and which subscription a message belongs to.

import assert from "node:assert/strict";
import { test } from "node:test";

import { internals } from "../qws.js";

const { Entry, Feed, Routes } = internals;
const EPOCH = "k3v9";

/** A subscription with a record of its events. */
function subscription(topic, options = {}, capacity = 1000) {
  const told = [];
  const entry = new Entry(topic, options);
  const feed = new Feed(entry, options, capacity, () => told.push(["room"]));
  entry.feeds.add(feed);
  const target = new EventTarget();
  for (const type of ["message", "gap", "resumed", "lost", "end"]) {
    target.addEventListener(type, ({ detail }) => {
      if (type === "message") told.push(detail.offset);
      else if (type === "gap") told.push(["gap", detail.first, detail.last]);
      else told.push([type]);
    });
  }
  feed.subscription = target;
  return { entry, feed, told, take: () => told.splice(0) };
}

/** Subscribes it on a connection whose server has answered. */
function subscribed({ entry }, { routes = new Routes(null), offset = 0, epoch = EPOCH, recovered, lane } = {}) {
  const binding = routes.bind(entry);
  entry.binding = binding;
  entry.toAsk();
  const reply = { type: "subscribed", topic: entry.topic, epoch, offset, recovered, lane };
  if (entry.isPattern) delete reply.epoch;
  routes.answered(binding, reply);
  entry.answered(binding, reply);
  return { routes, binding };
}

const message = (offset, topic = "t") => ({ type: "message", topic, offset, content: String(offset), timestamp: 1 });
const gap = (first, last, topic = "t") => ({ type: "gap", topic, first, last });

/** Passes messages of a server to the subscriptions that they belong to. */
function hear(routes, source, ...messages) {
  return messages.map((json) => {
    const binding = routes.find(source, json, false);
    if (!binding) return "nobody's";
    if (binding.isAsked) return "waits";
    return binding.entry.deliver(binding, source, { json, text: JSON.stringify(json) }).length > 0 ? "full" : "taken";
  });
}

test("after a reconnect nothing comes twice, and it continues after the last message", () => {
  const one = subscription("t", { recent: 2 });
  one.feed.listened(1);
  assert.deepEqual([one.entry.toAsk().recent, one.entry.toAsk().since], [2, undefined]);
  const { routes } = subscribed(one, { offset: 10 });
  assert.equal(one.entry.toAsk().since.offset, 10, "of the two that follow none is there yet: the history has them");
  hear(routes, "control", message(9), message(10), message(12));
  assert.deepEqual(one.take(), [9, 10, 12]);
  assert.deepEqual(one.entry.toAsk().since, { epoch: EPOCH, offset: 12 });
  assert.equal(one.entry.toAsk().recent, undefined);

  const again = subscribed(one, { offset: 14, recovered: true });
  hear(again.routes, "control", message(11), message(12), message(13), message(14), message(14));
  assert.deepEqual(one.take(), [["resumed"], 13, 14]);
  assert.deepEqual(one.feed.position, { epoch: EPOCH, offset: 14 });
});

test("a loss is reported once, in its place", () => {
  const one = subscription("t");
  one.feed.listened(1);
  const { routes } = subscribed(one, { offset: 5 });
  hear(routes, "control", message(6), gap(7, 9), message(10));
  assert.deepEqual(one.take(), [6, ["gap", 7, 9], 10]);
  hear(routes, "control", gap(9, 12));
  assert.deepEqual(one.take(), [["gap", 11, 12]], "the rest of a gap that was told in part");
  assert.equal(one.feed.position?.offset, 12);

  // The log reaches back only to 20, and the connection breaks twice.
  subscribed(one, { offset: 25, recovered: false });
  assert.deepEqual(one.take(), [["lost"]]);
  subscribed(one, { offset: 25, recovered: false });
  assert.deepEqual(one.take(), [["resumed"]], "it is no news");
  subscribed(one, { offset: 30, recovered: false });
  assert.deepEqual(one.take(), [["lost"]], "more is");
});

test("in another epoch offsets begin again", () => {
  const one = subscription("t");
  one.feed.listened(1);
  hear(subscribed(one, { offset: 90 }).routes, "control", message(91));
  const { routes } = subscribed(one, { epoch: "other", offset: 3, recovered: false });
  hear(routes, "control", message(2), message(3));
  assert.deepEqual(one.take(), [91, ["lost"], 2, 3]);
  assert.deepEqual(one.feed.position, { epoch: "other", offset: 3 });
});

test("a log that has lost messages that were seen counts as another one", () => {
  const one = subscription("t", { since: { epoch: EPOCH, offset: 50 } });
  one.feed.listened(1);
  const { routes } = subscribed(one, { offset: 7, recovered: false });
  hear(routes, "control", message(8));
  assert.deepEqual(one.take(), [["lost"], 8]);
});

test("during a move the old connection may be ahead", () => {
  const one = subscription("t");
  one.feed.listened(1);
  const { routes } = subscribed(one, { offset: 1 });
  const moved = new Routes(null);
  const next = moved.bind(one.entry);
  one.entry.moveTo(next);
  hear(routes, "control", message(2), message(3));
  const reply = { type: "subscribed", topic: "t", epoch: EPOCH, offset: 2, recovered: true, lane: 1 };
  moved.answered(next, reply);
  one.entry.answered(next, reply);
  one.entry.switch(next);
  hear(moved, 1, message(2), message(3), message(4));
  assert.deepEqual(one.take(), [2, 3, ["resumed"], 4]);
});

/** A pattern that moves to another connection while the old one brings `messages`. */
function moved(one, ...messages) {
  const { routes } = subscribed(one);
  const other = new Routes(null);
  const next = other.bind(one.entry);
  one.entry.moveTo(next);
  hear(routes, "control", ...messages);
  const reply = { type: "subscribed", topic: one.entry.topic };
  other.answered(next, reply);
  one.entry.answered(next, reply);
  one.entry.switch(next);
  return other;
}

test("a pattern that has moved drops what the old connection brought, and nothing after that", () => {
  const one = subscription("a.*");
  one.feed.listened(1);
  const routes = moved(one, message(19, "a.b"), message(20, "a.b"));
  assert.deepEqual(one.take(), [19, 20, ["resumed"]]);
  hear(routes, "control", message(19, "a.b"), message(20, "a.b"), message(21, "a.b"));
  assert.deepEqual(one.take(), [21]);
  // The server has forgotten the topic meanwhile, which has no other subscriber.
  hear(routes, "control", message(1, "a.b"), message(2, "a.b"));
  assert.deepEqual(one.take(), [1, 2]);
});

test("offsets that a pattern saw before it moved do not count after a restart of the server, nor for long", (t) => {
  const restarted = subscription("a.*");
  restarted.feed.listened(1);
  moved(restarted, message(20, "a.b"));
  const { routes } = subscribed(restarted);
  hear(routes, "control", message(1, "a.b"));
  assert.deepEqual(restarted.take(), [20, ["resumed"], ["lost"], 1]);

  const now = performance.now();
  const clock = t.mock.method(performance, "now", () => now);
  const quiet = subscription("a.*");
  quiet.feed.listened(1);
  const later = moved(quiet, message(20, "a.b"));
  clock.mock.mockImplementation(() => now + 60_000);
  hear(later, "control", message(1, "a.b"));
  assert.deepEqual(quiet.take(), [20, ["resumed"], 1]);
});

test("every reconnect reports a possible loss for a pattern, and none for datagrams", () => {
  const pattern = subscription("a.*");
  subscribed(pattern);
  subscribed(pattern);
  assert.deepEqual(pattern.take(), [["lost"]]);
  assert.equal(pattern.entry.toAsk().since, undefined);
  const datagrams = subscription("t", { delivery: "datagram" });
  const { routes } = subscribed(datagrams, { offset: 1, lane: 2 });
  datagrams.feed.listened(1);
  hear(routes, "datagram", message(5), message(4), gap(1, 3));
  subscribed(datagrams, { offset: 9 });
  assert.deepEqual(datagrams.take(), [5, ["resumed"]]);
});

test("the position is that of the last message handed out, not of those that wait", async () => {
  const one = subscription("t");
  const { routes } = subscribed(one);
  hear(routes, "control", message(1), message(2), gap(3, 4));
  assert.deepEqual(one.feed.position, { epoch: EPOCH, offset: 0 });
  assert.equal((await one.feed.take())?.offset, 1);
  assert.equal(one.feed.position?.offset, 1);
  assert.equal((await one.feed.take())?.offset, 2);
  assert.equal(one.feed.position?.offset, 4, "a gap is behind what came before it");
});

test("a full queue asks for a pause, and for its end once half of the queue was read", async () => {
  const one = subscription("t", {}, 4);
  const { routes } = subscribed(one);
  assert.deepEqual(hear(routes, "control", ...[1, 2, 3, 4].map((n) => message(n))), [
    "taken",
    "taken",
    "taken",
    "full",
  ]);
  one.entry.isPaused = true;
  await one.feed.take();
  assert.deepEqual(one.take(), []);
  await one.feed.take();
  assert.deepEqual(one.take(), [["room"]]);
  assert.equal(one.entry.toAsk().since.offset, 4, "what waits is not asked for again");
});

test("with a pattern and with datagrams the newest messages win in a full queue", async () => {
  const pattern = subscription("*", {}, 2);
  const { routes } = subscribed(pattern);
  hear(routes, "control", message(1), message(1, "u"), message(2), message(3));
  assert.deepEqual(pattern.take(), [
    ["gap", 1, 1],
    ["gap", 1, 1],
  ]);
  assert.deepEqual([(await pattern.feed.take())?.offset, (await pattern.feed.take())?.offset], [2, 3]);
  const datagrams = subscription("t", { delivery: "datagram" }, 2);
  hear(subscribed(datagrams).routes, "datagram", message(1), message(2), message(3));
  assert.deepEqual(datagrams.take(), []);
  assert.deepEqual([(await datagrams.feed.take())?.offset, datagrams.feed.waiting], [2, 1]);
});

test("with listeners and without a reader nothing waits", async () => {
  const one = subscription("t", {}, 2);
  const { routes } = subscribed(one);
  hear(routes, "control", message(1));
  one.feed.listened(1);
  await null;
  hear(routes, "control", message(2), message(3), message(4));
  assert.deepEqual(one.take(), [1, 2, 3, 4], "and what came before is heard as well");
  assert.equal(one.feed.waiting, 0);
  assert.equal(one.feed.position?.offset, 4);
});

test("a message goes to its topic's subscription, otherwise to the first pattern, and only from its own lane", () => {
  const [exact, first, second] = [subscription("a.b"), subscription("a.*"), subscription("a.>")];
  for (const { feed } of [exact, first, second]) feed.listened(1);
  const { routes } = subscribed(exact, { lane: 1 });
  subscribed(first, { routes, lane: 2 });
  subscribed(second, { routes, lane: 3 });
  hear(routes, 1, message(1, "a.b"));
  hear(routes, 2, message(1, "a.c"));
  hear(routes, 3, message(1, "a.c.d"));
  assert.deepEqual([exact.take(), first.take(), second.take()], [[1], [1], [1]]);
  assert.deepEqual(hear(routes, 4, message(2, "a.b")), ["nobody's"]);
  assert.deepEqual(hear(routes, 1, message(2, "x")), ["nobody's"]);
});

test("a message that has overtaken the answer waits on a topic lane, and is dropped on the control lane", () => {
  const one = subscription("t");
  const routes = new Routes(null);
  const binding = routes.bind(one.entry);
  one.entry.binding = binding;
  assert.deepEqual(hear(routes, 1, message(1)), ["nobody's"], "it was not sent yet");
  binding.order = { isUnderWay: true };
  assert.deepEqual(hear(routes, 1, message(1)), ["waits"]);
  assert.deepEqual(hear(routes, "control", message(1)), ["nobody's"]);
});

test("on the control lane a message after an unsubscribe is a pattern's, and one during a pause is dropped", () => {
  const [pattern, exact] = [subscription("t.*"), subscription("t.a")];
  for (const { feed } of [pattern, exact]) feed.listened(1);
  const { routes } = subscribed(pattern, {});
  const { binding } = subscribed(exact, { routes });
  hear(routes, "control", message(1, "t.a"));
  routes.leave(binding);
  assert.deepEqual(hear(routes, "control", message(2, "t.a")), ["nobody's"], "a pause");
  exact.entry.end(null);
  assert.deepEqual(hear(routes, "control", message(3, "t.a")), ["taken"]);
  routes.left(binding);
  hear(routes, "control", message(4, "t.a"));
  assert.deepEqual([exact.take().filter(Number), pattern.take().filter(Number)], [[1], [3, 4]]);
});

test("messages sent before a pause never take the place of those that are sent again", () => {
  const one = subscription("t");
  one.feed.listened(1);
  const { routes, binding } = subscribed(one, { lane: 1 });
  hear(routes, 1, message(1), message(2));
  routes.leave(binding);
  assert.deepEqual(hear(routes, 1, message(3), message(4)), ["nobody's", "nobody's"]);
  routes.left(binding);
  // On the same lane: two more of the old messages, then everything again.
  subscribed(one, { routes, offset: 7, recovered: true, lane: 1 });
  hear(routes, 1, message(5), message(6), ...[3, 4, 5, 6, 7, 8].map((n) => message(n)));
  assert.deepEqual(one.take(), [1, 2, ["resumed"], 3, 4, 5, 6, 7, 8]);
});

test("if nothing was dropped in a pause, the first message is the next one", () => {
  const one = subscription("t");
  one.feed.listened(1);
  const { routes, binding } = subscribed(one, { lane: 1 });
  hear(routes, 1, message(1));
  routes.leave(binding);
  routes.left(binding);
  subscribed(one, { routes, offset: 3, recovered: true, lane: 1 });
  hear(routes, 1, message(2), message(3), message(4));
  assert.deepEqual(one.take(), [1, ["resumed"], 2, 3, 4]);
});

test("after several pauses on one lane, leftovers of the earlier ones are dropped as well", () => {
  const one = subscription("t");
  one.feed.listened(1);
  const { routes, binding } = subscribed(one, { lane: 1 });
  hear(routes, 1, message(1));
  routes.leave(binding);
  hear(routes, 1, message(2), message(3));
  routes.left(binding);
  const again = subscribed(one, { routes, offset: 9, recovered: true, lane: 1 });
  routes.leave(again.binding);
  routes.left(again.binding);
  subscribed(one, { routes, offset: 9, recovered: true, lane: 1 });
  // Leftovers of the first time, then of the second, then the third.
  hear(routes, 1, ...[4, 5, 2, 3, 4, 5, 6, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((n) => message(n)));
  assert.deepEqual(one.take().filter(Number), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
});

test("a topic uses the control lane if its messages could be taken for earlier ones on its lane", () => {
  const answer = (routes, entry, lane, more = {}) => {
    const binding = routes.bind(entry);
    entry.binding = binding;
    return routes.answered(binding, { type: "subscribed", topic: entry.topic, epoch: EPOCH, offset: 9, lane, ...more });
  };
  const since = { epoch: EPOCH, offset: 1 };
  const routes = new Routes(null);
  assert.equal(answer(routes, subscription("t").entry, 1), true);
  assert.equal(answer(routes, subscription("t").entry, 2), true, "a lane on which it has not been yet");
  const third = subscription("t").entry;
  assert.equal(answer(routes, third, 1), false, "one on which another subscription to it has been");
  assert.ok(routes.isOnControl("t"));
  assert.equal(third.toAsk(routes.isOnControl("t")).lane, "control");

  assert.equal(answer(routes, subscription("a.>").entry, 5), true);
  assert.equal(answer(routes, subscription("a.b").entry, 5), true, "nothing is sent again");
  assert.equal(answer(routes, subscription("b.b", { since }).entry, 5), true, "the pattern is of others");
  assert.equal(answer(routes, subscription("a.c", { since }).entry, 5), false, "a pattern has brought it there");

  // It was left before the answer came, and what was sent until then is in flight.
  const left = new Routes(null);
  const one = subscription("t");
  const binding = left.bind(one.entry);
  left.leave(binding);
  left.answered(binding, { type: "subscribed", topic: "t", epoch: EPOCH, offset: 9, lane: 3 });
  assert.equal(binding.stage, "leaving");
  assert.equal(answer(left, subscription("t").entry, 3), false);
});

test("a subscription that ended with an error throws it once, after the messages that wait", async () => {
  const one = subscription("t");
  hear(subscribed(one).routes, "control", message(1));
  const error = new Error("over");
  one.entry.end(error);
  assert.equal((await one.feed.take())?.offset, 1);
  await assert.rejects(one.feed.take(), error);
  assert.equal(await one.feed.take(), null);
  assert.deepEqual(one.take(), [["end"]]);
});
