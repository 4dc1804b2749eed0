// Requests and subscriptions against a scripted server.

import assert from "node:assert/strict";
import { test } from "node:test";

import { connect } from "../qws.js";
import { client, next, quick, subscribed } from "./support/scripted.js";

test("a publish whose reply was lost is repeated with its key", async (t) => {
  const { client: it, server } = await client(t, ({ type, id, topic, key }, peer, connection) => {
    if (type !== "publish") return null;
    if (connection < 3) return peer.drop();
    return { type: "published", re: id, topic, epoch: "e", offset: 5, duplicate: key === "mine" };
  });
  const [own, made] = [it.publish("a", "x", { key: "mine" }), it.publish("a", "y")];
  assert.deepEqual(await own, { topic: "a", epoch: "e", offset: 5, duplicate: true });
  assert.deepEqual(await made, { topic: "a", epoch: "e", offset: 5, duplicate: false });
  const keys = server.of("publish").map(({ key }) => key);
  assert.deepEqual(keys.filter((key) => key === "mine").length, 3);
  assert.equal(new Set(keys).size, 2, "a key that is made is kept");
  assert.equal(it.reconnects, 2);
});

test("a lost connection rejects requests that must not be repeated, and the others are repeated", async (t) => {
  const { client: it } = await client(t, ({ type, id }, peer, connection) => {
    if (type === "text") return connection === 1 ? "" : { type: "text", re: id, content: "Echo: x", timestamp: 1 };
    if (type === "broadcast") peer.drop();
    return null;
  });
  await it.ready;
  const echo = it.echo("x");
  await assert.rejects(it.broadcast("y"), { kind: "closed", code: 1006 });
  assert.equal(await echo, "Echo: x");
});

test("after a 429 a request waits as long as the server asks, and the caller does not notice", async (t) => {
  const at = [];
  let refused = 0;
  const { client: it } = await client(t, ({ type, id, content }) => {
    if (type !== "text") return null;
    at.push([content, performance.now()]);
    if (content === "never") return { type: "error", re: id, code: 429, message: "slow", retry_after_ms: 60_000 };
    if (refused++ < 1) return { type: "error", re: id, code: 429, message: "slow down", retry_after_ms: 200 };
    return { type: "text", re: id, content: `Echo: ${content}`, timestamp: 1 };
  });
  assert.equal(await it.echo("a"), "Echo: a");
  const [first, second] = at.map(([, when]) => when);
  assert.ok(second - first >= 199, `it was sent again after ${second - first} ms`);
  await assert.rejects(it.echo("never"), { kind: "request", code: 429, retryAfterMs: 60_000 });
});

test("other requests wait with a refused one, and few are in flight at once", async (t) => {
  const times = [];
  let most = 0;
  let open = 0;
  const { client: it } = await client(t, ({ type, id }, peer) => {
    if (type !== "text") return null;
    times.push(performance.now());
    most = Math.max(most, (open += 1));
    const reply =
      times.length === 1
        ? { type: "error", re: id, code: 429, message: "slow down", retry_after_ms: 150 }
        : { type: "text", re: id, content: "", timestamp: 1 };
    setTimeout(() => {
      open -= 1;
      peer.send(reply);
    }, 5);
    return "";
  });
  await Promise.all(Array.from({ length: 500 }, () => it.echo("x")));
  assert.equal(times.length, 501);
  assert.ok(most < 100, `${most} at once`);
  const behind = times.filter((time) => time - times[0] > 6 && time - times[0] < 140);
  assert.ok(behind.length < 100, `${behind.length} were sent while the server had asked to wait`);
});

test("a request without a reply in time is given up, and no other with it", async (t) => {
  const { client: it } = await client(t, ({ type }) => (type === "text" ? "" : null), { requestTimeoutMs: 100 });
  await it.ready;
  await assert.rejects(it.echo("x"), { kind: "timeout" });
  await it.ping();
  assert.equal(it.state, "open");
});

test("requests that are too long, not JSON, or of the wrong type are never sent", async (t) => {
  const { client: it, server } = await client(t, () => null);
  await it.ping();
  const sent = server.heard.length;
  await assert.rejects(it.broadcast("x".repeat(1000)), { kind: "usage", code: 413 });
  await assert.rejects(it.broadcast("ä".repeat(490)), { kind: "usage", code: 413 });
  await assert.rejects(it.broadcast(new Uint8Array(1000)), { kind: "usage", code: 413 });
  await assert.rejects(it.signal("x", 10n), { kind: "usage" });
  await assert.rejects(it.signal("x", undefined), { kind: "usage" });
  for (const value of [undefined, () => {}, Symbol("x"), 10n, { n: 10n }, new ArrayBuffer(1), new Float32Array(1)]) {
    await assert.rejects(it.publish("a", value), { kind: "usage" }, String(typeof value));
  }
  await assert.rejects(it.publish("a", "x", { meta: ["x"] }), { kind: "usage" });
  await assert.rejects(it.publish("a", "x", { ttlMs: 0 }), { kind: "usage" });
  await assert.rejects(it.direct({ user: "ada", to: "x" }, "x"), { kind: "usage" });
  await assert.rejects(it.request({}, "x"), { kind: "usage" });
  await assert.rejects(it.request("a", "x", { timeoutMs: 99 }), { kind: "usage" });
  await assert.rejects(it.close(1005), { kind: "usage" });
  await assert.rejects(it.close(1000, "x".repeat(124)), { kind: "usage" });
  it.subscribe("a").unsubscribe();
  await it.ping();
  // The client sends pings by itself as well.
  const types = server.heard.slice(sent).map(({ type }) => type);
  assert.deepEqual(
    types.filter((type) => type !== "ping"),
    ["subscribe", "unsubscribe"],
  );
  for (const url of ["http://example.com", "nonsense", "ftp://localhost"]) {
    assert.throws(() => connect(url, quick), { kind: "usage" }, url);
  }
  assert.throws(() => connect(server.url, { ...quick, carriers: ["webtransport"] }), { kind: "usage" });
});

