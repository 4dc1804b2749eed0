// Errors and retries of a client that cannot connect.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import WebSocket from "ws";

import { connect } from "../qws.js";
import { client, next, scripted } from "./support/scripted.js";
import { needsServer, startServer } from "./support/server.js";

/** @type {Awaited<ReturnType<typeof startServer>>} */
let server;
before(async () => {
  if (!needsServer.skip) server = await startServer();
});
after(() => server?.stop());

/** A web server that knows nothing of WebSocket. */
async function foreign(t) {
  const web = createServer((_, response) => response.end("hello"));
  await new Promise((resolve) => web.listen(0, "127.0.0.1", resolve));
  t.after(() => web.close());
  return web.address().port;
}

/** A port on which nothing listens. */
async function freePort() {
  const web = createServer();
  await new Promise((resolve) => web.listen(0, "127.0.0.1", resolve));
  const { port } = web.address();
  await new Promise((resolve) => web.close(resolve));
  return port;
}

/** The first error of a client. */
async function firstError(t, url) {
  const it = connect(url, { WebSocket });
  t.after(() => it.close());
  return next(it, "error");
}

test("the error names the cause of a failed connection: nothing listens", { timeout: 10_000 }, async (t) => {
  const { kind, message, cause } = await firstError(t, `http://127.0.0.1:${await freePort()}`);
  assert.deepEqual([kind, cause.code], ["transport", "ECONNREFUSED"]);
  assert.match(message, /^no WebSocket connection to ws:.*: connection refused \(ECONNREFUSED\)/);
  assert.notEqual(message, cause.message);
});

test("the error names the cause of a failed connection: another server", { timeout: 10_000 }, async (t) => {
  const { message, cause } = await firstError(t, `http://127.0.0.1:${await foreign(t)}`);
  assert.match(message, /this is not a quic-websocket server.*200/);
  assert.match(cause.message, /200/);
});

test("the error names the cause of a failed connection: an untrusted certificate", needsServer, async (t) => {
  const [, port] = /Listening on: \S+:(\d+)/.exec(server.log());
  const { message, cause } = await firstError(t, `https://127.0.0.1:${port}`);
  assert.match(message, /certificate is not trusted.*NODE_EXTRA_CA_CERTS/);
  assert.match(cause.code, /^UNABLE_TO_VERIFY|SELF_SIGNED/);
  const plain = await firstError(t, `https://127.0.0.1:${server.port}`);
  assert.match(plain.message, /no TLS on this port/);
});

test("Node's own WebSocket has the same causes", { timeout: 20_000 }, async (t) => {
  const program = `
    import { connect } from "./qws.js";
    const c = connect(process.argv[1]);
    const { detail } = await new Promise((r) => c.addEventListener("error", r));
    console.log(detail.message, "|", detail.cause?.code);
    await c.close();`;
  const run = async (url) => {
    // Node 20 has it behind a flag, which later versions accept as well.
    const flags = ["--experimental-websocket", "--no-warnings", "--input-type=module", "-e", program, url];
    const { stdout } = await promisify(execFile)(process.execPath, flags, { cwd: new URL("..", import.meta.url) });
    return stdout.trim();
  };
  assert.match(await run(`http://127.0.0.1:${await freePort()}`), /connection refused.*\| ECONNREFUSED$/);
  assert.match(await run(`http://127.0.0.1:${await foreign(t)}`), /this is not a quic-websocket server/);
});

const renews = ({ type, id }) => (type === "refresh" ? { type: "refreshed", re: id, expires_at: 9 } : null);

test("a token function that fails is called again, for as long as it takes", { timeout: 10_000 }, async (t) => {
  let calls = 0;
  const errors = [];
  const token = () => {
    calls += 1;
    // At the first connect and on renewal: a proxy's page, nothing at all, and more than three failures.
    if (calls < 3) return "<html><title>502 Bad Gateway</title></html>";
    if (calls > 3 && calls < 10) throw new Error("502");
    return `  token-${calls}\r\n`;
  };
  const { client: it, server: peer } = await client(t, renews, { token });
  it.addEventListener("error", ({ detail }) => errors.push(detail.message));
  await it.ready;
  assert.equal(errors.length, 2);
  assert.match(errors[0], /^token: the token function returned 43 characters that are not a token/);
  peer.peers.at(-1).send({ type: "expiring", expires_at: 8 });
  while (peer.of("refresh").length === 0) await it.ping();
  assert.deepEqual(
    peer.of("handshake").map(({ token }) => token),
    ["token-3"],
    "without the space around it",
  );
  assert.deepEqual(
    peer.of("refresh").map(({ token }) => token),
    ["token-10"],
  );
  assert.equal(errors.length, 2 + 6);
});

test("a rejected token of a function is a failed try", { timeout: 10_000 }, async (t) => {
  let calls = 0;
  const answer = ({ type, id, token }, peer) => {
    if (type !== "handshake" || token !== "bad") return null;
    peer.send({ type: "handshake_response", re: id, accepted: false, server_name: "S", reason: "expired" });
    peer.close(4401, "expired");
    return "";
  };
  const { client: it, server: peer } = await client(t, answer, { token: () => ((calls += 1) % 3 ? "bad" : "good") });
  await it.ready;
  assert.equal(calls, 3);
  const closed = next(it, "close");
  peer.peers.at(-1).close(4401, "expired");
  assert.deepEqual(await closed, { code: 4401, reason: "expired", willReconnect: true });
  await next(it, "open");
  assert.equal(calls, 6);
});

test("a fixed token is shown without the whitespace around it", { timeout: 10_000 }, async (t) => {
  const { client: it, server: peer } = await client(t, renews, { token: "from-a-file\n" });
  await it.refresh(" another\n");
  assert.deepEqual([peer.of("handshake")[0].token, peer.of("refresh")[0].token], ["from-a-file", "another"]);
});

test("an address with too many connections is tried again", { timeout: 10_000 }, async (t) => {
  const peer = await scripted(({ type, id }, it, connection) => {
    if (type !== "handshake" || connection > 2) return null;
    it.send({ type: "error", re: id, code: 429, message: "too many connections", retry_after_ms: 100 });
    if (connection === 1) it.send({ type: "close", code: 4429, reason: "too many connections" });
    it.close(4429, "too many connections");
    return "";
  });
  t.after(() => peer.stop());
  const it = connect(peer.url, { WebSocket, maxBackoffMs: 20 });
  t.after(() => it.close());
  const began = performance.now();
  const error = await next(it, "error");
  assert.deepEqual([error.kind, error.code, error.message], ["transport", 4429, "too many connections"]);
  await it.ready;
  assert.equal(peer.peers.length, 3);
  assert.ok(performance.now() - began >= 199, "it waited as the server asked");
});

test("an address with too many connections is tried again at a real server", needsServer, async (t) => {
  const full = await startServer({ settings: "[rates]\nloopback = true\naddress_connections = 1" });
  t.after(() => full.stop());
  const first = connect(full.url, { WebSocket });
  t.after(() => first.close());
  await first.ready;
  const second = connect(full.url, { WebSocket });
  t.after(() => second.close());
  const { code, retryAfterMs } = await next(second, "error");
  assert.deepEqual([code, retryAfterMs > 0, second.state], [4429, true, "connecting"]);
});
