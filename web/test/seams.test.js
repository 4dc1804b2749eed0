// Messages in one piece with the answer to `handshake`, on either carrier and in a move.

import assert from "node:assert/strict";
import { test } from "node:test";

import WebSocket from "ws";

import { connect } from "../qws.js";
import { fakeQuic } from "./support/quic.js";
import { next, scripted } from "./support/scripted.js";

const limits = { max_message_bytes: 1000, ping_interval_ms: 25_000, ping_timeout_ms: 10_000, max_request_lanes: 0 };
const quickly = { timeout: 10_000 };

/** A client of a server that sends `behind` in one piece with its answer to the handshake of one connection. */
async function client(t, behind, { of = 1, answer = () => null, isBlocked = false, ...options } = {}) {
  const server = await scripted((message, peer, connection) => {
    if (message.type !== "handshake" || connection !== of) return answer(message, peer, connection);
    const accepted = {
      type: "handshake_response",
      re: message.id,
      accepted: true,
      client_id: "c",
      server_name: "S",
      limits,
    };
    peer.together(accepted, behind);
    return "";
  });
  const quic = fakeQuic(t, server.url);
  quic.isBlocked = isBlocked;
  const it = connect(server.url, {
    WebSocket,
    webTransportUrl: "https://quic.invalid/wt",
    certificateHash: false,
    maxBackoffMs: 20,
    requestTimeoutMs: 3000,
    ...options,
  });
  t.after(async () => {
    await it.close();
    await server.stop();
  });
  return { it, server, quic };
}

for (const carrier of ["websocket", "webtransport"]) {
  test(`a close right behind the handshake is the end of that connection: ${carrier}`, quickly, async (t) => {
    const close = { type: "close", code: 1001, reason: "going", reconnect_after_ms: 200 };
    const { it, server } = await client(t, close, { carriers: [carrier] });
    const closed = next(it, "close");
    await it.ready;
    const began = performance.now();
    assert.deepEqual(await closed, { code: 1001, reason: "going", willReconnect: true });
    assert.equal(it.state, "reconnecting");
    await next(it, "open");
    assert.ok(performance.now() - began >= 190, "it came back earlier than the server asked for");
    await it.ping();
    assert.equal(server.peers.length, 2);
  });

  test(`a final close right behind the handshake is final: ${carrier}`, quickly, async (t) => {
    const { it } = await client(t, { type: "close", code: 4403, reason: "out" }, { carriers: [carrier] });
    assert.deepEqual(await next(it, "close"), { code: 4403, reason: "out", willReconnect: false });
    assert.equal(it.state, "closed");
  });

  test(`a token that is about to expire when it is shown is renewed: ${carrier}`, quickly, async (t) => {
    let tokens = 0;
    const answer = ({ type, id }) => (type === "refresh" ? { type: "refreshed", re: id, expires_at: 9 } : null);
    const { it, server } = await client(
      t,
      { type: "expiring", expires_at: 8 },
      {
        answer,
        carriers: [carrier],
        token: () => `token-${(tokens += 1)}`,
      },
    );
    await next(it, "expiring");
    for (let pings = 0; pings < 50 && server.of("refresh").length === 0; pings += 1) await it.ping();
    assert.deepEqual(
      server.of("refresh").map(({ token }) => token),
      ["token-2"],
    );
  });
}

test("a better connection that ends right behind its handshake is not kept", quickly, async (t) => {
  const close = { type: "close", code: 1001, reason: "going", reconnect_after_ms: 10 };
  const { it, quic } = await client(t, close, { of: 2, isBlocked: true, retryQuicMs: 200 });
  await it.ready;
  assert.equal(it.carrier, "websocket");
  quic.isBlocked = false;
  assert.deepEqual(await next(it, "close"), { code: 1001, reason: "going", willReconnect: true });
  await next(it, "open");
  await it.ping();
});

test("a token that is about to expire is renewed on a better connection as well", quickly, async (t) => {
  let tokens = 0;
  const answer = ({ type, id }) => (type === "refresh" ? { type: "refreshed", re: id, expires_at: 9 } : null);
  const { it, server, quic } = await client(
    t,
    { type: "expiring", expires_at: 8 },
    {
      of: 2,
      isBlocked: true,
      answer,
      retryQuicMs: 200,
      token: () => `token-${(tokens += 1)}`,
    },
  );
  await it.ready;
  quic.isBlocked = false;
  await next(it, "expiring");
  assert.equal(it.carrier, "webtransport");
  for (let pings = 0; pings < 50 && server.of("refresh").length === 0; pings += 1) await it.ping();
  assert.deepEqual(
    server.of("refresh").map(({ token }) => token),
    ["token-3"],
  );
});

test("a client that is closed just as it connects is not connected", quickly, async (t) => {
  const server = await scripted(() => null);
  t.after(() => server.stop());
  for (let turns = 0; turns < 12; turns += 1) {
    const Socket = class extends WebSocket {
      set onopen(listener) {
        super.onopen = async (event) => {
          listener(event);
          for (let turn = 0; turn < turns; turn += 1) await null;
          void it.close();
        };
      }
    };
    const it = connect(server.url, { WebSocket: Socket });
    const opens = [];
    it.addEventListener("open", () => opens.push(turns));
    await next(it, "close");
    await Promise.all(server.peers.map(({ closed }) => closed));
    assert.deepEqual([opens, it.state, it.carrier], [[], "closed", null]);
  }
});

test("a token function that never returns is called again after its time", { timeout: 20_000 }, async (t) => {
  const server = await scripted(() => null);
  let tokens = 0;
  const token = () => ((tokens += 1) === 2 ? new Promise(() => {}) : `token-${tokens}`);
  const it = connect(server.url, { WebSocket, maxBackoffMs: 20, token });
  t.after(async () => {
    await it.close();
    await server.stop();
  });
  await it.ready;
  const [failed, back] = [next(it, "error"), next(it, "open")];
  server.peers[0].drop();
  const { kind, message } = await failed;
  assert.deepEqual([kind, /token/.test(message)], ["transport", true], message);
  await back;
  assert.deepEqual(
    server.of("handshake").map(({ token }) => token),
    ["token-1", "token-3"],
  );
});
