// Values, their senders, users as receivers, and what a subscription leaves out, against a scripted server.

import assert from "node:assert/strict";
import { test } from "node:test";

import { internals, JsonText } from "../qws.js";
import { accepted, client, next, subscribed } from "./support/scripted.js";

const { decodeBody, encodeBody, partOf } = internals;
const bounded = { timeout: 10_000 };

test("a part of a JSON text is what JSON.parse would find there", () => {
  const texts = ["", 'a"b\\', "\\", '\\"', "é\u2028"];
  const values = [0, -1.5e300, true, null, [], {}, [[], {}, [1, [2]]], { a: { "b c": [1] } }, ...texts];
  for (const value of values) {
    for (const gap of [undefined, 1, "\t"]) {
      const object = { type: "x", 'da"ta': 1, list: [value, value], data: value, then: [value] };
      const text = JSON.stringify(object, null, gap);
      for (const path of [["data"], ["list", 0], ["list", 1], ["then", 0]]) {
        assert.deepEqual(JSON.parse(partOf(text, path)), value, `${path} of ${text}`);
      }
      assert.equal(partOf(text, ["none"]), undefined);
      assert.equal(partOf(text, ["list", 2]), undefined);
    }
  }
  assert.equal(partOf('{"data":1,"data": 9007199254740993 }', ["data"]), "9007199254740993", "the last one counts");
  assert.equal(partOf('{"\\u0064ata":[ 1 , 2 ]}', ["data"]), "[ 1 , 2 ]", "names may be escaped");
});

test("a text that is JSON already is sent as it is", () => {
  const data = new JsonText(" [1,  9007199254740993] ");
  const body = encodeBody({ type: "x", data, meta: new JsonText("{}"), id: 1 });
  assert.equal(body, '{"type":"x","id":1,"data":[1,  9007199254740993],"meta":{}}');
  assert.equal(decodeBody(body).json.data.length, 2);
  assert.throws(() => new JsonText("{"), { kind: "usage" });
});

test("a string is sent as text, bytes as bytes, and everything else as JSON", bounded, async (t) => {
  const { client: it, server } = await client(t, (message, _, connection) => {
    const { type, id, topic } = message;
    if (type === "handshake") return accepted(message, connection);
    if (type === "publish") return { type: "published", re: id, topic, epoch: "e", offset: 1 };
    if (["broadcast", "direct", "signal"].includes(type)) return { type: "ok", re: id, delivered: 2 };
    return null;
  });
  const changed = { n: [1, null] };
  const sending = it.publish("t", changed, { meta: { event: "made" }, ttlMs: 5000 });
  changed.n.push("later");
  await sending;
  await it.publish("t", "text", { bytes: new Uint8Array([7]) });
  await it.publish("t", null);
  await it.publish("t", new JsonText("18446744073709551615"));
  await it.publish("t", new Uint8Array([1, 2]), { meta: { kind: "image" } });
  assert.equal(await it.broadcast(false), 2);
  assert.equal(await it.direct("id-1", "hi"), 2);
  assert.equal(await it.direct({ user: "ada" }, { task: 7 }, { meta: { event: "assigned" } }), 2);
  assert.equal(await it.signal({ user: "ada" }, [1]), 2);
  const sent = server.heard.filter(({ type }) => type !== "handshake" && type !== "ping");
  const without = sent.map(({ id: _id, key: _key, ...rest }) => rest);
  assert.deepEqual(without, [
    { type: "publish", topic: "t", ttl_ms: 5000, data: { n: [1, null] }, meta: { event: "made" } },
    { type: "publish", topic: "t", content: "text" },
    { type: "publish", topic: "t", data: null },
    { type: "publish", topic: "t", data: Number("18446744073709551615") },
    { type: "publish", topic: "t", meta: { kind: "image" } },
    { type: "broadcast", data: false },
    { type: "direct", to: "id-1", content: "hi" },
    { type: "direct", user: "ada", data: { task: 7 }, meta: { event: "assigned" } },
    { type: "signal", user: "ada", data: [1] },
  ]);
  assert.deepEqual(server.attachments.map((bytes) => [...bytes]), [[7], [1, 2]]);
});

test("a message has its sender, its value, and the value's text", bounded, async (t) => {
  const { client: it, server } = await client(t, (message, _, connection) => {
    if (message.type === "handshake") return accepted(message, connection);
    if (message.type === "subscribe") return subscribed(message, 0);
    return null;
  });
  const room = it.subscribe("t");
  const [one, other] = [next(room, "message"), next(it.subscribe("t"), "message")];
  await room.ready;
  const value = '{"total" : 18446744073709551615}';
  server.peers[0].send(
    `{"type":"message","topic":"t","offset":1,"from":"f","user":"ada","name":"Ada","data":${value},` +
      `"meta":{"event":"x"},"timestamp":1,"expires_at":9}`,
  );
  const message = await one;
  assert.deepEqual({ ...message }, {
    topic: "t", offset: 1, from: "f", user: "ada", name: "Ada", data: { total: 18446744073709552000 },
    meta: { event: "x" }, timestamp: 1, expiresAt: 9,
  });
  assert.equal(message.json, value);
  assert.deepEqual([message.text, message.bytes], [undefined, undefined]);
  const copy = await other;
  assert.notEqual(copy, message);
  assert.equal(copy.json, value, "each subscription has its own message, with the value's text");
  const direct = next(it, "direct");
  server.peers[0].send({ type: "direct", from: "f", user: "ada", content: "hi", data: null, timestamp: 2 });
  const said = await direct;
  assert.deepEqual({ ...said }, { from: "f", user: "ada", content: "hi", data: null, timestamp: 2 });
  assert.deepEqual([said.text, said.json], ["hi", "null"]);
});

