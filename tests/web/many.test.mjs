// Many messages over few streams.

import assert from "node:assert/strict";
import { test } from "node:test";

import { WebSocket } from "ws";

import { connect } from "../../web/qws.js";
import { BLANK, until, withBrowser } from "./support/browser.mjs";
import { needsServer } from "./support/server.mjs";

// A log that is long enough for a slow reader.
const settings = `[[topics]]
pattern = "slow.>"
history_messages = 10000
history_bytes = 10000000`;
const setup = withBrowser({ settings });
/** A server on which all topics of a client share one lane. */
const narrow = withBrowser({ settings: `[limits]\ntopic_lanes = 1\n${settings}` });
const COUNT = 20_000;

/** Publishes from this process, 500 messages at a time. */
async function publish(topics, count, server = setup.server) {
  const writer = connect(server.url, { WebSocket, requestTimeoutMs: 60_000 });
  const batch = 500;
  for (let at = 0; at < count; at += batch) {
    const numbers = Array.from({ length: Math.min(batch, count - at) }, (_, more) => at + more);
    await Promise.all(numbers.map((number) => writer.publish(topics[number % topics.length], String(number))));
  }
  await writer.close();
}

/** Subscribes to topics in a page, and keeps the received numbers by topic. */
function listen(page, topics) {
  return page.evaluate(async (topics) => {
    const { connect } = await import("/qws.js");
    const client = connect();
    const heard = Object.fromEntries(topics.map((topic) => [topic, []]));
    let count = 0;
    const trouble = [];
    await client.ready;
    const subscriptions = topics.map((topic) => client.subscribe(topic));
    for (const subscription of subscriptions) {
      subscription.addEventListener("message", ({ detail }) => {
        heard[detail.topic].push(Number(detail.content));
        count += 1;
      });
      for (const type of ["gap", "lost"])
        subscription.addEventListener(type, ({ detail }) => trouble.push([type, detail]));
    }
    await Promise.all(subscriptions.map(({ ready }) => ready));
    Object.assign(window, { client, heard, trouble, heardCount: () => count });
    return client.carrier;
  }, topics);
}

for (const [topics, what] of [
  [1, "one topic"],
  [40, "forty topics"],
]) {
  test(`${COUNT} messages on ${what} arrive in order over at most 16 streams`, needsServer, async (t) => {
    const names = Array.from({ length: topics }, (_, at) => `many.of${topics}.t${at}`);
    const page = await setup.open(t, BLANK);
    assert.equal(await listen(page, names), "webtransport");
    const began = performance.now();
    await publish(names, COUNT);
    await until(page, (count) => heardCount() >= count, COUNT, 60_000);
    t.diagnostic(`${COUNT} messages in ${((performance.now() - began) / 1000).toFixed(1)} s`);
    const { heard, trouble, streams, reconnects } = await page.evaluate(() => ({
      heard,
      trouble,
      streams: client.streams,
      reconnects: client.reconnects,
    }));
    assert.deepEqual(trouble, []);
    names.forEach((name, at) => {
      const expected = Array.from({ length: COUNT / topics }, (_, more) => at + more * topics);
      assert.deepEqual(heard[name], expected, name);
    });
    t.diagnostic(`${streams} streams, ${reconnects} reconnects`);
    assert.ok(streams <= 16 + 1, `${streams} streams`);
    assert.equal(streams, 1 + Math.min(topics, 16), "the control lane, and one stream per topic up to 16");
  });
}

