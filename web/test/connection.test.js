// How a connection begins, ends and is resumed, against a scripted server.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mock, test } from "node:test";
import { promisify } from "node:util";

import { connect } from "../qws.js";
import { client, next, quick, scripted, subscribed } from "./support/scripted.js";

test(
  "the handshake is sent alone, and everything else after its answer",
  async (t) => {
    const waits = [];
    const { client: it, server } = await client(t, (message, peer) => {
      if (message.type === "handshake") waits.push([message, peer]);
      return message.type === "handshake" ? "" : null;
    });
    const pong = it.ping();
    it.subscribe("a");
    while (waits.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(
      server.heard.map(({ type }) => type),
      ["handshake"],
    );
    assert.equal(it.state, "connecting");
    const [[{ id }, peer]] = waits;
    peer.send({
      type: "handshake_response",
      re: id,
      accepted: true,
      client_id: "c",
      server_name: "S",
      client_name: "Ada",
    });
    await it.ready;
    await pong;
    assert.deepEqual([it.state, it.id, it.name, it.serverName, it.carrier], ["open", "c", "Ada", "S", "websocket"]);
  },
  { timeout: 10_000 },
);

test("the round trip is the shortest of the last few, and never that of a connection's first ping", async (t) => {
  let now = 0;
  mock.method(performance, "now", () => now);
  t.after(() => mock.restoreAll());
  const takes = [40, 3, 2, 9, 7, 8, 9];
  const { client: it } = await client(t, ({ type }) => {
    if (type === "ping") now += takes.shift();
    return null;
  });
  const shown = [];
  it.addEventListener("rtt", ({ detail }) => shown.push(detail));
  // The client sends these by itself: others follow the first one at once.
  while (shown.length < 4) await next(it, "rtt");
  assert.deepEqual(shown, [40, 3, 2, 2]);
  assert.equal(await it.ping(), 7, "who asks gets what was measured");
  assert.equal(it.rttMs, 2);
  await it.ping();
  assert.equal(it.rttMs, 7, "what is long past counts no more");
});

test("the permissions are those that the server sent last", async (t) => {
  const may = { broadcast: false, direct: true, signal: true, list_clients: false };
  const { client: it } = await client(t, ({ type, id, topic }) => {
    if (type === "handshake")
      return { type: "handshake_response", re: id, accepted: true, client_id: "c", server_name: "S", permissions: may };
    if (type === "refresh") return { type: "refreshed", re: id, permissions: { ...may, broadcast: true } };
    if (type === "subscribe") return subscribed({ id, topic }, 0, topic === "news" ? { may_publish: false } : {});
    return null;
  });
  assert.equal(it.permissions, null);
  await it.ready;
  assert.deepEqual(it.permissions, may);
  const [news, room] = [it.subscribe("news"), it.subscribe("room")];
  await Promise.all([news.ready, room.ready]);
  assert.deepEqual([news.mayPublish, room.mayPublish], [false, true]);
  const told = next(it, "permissions");
  await it.refresh("another token");
  assert.equal((await told).broadcast, true);
  assert.equal(it.permissions.broadcast, true);
});

test("a protocol violation ends the connection", async (t) => {
  const { client: it } = await client(t, ({ type }) => (type === "text" ? "nonsense" : null));
  await it.ready;
  const closed = next(it, "close");
  await assert.rejects(it.echo("x"), { kind: "closed", code: 1002 });
  assert.deepEqual([(await closed).code, (await closed).willReconnect, it.state], [1002, false, "closed"]);
});

test("pings are answered, and unknown messages are ignored", async (t) => {
  const { client: it, server } = await client(t, () => null);
  await it.ready;
  const [peer] = server.peers;
  peer.send({ type: "from the future", topic: 1, offset: "x" });
  peer.send({ type: "ok", re: 12345, more: true });
  peer.send({ type: "ping", timestamp: 7, what: {} });
  while (server.of("pong").length === 0) await it.ping();
  assert.equal(server.of("pong")[0].timestamp, 7);
});

test("the client reconnects after the codes that allow it, and after no others", async () => {
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

test("an announced end counts, and so does its delay", async (t) => {
  const { client: it, server } = await client(t, () => null);
  await it.ready;
  const closed = next(it, "close");
  const told = performance.now();
  server.peers[0].send({ type: "close", code: 1001, reason: "going", reconnect_after_ms: 300 });
  assert.deepEqual(await closed, { code: 1001, reason: "going", willReconnect: true });
  await next(it, "open");
  assert.ok(performance.now() - told >= 299, "too early");
});

test("a permanent refusal is final, and a temporary one is not", async (t) => {
  const refuse =
    (code, reason) =>
    ({ type, id }, peer, connection) => {
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

test("the token function is called at each connect, and before a token expires", async (t) => {
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
  assert.deepEqual(
    server.of("handshake").map(({ token }) => token),
    ["token-1", "token-3"],
  );
  assert.deepEqual(
    server.of("refresh").map(({ token }) => token),
    ["token-2"],
  );
});

test("a refreshed token is shown from then on", async (t) => {
  const answer = ({ type, id }) => (type === "refresh" ? { type: "refreshed", re: id, expires_at: 9 } : null);
  const { client: it, server } = await client(t, answer, { token: "old" });
  assert.deepEqual(await it.refresh("new"), { expires_at: 9 });
  server.peers[0].drop();
  await next(it, "open");
  assert.deepEqual(
    server.of("handshake").map(({ token }) => token),
    ["old", "new"],
  );
});

/** Runs a short program with a server's address in `url`; it has to end by itself. */
async function run(url, program) {
  const lines = [
    `import WebSocket from "ws";`,
    `import { connect } from "./qws.js";`,
    `const [url, options] = [${JSON.stringify(url)}, { WebSocket, maxBackoffMs: 20 }];`,
    program,
  ];
  const args = ["--unhandled-rejections=strict", "--input-type=module", "-e", lines.join("\n")];
  const { stdout } = await promisify(execFile)(process.execPath, args, {
    cwd: new URL("..", import.meta.url),
    timeout: 8000,
  });
  return stdout.trim();
}

test("nothing runs any longer once a client is closed, whatever it was doing", async (t) => {
  const server = await scripted(({ type, id, topic }, peer) => {
    if (type === "subscribe") return subscribed({ id, topic }, 0);
    if (type === "broadcast") peer.drop();
    return type === "text" ? "" : null;
  });
  t.after(() => server.stop());
  const programs = [
    `const c = connect(url, options); await c.ready; c.subscribe("a"); await c.ping(); await c.close();
      console.log("done");`,
    `const c = connect(url, options); await c.close(); console.log("done");`,
    `const c = connect("http://127.0.0.1:1", options); await new Promise((r) => c.addEventListener("error", r));
      await c.close(); console.log("done");`,
    `const c = connect(url, { ...options, requestTimeoutMs: Infinity }); await c.ready; c.echo("x"); await c.close();
      console.log("done");`,
    `const c = connect(url, options); await c.ready; c.echo("x"); c.broadcast("y"); c.close(); console.log("done");`,
    `const c = connect(url, options); await c.ready;
      c.addEventListener("close", async () => { await c.close(); console.log("done"); }, { once: true });
      c.broadcast("y");`,
  ];
  for (const program of programs) assert.equal(await run(server.url, program), "done", program);
});

test("a server that does not answer a close delays the client only briefly", { timeout: 10_000 }, async (t) => {
  const server = await scripted(({ type }, peer) => (type === "text" ? peer.freeze() : null));
  t.after(() => server.stop());
  const program = `const c = connect(url, options); await c.ready; c.echo("x"); await c.close(); console.log("done");`;
  assert.equal(await run(server.url, program), "done");
});

test("a request that is put off while the client closes is settled", { timeout: 10_000 }, async (t) => {
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

test("a token function that fails while the client closes is not called again", { timeout: 10_000 }, async (t) => {
  const server = await scripted(() => null);
  t.after(() => server.stop());
  const program = `let tokens = 0;
    const token = () => ((tokens += 1) === 1 ? "t" : new Promise((_, reject) => setTimeout(reject, 100)));
    const c = connect(url, { ...options, token }); await c.ready;
    await new Promise((r) => c.addEventListener("expiring", r)); c.close();
    await new Promise((r) => setTimeout(r, 200));
    setTimeout(() => {}, 1).ref();
    console.log("done", process.getActiveResourcesInfo().filter((what) => what === "Timeout").length);`;
  const told = (async () => {
    while (server.of("handshake").length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => setTimeout(resolve, 50));
    server.peers[0].send({ type: "expiring", expires_at: 8 });
  })();
  assert.equal(await run(server.url, program), "done 1");
  await told;
});

test("ignored promises cause no unhandled rejections", async (t) => {
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
    for (const call of [() => c.echo("x"), () => c.broadcast("y"), () => c.publish("a", 1), () => c.signal("x"),
      () => c.close(7), () => c.direct("x", "y"), () => c.refresh("t"), () => c.presence("a"), () => c.history("a"),
      () => c.listClients()]) call();
    await new Promise((resolve) => c.addEventListener("close", ({ detail }) => detail.willReconnect || resolve()));
    c.subscribe("b").unsubscribe();
    c.ping();
    console.log("done");`;
  assert.equal(await run(server.url, program), "done");
});