test("a page of history has values, and attachments in base64", bounded, async (t) => {
  const entry = (offset, fields) => ({ type: "message", topic: "t", offset, timestamp: 1, ...fields });
  const { client: it } = await client(t, ({ type, id }) => {
    if (type !== "history") return null;
    const messages = [
      entry(1, { data: "AQI=" }),
      entry(2, { data: "AQI=", encoding: "json" }),
      entry(3, { data: null, encoding: "json", attachment: "Aw==" }),
      entry(4, { content: "x", data: { deep: [1] }, encoding: "json" }),
    ];
    return { type: "history", re: id, topic: "t", epoch: "e", offset: 4, messages, more: false };
  });
  const { messages } = await it.history("t");
  const shown = messages.map(({ content, data, bytes, json }) => [content, data, bytes && [...bytes], json]);
  assert.deepEqual(shown, [
    [undefined, undefined, [1, 2], undefined],
    [undefined, "AQI=", undefined, '"AQI="'],
    [undefined, null, [3], "null"],
    ["x", { deep: [1] }, undefined, '{"deep":[1]}'],
  ]);
});

test("what a subscription leaves out is asked for, and left out of what is fetched as well", bounded, async (t) => {
  const log = [1, 2, 3, 4].map((offset) => ({
    type: "message", topic: "t", offset, content: String(offset), timestamp: 1,
    from: offset === 4 ? "client-1" : "other", meta: { host: offset === 1 ? "us-1" : `eu-${offset}`, core: 0 },
  }));
  const { client: it, server } = await client(t, (message, peer, connection) => {
    const { type, id, since } = message;
    if (type === "handshake") return accepted(message, connection);
    if (type === "subscribe") return subscribed(message, 4);
    if (type !== "history") return null;
    const messages = log.filter(({ offset }) => offset > since.offset);
    return { type: "history", re: id, topic: "t", epoch: "e", offset: 4, messages, more: false, recovered: true };
  });
  const options = { maxRate: 2, echo: false, filter: { host: { prefix: "eu-" }, core: 0 } };
  await it.subscribe("t", options).ready;
  const { max_rate, echo, filter } = server.of("subscribe")[0];
  assert.deepEqual({ max_rate, echo, filter }, { max_rate: 2, echo: false, filter: options.filter });
  await assert.rejects(it.subscribe("t").ready, { code: 409 }, "other terms do not share it");
  const { maxRate: _maxRate, ...rest } = options;
  await it.subscribe("u", rest).ready;
  const late = it.subscribe("u", { ...rest, since: { epoch: "e", offset: 0 } });
  const heard = [];
  late.addEventListener("message", ({ detail }) => heard.push(detail.offset));
  await late.ready;
  assert.deepEqual(heard, [2, 3], "offset 1 has another host, and 4 is this client's own");
  const filters = [{ a: null }, { a: { x: 1 } }, []].map((filter) => ({ filter }));
  for (const wrong of [{ maxRate: 0 }, { maxRate: 1001 }, { echo: 1 }, ...filters]) {
    await assert.rejects(it.subscribe("v", wrong).ready, { kind: "usage" }, JSON.stringify(wrong));
  }
  await assert.rejects(it.subscribe("v", { share: true, maxRate: 1 }).ready, { kind: "usage" });
});

test("what this client published on an earlier connection is its own as well", bounded, async (t) => {
  const { client: it, server } = await client(t, (message, peer, connection) => {
    const { type } = message;
    if (type === "handshake") return accepted(message, connection, { session: `secret-${connection}` });
    if (type === "subscribe") return subscribed(message, 1, connection > 1 ? { recovered: true } : {});
    return null;
  });
  const room = it.subscribe("t", { echo: false });
  const heard = [];
  room.addEventListener("message", ({ detail }) => heard.push(detail.offset));
  await room.ready;
  const resumed = next(room, "resumed");
  server.peers[0].drop();
  await resumed;
  const message = (offset, from) => ({ type: "message", topic: "t", offset, from, content: "x", timestamp: 1 });
  server.peers[1].together(message(2, "client-1"), message(3, "other"));
  await it.ping();
  assert.deepEqual(heard, [3]);
  const [first, second] = server.of("handshake");
  assert.deepEqual([first.resume, second.resume], [undefined, "secret-1"], "it shows which client it continues");
});
