// Several readers of one subscription: which of them gets a message, and what happens when one leaves.

import assert from "node:assert/strict";
import { test } from "node:test";

import { client, next, subscribed } from "./support/scripted.js";

const DONE = { done: true, value: undefined };

/** A subscription, and a function that sends it the messages from one offset to another. */
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

/** If something is wrong, a test here may wait for ever. */
const bounded = { timeout: 30_000 };

const offset = async (result) => (await result).value?.offset;

test("an iterator that was left with a pending call takes no message from the others", bounded, async (t) => {
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

test("an iterator is left once, and later messages wait for the next one", bounded, async (t) => {
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

test("throw leaves an iterator as well, and rejects with the error", bounded, async (t) => {
  const { subscription: made, send } = await subscription(t);
  const iterator = made[Symbol.asyncIterator]();
  const asked = iterator.next();
  const error = new Error("enough");
  await assert.rejects(iterator.throw(error), error);
  assert.deepEqual([await asked, await iterator.next()], [DONE, DONE]);
  send(1, 1);
  assert.equal(await offset(made[Symbol.asyncIterator]().next()), 1, "the subscription goes on");
});

test("an iterator can itself be iterated: a loop continues where it was", bounded, async (t) => {
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

test("after the last iterator is left, listeners get what comes, and pending calls nothing", bounded, async (t) => {
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

test("all waiting readers are released when the subscription ends", bounded, async (t) => {
  const { subscription: made } = await subscription(t);
  const waiting = [made, made].map((one) => one[Symbol.asyncIterator]().next());
  await made.unsubscribe();
  assert.deepEqual(await Promise.all(waiting), [DONE, DONE]);
});
