// What the client does about what a server does: against one that does as it is told.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";

import WebSocket from "ws";

import { connect } from "../qws.js";
import { next, scripted } from "./support/scripted.js";

const quick = { WebSocket, maxBackoffMs: 20 };

/** A client of a scripted server, both ended with the test. */
async function client(t, answer, options = {}) {
  const server = await scripted(answer);
  const made = connect(server.url, { ...quick, ...options });
  t.after(async () => {
    await made.close();
    await server.stop();
  });
  return { client: made, server };
}

const subscribed = ({ id, topic }, offset, more = {}) => ({
  type: "subscribed",
  re: id,
  topic,
  epoch: "e",
  offset,
  ...more,
});

test("handshake comes first and alone, and everything after its answer", async (t) => {
  const waits = [];
  const { client: it, server } = await client(t, (message, peer) => {
    if (message.type === "handshake") waits.push([message, peer]);
    return message.type === "handshake" ? "" : null;
  });
  const pong = it.ping();
  it.subscribe("a");
  while (waits.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(server.heard.map(({ type }) => type), ["handshake"]);
  assert.equal(it.state, "connecting");
  const [[{ id }, peer]] = waits;
  peer.send({ type: "handshake_response", re: id, accepted: true, client_id: "c", server_name: "S", client_name: "Ada" });
  await it.ready;
  await pong;
  assert.deepEqual([it.state, it.id, it.name, it.serverName, it.carrier], ["open", "c", "Ada", "S", "websocket"]);
}, { timeout: 10_000 });

test("what cannot be understood ends it", async (t) => {
  const { client: it } = await client(t, ({ type }) => (type === "text" ? "nonsense" : null));
  await it.ready;
  const closed = next(it, "close");
  await assert.rejects(it.echo("x"), { kind: "closed", code: 1002 });
  assert.deepEqual([(await closed).code, (await closed).willReconnect, it.state], [1002, false, "closed"]);
});

test("ping is answered, and what is unknown is passed over", async (t) => {
  const { client: it, server } = await client(t, () => null);
  await it.ready;
  const [peer] = server.peers;
  peer.send({ type: "from the future", topic: 1, offset: "x" });
  peer.send({ type: "ok", re: 12345, more: true });
  peer.send({ type: "ping", timestamp: 7, what: {} });
  while (server.of("pong").length === 0) await it.ping();
  assert.equal(server.of("pong")[0].timestamp, 7);
});

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

test("what may not be repeated is rejected with the connection, and the rest is", async (t) => {
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

test("it comes back after the codes that allow it, and after no other", async () => {
  const yes = [1001, 1011, 1012, 1013, 4408, 4413];
  const no = [1000, 1002, 1003, 1007, 1008, 1009, 4401, 4403, 4429, 4999];
  const outcomes = await Promise.all(
    [...yes, ...no].map(async (code) => {
      const server = await scripted(() => null);
      const it = connect(server.url, quick);
      await it.ready;
      const closed = next(it, "close");
      server.peers[0].close(code, "because");
      const { willReconnect, reason, code: told } = await closed;
      assert.deepEqual([told, reason], [code, "because"]);
      if (willReconnect) await next(it, "open");
      assert.equal(it.state, willReconnect ? "open" : "closed", String(code));
      await it.close();
      await server.stop();
      return willReconnect;
    }),
  );
  assert.deepEqual(outcomes, [...yes.map(() => true), ...no.map(() => false)]);
});

test("an announced end counts, and when to come back", async (t) => {
  const { client: it, server } = await client(t, () => null);
  await it.ready;
  const closed = next(it, "close");
  const told = performance.now();
  server.peers[0].send({ type: "close", code: 1001, reason: "going", reconnect_after_ms: 300 });
  assert.deepEqual(await closed, { code: 1001, reason: "going", willReconnect: true });
  await next(it, "open");
  assert.ok(performance.now() - told >= 299, "too early");
  assert.ok(performance.now() - told < 2000, "too late");
});

test("a refusal that time does not heal is final, and one that it does is not", async (t) => {
  const refuse = (code, reason) => ({ type, id }, peer, connection) => {
    if (type !== "handshake" || connection > 1) return null;
    peer.send({ type: "handshake_response", re: id, accepted: false, server_name: "S", reason });
    peer.close(code, "");
    return "";
  };
  const { client: kept } = await client(t, refuse(1013, "full"));
  await kept.ready;
  const { client: out, server } = await client(t, refuse(4401, "a token is needed"));
  const closed = next(out, "close");
  await assert.rejects(out.ready, { kind: "closed", code: 4401, message: "a token is needed" });
  assert.deepEqual(await closed, { code: 4401, reason: "a token is needed", willReconnect: false });
  await assert.rejects(out.ping(), { kind: "closed", code: 4401 });
  const late = out.subscribe("a");
  await assert.rejects(late.ready, { kind: "closed", code: 4401 });
  assert.equal(server.peers.length, 1);

  const { client: wrong } = await client(t, ({ type, id }) =>
    type === "handshake" ? { type: "error", re: id, code: 400, message: "client_name: no" } : null,
  );
  await assert.rejects(wrong.ready, { kind: "request", code: 400 });
});

test("a token is asked for anew at each connect, and before it ends", async (t) => {
  let tokens = 0;
  const { client: it, server } = await client(
    t,
    ({ type, id }) => (type === "refresh" ? { type: "refreshed", re: id, expires_at: 9 } : null),
    { token: async () => `token-${(tokens += 1)}` },
  );
  await it.ready;
  server.peers[0].send({ type: "expiring", expires_at: 8 });
  await next(it, "expiring");
  while (server.of("refresh").length === 0) await it.ping();
  server.peers[0].drop();
  await next(it, "open");
  assert.deepEqual(server.of("handshake").map(({ token }) => token), ["token-1", "token-3"]);
  assert.deepEqual(server.of("refresh").map(({ token }) => token), ["token-2"]);
});

test("a token that was refreshed is shown from then on", async (t) => {
  const answer = ({ type, id }) => (type === "refresh" ? { type: "refreshed", re: id, expires_at: 9 } : null);
  const { client: it, server } = await client(t, answer, { token: "old" });
  assert.deepEqual(await it.refresh("new"), { expires_at: 9 });
  server.peers[0].drop();
  await next(it, "open");
  assert.deepEqual(server.of("handshake").map(({ token }) => token), ["old", "new"]);
});

test("after a 429 it waits as told, and the caller sees nothing of it", async (t) => {
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

test("others wait as long as one that was refused, and few are under way at once", async (t) => {
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

test("a request that gets no reply in time is given up, and nobody else with it", async (t) => {
  const { client: it } = await client(t, ({ type }) => (type === "text" ? "" : null), { requestTimeoutMs: 100 });
  await it.ready;
  await assert.rejects(it.echo("x"), { kind: "timeout" });
  await it.ping();
  assert.equal(it.state, "open");
});

test("what is too long, or no JSON, or of the wrong kind never leaves", async (t) => {
  const { client: it, server } = await client(t, () => null);
  await it.ping();
  const sent = server.heard.length;
  await assert.rejects(it.broadcast("x".repeat(1000)), { kind: "usage", code: 413 });
  await assert.rejects(it.broadcast("ä".repeat(490)), { kind: "usage", code: 413 });
  await assert.rejects(it.broadcast(new Uint8Array(1000)), { kind: "usage", code: 413 });
  await assert.rejects(it.signal("x", 10n), { kind: "usage" });
  await assert.rejects(it.signal("x", undefined), { kind: "usage" });
  for (const content of [undefined, null, 1, {}]) await assert.rejects(it.publish("a", content), { kind: "usage" });
  await assert.rejects(it.close(1005), { kind: "usage" });
  await assert.rejects(it.close(1000, "x".repeat(124)), { kind: "usage" });
  for (const topic of ["", "a..b", "a b", "eur*", "a.>.b", "ä", "a".repeat(256)]) {
    assert.throws(() => it.subscribe(topic), { kind: "usage" }, topic);
  }
  assert.throws(() => it.subscribe("a.*", { since: { epoch: "e", offset: 1 } }), { kind: "usage" });
  const once = it.subscribe("a");
  assert.throws(() => it.subscribe("a"), { kind: "usage", code: 409 });
  once.unsubscribe();
  await it.ping();
  assert.deepEqual(server.heard.slice(sent).map(({ type }) => type), ["subscribe", "unsubscribe", "ping"]);
  for (const url of ["http://example.com", "nonsense", "ftp://localhost"]) {
    assert.throws(() => connect(url, quick), { kind: "usage" }, url);
  }
  assert.throws(() => connect(server.url, { ...quick, carriers: ["webtransport"] }), { kind: "usage" });
});

test("a subscription that is refused later is asked for until it is taken, and ends where it never will be", async (t) => {
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
  const since = server.of("subscribe").filter(({ topic }) => topic === "kept").map((message) => message.since);
  assert.deepEqual(since, [undefined, ...Array(3).fill({ epoch: "e", offset: 3 })]);
});

test("topics are subscribed to before patterns, and one text is let go of before it is taken again", async (t) => {
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
  await assert.rejects(async () => {
    for await (const message of one) assert.fail(message.topic);
  }, { kind: "request", code: 403, message: "not any more" });
  assert.equal(one.state, "ended");
  assert.equal(it.subscribe("a").state, "pending", "it may be subscribed to again");
});

test("messages are kept for a loop whenever nobody listens, not only before the first who does", { timeout: 10_000 }, async (t) => {
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

test("what is sent is what it was at the call", { timeout: 10_000 }, async (t) => {
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

/** Runs a program of a few lines with a server's address in `url`; it has to end by itself. */
async function run(url, program) {
  const lines = [
    `import WebSocket from "ws";`,
    `import { connect } from "./qws.js";`,
    `const [url, options] = [${JSON.stringify(url)}, { WebSocket, maxBackoffMs: 20 }];`,
    program,
  ];
  const args = ["--unhandled-rejections=strict", "--input-type=module", "-e", lines.join("\n")];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: new URL("..", import.meta.url), timeout: 8000 });
  return stdout.trim();
}

test("once closed nothing runs any more, whatever the client was doing", async (t) => {
  const server = await scripted(({ type, id, topic }, peer) => {
    if (type === "subscribe") return subscribed({ id, topic }, 0);
    if (type === "broadcast") peer.drop();
    return type === "text" ? "" : null;
  });
  t.after(() => server.stop());
  const programs = [
    `const c = connect(url, options); await c.ready; c.subscribe("a"); await c.ping(); await c.close(); console.log("done");`,
    `const c = connect(url, options); await c.close(); console.log("done");`,
    `const c = connect("http://127.0.0.1:1", options); await new Promise((r) => c.addEventListener("error", r)); await c.close(); console.log("done");`,
    `const c = connect(url, { ...options, requestTimeoutMs: Infinity }); await c.ready; c.echo("x"); await c.close(); console.log("done");`,
    `const c = connect(url, options); await c.ready; c.echo("x"); c.broadcast("y"); c.close(); console.log("done");`,
    `const c = connect(url, options); await c.ready; c.addEventListener("close", async () => { await c.close(); console.log("done"); }, { once: true }); c.broadcast("y");`,
  ];
  for (const program of programs) assert.equal(await run(server.url, program), "done", program);
});

test("a server that is silent at the end holds nobody up", { timeout: 10_000 }, async (t) => {
  const server = await scripted(({ type }, peer) => (type === "text" ? peer.freeze() : null));
  t.after(() => server.stop());
  const program = `const c = connect(url, options); await c.ready; c.echo("x"); await c.close(); console.log("done");`;
  assert.equal(await run(server.url, program), "done");
});

test("a request that is put off while the client closes is settled, and nothing comes of it later", { timeout: 10_000 }, async (t) => {
  const server = await scripted(({ type, id }, peer) => {
    if (type !== "broadcast") return null;
    peer.late = { type: "error", re: id, code: 429, message: "slow", retry_after_ms: 60_000 };
    return "";
  });
  t.after(() => server.stop());
  const it = connect(server.url, { ...quick, requestTimeoutMs: Infinity });
  await it.ready;
  const put = it.broadcast("x");
  const refused = assert.rejects(put, { kind: "request", code: 429 });
  await it.ping();
  server.peers[0].beforeClose = () => server.peers[0].send(server.peers[0].late);
  await it.close();
  await refused;
});

test("a token that fails while the client closes is not asked for again", { timeout: 10_000 }, async (t) => {
  const server = await scripted(() => null);
  t.after(() => server.stop());
  const program = `let tokens = 0;
    const token = () => ((tokens += 1) === 1 ? "t" : new Promise((_, reject) => setTimeout(reject, 100)));
    const c = connect(url, { ...options, token }); await c.ready;
    await new Promise((r) => c.addEventListener("expiring", r)); c.close(); await new Promise((r) => setTimeout(r, 200));
    setTimeout(() => {}, 1).ref(); console.log("done", process.getActiveResourcesInfo().filter((what) => what === "Timeout").length);`;
  const told = (async () => {
    while (server.of("handshake").length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => setTimeout(resolve, 50));
    server.peers[0].send({ type: "expiring", expires_at: 8 });
  })();
  assert.equal(await run(server.url, program), "done 1");
  await told;
});

test("what nobody looks at is no unhandled rejection", async (t) => {
  const server = await scripted(({ type, id }, peer, connection) => {
    if (type === "handshake" && connection > 1) {
      peer.send({ type: "handshake_response", re: id, accepted: false, server_name: "S", reason: "no" });
      peer.close(4401, "");
      return "";
    }
    if (type === "text") peer.drop();
    return type === "subscribe" ? "" : null;
  });
  t.after(() => server.stop());
  const program = `
    const c = connect(url, options);
    await c.ready;
    c.subscribe("a");
    for (const call of [() => c.echo("x"), () => c.broadcast("y"), () => c.publish("a", 1), () => c.signal("x"), () => c.close(7),
      () => c.direct("x", "y"), () => c.refresh("t"), () => c.presence("a"), () => c.history("a"), () => c.listClients()]) call();
    await new Promise((resolve) => c.addEventListener("close", ({ detail }) => detail.willReconnect || resolve()));
    c.subscribe("b").unsubscribe();
    c.ping();
    console.log("done");`;
  assert.equal(await run(server.url, program), "done");
});