test("a subscription that is refused later is asked for until it is accepted, or never can be", async (t) => {
  let refusals = 0;
  const { client: it, server } = await client(t, ({ type, id, topic }, _, connection) => {
    if (type !== "subscribe") return null;
    if (connection === 1) return subscribed({ id, topic }, 3);
    if (topic === "gone") return { type: "error", re: id, code: 403, message: "topic: no more" };
    if (refusals++ < 2) return { type: "error", re: id, code: 503, message: "later", retry_after_ms: 20 };
    return subscribed({ id, topic }, 3, { recovered: true });
  });
  const [kept, gone] = [it.subscribe("kept"), it.subscribe("gone")];
  await Promise.all([kept.ready, gone.ready]);
  const ended = next(gone, "end");
  server.peers[0].drop();
  await next(kept, "resumed");
  assert.equal((await ended).code, 403);
  await assert.rejects(gone[Symbol.asyncIterator]().next(), { kind: "request", code: 403 });
  const since = server
    .of("subscribe")
    .filter(({ topic }) => topic === "kept")
    .map((message) => message.since);
  assert.deepEqual(since, [undefined, ...Array(3).fill({ epoch: "e", offset: 3 })]);
});

test("topics are subscribed to before patterns, and a text again once its previous end is confirmed", async (t) => {
  const { client: it, server } = await client(t, ({ type, id, topic }) => {
    if (type === "subscribe") return subscribed({ id, topic }, 0);
    return type === "unsubscribe" ? { type: "ok", re: id, topic } : null;
  });
  const pattern = it.subscribe("a.>");
  const topic = it.subscribe("a.b");
  await Promise.all([pattern.ready, topic.ready]);
  const left = topic.unsubscribe();
  const again = it.subscribe("a.b", { recent: 1 });
  await left;
  await again.ready;
  const asked = server.heard.filter(({ topic: text }) => text).map(({ type, topic: text }) => `${type} ${text}`);
  assert.deepEqual(asked, ["subscribe a.b", "subscribe a.>", "unsubscribe a.b", "subscribe a.b"]);
});

test("the server's end of a subscription is its error", async (t) => {
  const { client: it, server } = await client(t, ({ type, id, topic }) =>
    type === "subscribe" ? subscribed({ id, topic }, 0) : null,
  );
  const one = it.subscribe("a");
  await one.ready;
  server.peers[0].send({ type: "unsubscribed", topic: "a", code: 403, reason: "not any more" });
  await assert.rejects(
    async () => {
      for await (const message of one) assert.fail(message.topic);
    },
    { kind: "request", code: 403, message: "not any more" },
  );
  assert.equal(one.state, "ended");
  assert.equal(it.subscribe("a").state, "pending", "it may be subscribed to again");
});

test("messages are kept for a loop whenever there are no listeners", { timeout: 10_000 }, async (t) => {
  const { client: it, server } = await client(t, ({ type, id, topic }) =>
    type === "subscribe" ? subscribed({ id, topic }, 0) : null,
  );
  const one = it.subscribe("t");
  await one.ready;
  let offset = 0;
  const send = async (count) => {
    for (let sent = 0; sent < count; sent += 1) {
      server.peers[0].send({ type: "message", topic: "t", offset: (offset += 1), content: "x", timestamp: 1 });
    }
    await it.ping();
  };
  const heard = [];
  const hear = ({ detail }) => heard.push(detail.offset);
  const object = { handleEvent: hear };
  const abort = new AbortController();
  one.addEventListener("message", hear, { once: true });
  await send(2);
  one.addEventListener("message", object);
  one.addEventListener("message", object);
  await send(1);
  one.removeEventListener("message", object);
  await send(1);
  one.addEventListener("message", hear, { signal: abort.signal });
  await send(1);
  abort.abort();
  one.addEventListener("message", hear, { signal: abort.signal });
  await send(1);
  assert.deepEqual(heard, [1, 2, 3, 4, 5]);
  assert.equal((await one[Symbol.asyncIterator]().next()).value.offset, 6);
});

test("values are sent as they were at the call", { timeout: 10_000 }, async (t) => {
  const received = [];
  const { client: it, server } = await client(t, ({ type, id, data }) => {
    if (type === "signal") received.push(data.at);
    if (type === "binary") return { type: "text", re: id, content: "", timestamp: 1 };
    return type === "signal" ? { type: "ok", re: id } : null;
  });
  const bytes = new Uint8Array([7, 7]);
  const data = { at: 1 };
  const both = [it.echo(bytes), it.signal("x", data)];
  bytes.fill(0);
  data.at = 2;
  await Promise.all(both);
  assert.deepEqual([...server.attachments[0]], [7, 7]);
  assert.deepEqual(received, [1]);
});

test("a request may wait for ever, or for longer than a timer can", { timeout: 10_000 }, async (t) => {
  for (const requestTimeoutMs of [Infinity, 2 ** 31]) {
    const { client: it } = await client(t, () => null, { requestTimeoutMs });
    await it.ping();
  }
});
