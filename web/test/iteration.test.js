// Several who read one subscription: whose a message is, and what becomes of who leaves.

import assert from "node:assert/strict";
import { test } from "node:test";

import { client, next, subscribed } from "./support/scripted.js";

const DONE = { done: true, value: undefined };

/** A subscription, and what sends it the messages from one offset to another. */
async function subscription(t) {
  const { client: it, server } = await client(t, (message) => {
    if (message.type === "unsubscribe") return { type: "unsubscribed", re: message.id, topic: "t" };
    return message.type === "subscribe" ? subscribed(message, 0) : null;
  });
  const made = it.subscribe("t");
  await made.ready;
  const send = (first, last) => {
    for (let offset = first; offset <= last; offset += 1) {
      server.peers[0].send({ type: "message", topic: "t", offset, content: String(offset), timestamp: 1 });
    }
  };
  return { subscription: made, send };
}

/** Who waits here may wait for ever where something is wrong. */
const bounded = { timeout: 30_000 };

const offset = async (result) => (await result).value?.offset;

test("who was left with a message asked for takes none from who reads on", bounded, async (t) => {
  const { subscription: made, send } = await subscription(t);
  const [left, stays] = [made[Symbol.asyncIterator](), made[Symbol.asyncIterator]()];
  const asked = [left.next(), left.next()];
  const first = stays.next();
  assert.deepEqual(await left.return(), DONE);
  assert.deepEqual(await Promise.all(asked), [DONE, DONE]);
  send(1, 3);
  assert.deepEqual([await offset(first), await offset(stays.next()), await offset(stays.next())], [1, 2, 3]);
  assert.deepEqual(await left.next(), DONE);
  assert.equal(made.position.offset, 3);
});

test("who was left is left once, and what comes later waits for the next", bounded, async (t) => {
  const { subscription: made, send } = await subscription(t);
  const [one, other] = [made[Symbol.asyncIterator](), made[Symbol.asyncIterator]()];
  const asked = one.next();
  await Promise.all([one.return(), one.return()]);
  assert.deepEqual(await asked, DONE);
  const waits = other.next();
  send(1, 2);
  assert.equal(await offset(waits), 1);
  await other.return();
  assert.equal(await offset(made[Symbol.asyncIterator]().next()), 2);
});

test("an iterator is left by throw as well, which fails with what was thrown", bounded, async (t) => {
  const { subscription: made, send } = await subscription(t);
  const iterator = made[Symbol.asyncIterator]();
  const asked = iterator.next();
  const error = new Error("enough");
  await assert.rejects(iterator.throw(error), error);
  assert.deepEqual([await asked, await iterator.next()], [DONE, DONE]);
  send(1, 1);
  assert.equal(await offset(made[Symbol.asyncIterator]().next()), 1, "the subscription goes on");
});

test("an iterator can itself be iterated: a loop goes on where one was", bounded, async (t) => {
  const { subscription: made, send } = await subscription(t);
  send(1, 3);
  const iterator = made[Symbol.asyncIterator]();
  assert.equal(iterator[Symbol.asyncIterator](), iterator);
  const read = [await offset(iterator.next())];
  for await (const message of iterator) {
    read.push(message.offset);
    if (read.length === 3) break;
  }
  assert.deepEqual(read, [1, 2, 3]);
  assert.deepEqual(await iterator.next(), DONE);
});

test("where the last is left, who listens gets what comes, and nobody what was asked for", bounded, async (t) => {
  const { subscription: made, send } = await subscription(t);
  const iterator = made[Symbol.asyncIterator]();
  const asked = iterator.next();
  const heard = next(made, "message");
  await iterator.return();
  send(1, 1);
  assert.equal((await heard).offset, 1);
  assert.deepEqual(await asked, DONE);
  assert.equal(made.position.offset, 1);
});

test("all who wait are released where it ends", bounded, async (t) => {
  const { subscription: made } = await subscription(t);
  const waiting = [made, made].map((one) => one[Symbol.asyncIterator]().next());
  await made.unsubscribe();
  assert.deepEqual(await Promise.all(waiting), [DONE, DONE]);
});