for (const [lanes, what] of [
  [setup, "its own lane"],
  [narrow, "a shared lane"],
]) {
  test(`a slow subscription on ${what} buffers little, loses nothing, and delays no other`, needsServer, async (t) => {
    const page = await lanes.open(t, BLANK);
    await page.evaluate(async () => {
      const { connect } = await import("/qws.js");
      const client = connect();
      const slow = client.subscribe("slow.one", { highWaterMark: 64 });
      const beside = client.subscribe("slow.beside");
      const told = { resumed: 0, lost: 0, beside: 0 };
      for (const type of ["resumed", "lost"]) slow.addEventListener(type, () => (told[type] += 1));
      beside.addEventListener("message", () => (told.beside += 1));
      await Promise.all([slow.ready, beside.ready]);
      Object.assign(window, { client, slow, told, read: [] });
    });
    await publish(["slow.one"], 3_000, lanes.server);
    await publish(["slow.beside"], 100, lanes.server);
    await until(page, () => told.beside === 100);
    assert.equal(await page.evaluate(() => slow.state), "paused");
    const more = publish(["slow.one"], 2_000, lanes.server);
    await page.evaluate(() => {
      (async () => {
        for await (const { content } of slow) {
          read.push(Number(content));
          if (read.length % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
        }
      })();
    });
    await more;
    await until(page, () => read.length >= 5_000, undefined, 60_000);
    const { numbers, counts, streams, reconnects } = await page.evaluate(() => ({
      numbers: read,
      counts: told,
      streams: client.streams,
      reconnects: client.reconnects,
    }));
    const upTo = (count) => Array.from({ length: count }, (_, at) => at);
    assert.deepEqual(numbers, [...upTo(3_000), ...upTo(2_000)]);
    t.diagnostic(`paused and resumed ${counts.resumed} times, over ${streams} streams`);
    assert.deepEqual([counts.lost, reconnects], [0, 0]);
  });
}

test("subscriptions that come and go on one lane lose and repeat nothing", needsServer, async (t) => {
  const page = await narrow.open(t, BLANK);
  await page.evaluate(async () => {
    const { connect } = await import("/qws.js");
    const client = connect();
    client.subscribe("slow.>").addEventListener("message", () => {});
    const readers = Array.from({ length: 8 }, (_, at) => ({ topic: `slow.t${at}`, next: 0, rounds: 0 }));
    const wrong = [];
    const read = async (reader) => {
      for (let since; ; reader.rounds += 1) {
        const subscription = client.subscribe(reader.topic, { highWaterMark: 16, since });
        reader.subscription = subscription;
        subscription.addEventListener("lost", () => wrong.push(`${reader.topic} lost`));
        let left = 20 + Math.floor(Math.random() * 300);
        for await (const { content } of subscription) {
          if (Number(content) !== reader.next) wrong.push(`${reader.topic}: ${content} in place of ${reader.next}`);
          reader.next = Number(content) + 1;
          if (Math.random() < 0.05) await new Promise((resolve) => setTimeout(resolve, Math.random() * 5));
          if ((left -= 1) === 0) break;
        }
        since = subscription.position;
        const unsubscribed = subscription.unsubscribe();
        if (Math.random() < 0.5) await unsubscribed;
      }
    };
    for (const reader of readers) read(reader).catch((error) => wrong.push(String(error)));
    await Promise.all(readers.map(({ subscription }) => subscription.ready));
    Object.assign(window, { client, readers, wrong });
  });
  const topics = Array.from({ length: 8 }, (_, at) => `slow.t${at}`);
  const writer = connect(narrow.server.url, { WebSocket });
  t.after(() => writer.close());
  for (let at = 0; at < 3_000; at += 10) {
    const numbers = Array.from({ length: 10 }, (_, more) => String(at + more));
    await Promise.all(topics.flatMap((topic) => numbers.map((number) => writer.publish(topic, number))));
  }
  await until(page, () => wrong.length > 0 || readers.every(({ next }) => next === 3_000), undefined, 60_000);
  const { wrong, rounds, reconnects } = await page.evaluate(() => ({
    wrong,
    rounds: readers.reduce((sum, { rounds }) => sum + rounds, 0),
    reconnects: client.reconnects,
  }));
  assert.deepEqual(wrong, []);
  // Under load the server may have disconnected the page as too slow, which only adds another resubscription.
  t.diagnostic(`${rounds} resubscriptions, ${reconnects} reconnects`);
  assert.ok(rounds > 30);
});

test("datagrams and topics on the control lane use no additional stream", needsServer, async (t) => {
  const page = await setup.open(t, BLANK);
  await page.evaluate(async () => {
    const { connect } = await import("/qws.js");
    const client = connect();
    const heard = { datagrams: [], control: [] };
    const datagrams = client.subscribe("few.datagrams", { delivery: "datagram" });
    const control = client.subscribe("few.control", { lane: "control" });
    datagrams.addEventListener("message", ({ detail }) => heard.datagrams.push(Number(detail.content)));
    control.addEventListener("message", ({ detail }) => heard.control.push(Number(detail.content)));
    await Promise.all([datagrams.ready, control.ready]);
    Object.assign(window, { client, heard });
  });
  await publish(["few.control"], 500);
  const writer = connect(setup.server.url, { WebSocket });
  t.after(() => writer.close());
  // One after the other, so that only the network can lose any.
  for (let at = 0; at < 200; at += 1) await writer.publish("few.datagrams", String(at));
  await until(page, () => heard.control.length === 500 && heard.datagrams.at(-1) === 199);
  const { heard, streams } = await page.evaluate(() => ({ heard, streams: client.streams }));
  assert.deepEqual(
    heard.control,
    Array.from({ length: 500 }, (_, at) => at),
  );
  assert.ok(heard.datagrams.length > 150, `${heard.datagrams.length} of 200 datagrams came`);
  assert.deepEqual(
    [...heard.datagrams].sort((a, b) => a - b),
    heard.datagrams,
    "an older one never follows a newer one",
  );
  t.diagnostic(`${heard.datagrams.length} of 200 datagrams, ${streams} streams`);
  assert.ok(streams <= 2, `${streams} streams`);
});
