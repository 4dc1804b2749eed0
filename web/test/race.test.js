// Which carrier is taken, and what becomes of the other one.

import assert from "node:assert/strict";
import { test } from "node:test";

import { internals, QwsError } from "../qws.js";

const { race } = internals;
const RACE_DELAY = 150;
const SETTLE = 500;

/** A try that comes to something after so long; fails where that is negative; never ends where it is `null`. */
function attempt(carrier, afterMs) {
  const seen = { started: 0, abandoned: false };
  const open = () => {
    seen.started = performance.now();
    const opened = new Promise((resolve, reject) => {
      if (afterMs === null) return;
      const settle = () => (afterMs < 0 ? reject(new QwsError("transport", `no ${carrier}`)) : resolve({ carrier }));
      setTimeout(settle, Math.abs(afterMs));
    });
    return { opened, abandon: () => void (seen.abandoned = true) };
  };
  return { open, seen };
}

async function run({ quic = undefined, socket = undefined, quicFirst = true, abortAfter = undefined }) {
  const tries = {
    quic: quic === undefined ? null : attempt("webtransport", quic),
    socket: socket === undefined ? null : attempt("websocket", socket),
  };
  const abort = new AbortController();
  if (abortAfter !== undefined) setTimeout(() => abort.abort(), abortAfter);
  let quicFailed = false;
  const began = performance.now();
  const outcome = await race({
    quic: tries.quic?.open ?? null,
    socket: tries.socket?.open ?? null,
    quicFirst,
    raceDelayMs: RACE_DELAY,
    settleMs: SETTLE,
    signal: abort.signal,
    onQuicFailed: () => void (quicFailed = true),
  }).then(
    (transport) => transport.carrier,
    (error) => error,
  );
  const took = performance.now() - began;
  return { outcome, took, quicFailed, quic: tries.quic?.seen, socket: tries.socket?.seen, began };
}

test("QUIC has a head start, and where it comes in that nothing else is tried", async () => {
  const { outcome, socket, quicFailed } = await run({ quic: 5, socket: 0 });
  assert.equal(outcome, "webtransport");
  assert.equal(socket?.started, 0, "WebSocket was tried");
  assert.equal(quicFailed, false);
});

test("where QUIC is silent, WebSocket is taken once it is time to settle, and not before", async () => {
  const { outcome, took, quic, socket, began, quicFailed } = await run({ quic: null, socket: 0 });
  assert.equal(outcome, "websocket");
  assert.ok((socket?.started ?? 0) - began >= RACE_DELAY - 5, "the head start");
  assert.ok(took >= SETTLE - 5 && took < SETTLE + 300, `it took ${took} ms`);
  assert.ok(quic?.abandoned && !socket?.abandoned);
  assert.ok(quicFailed, "it is kept in mind");
});

test("where QUIC fails, nothing is waited for", async () => {
  const { outcome, took, quicFailed } = await run({ quic: -1, socket: 0 });
  assert.equal(outcome, "websocket");
  assert.ok(took < RACE_DELAY, `it took ${took} ms`);
  assert.ok(quicFailed);
});

test("QUIC that comes while WebSocket is open already is taken, and the socket abandoned", async () => {
  const { outcome, socket, quicFailed } = await run({ quic: 300, socket: 0 });
  assert.equal(outcome, "webtransport");
  assert.ok(socket?.abandoned);
  assert.equal(quicFailed, false);
});

test("a WebSocket that is open when QUIC fails is taken at once", async () => {
  const { outcome, took } = await run({ quic: -250, socket: 0 });
  assert.equal(outcome, "websocket");
  assert.ok(took < SETTLE - 50, `it took ${took} ms`);
});

test("after both were tried for long, whichever comes first is taken", async () => {
  assert.equal((await run({ quic: 600, socket: null })).outcome, "webtransport");
  assert.equal((await run({ quic: null, socket: 600 })).outcome, "websocket");
});

test("where QUIC failed before, WebSocket is tried alone, and QUIC where that fails", async () => {
  const first = await run({ quic: 0, socket: 10, quicFirst: false });
  assert.equal(first.outcome, "websocket");
  assert.equal(first.quic?.started, 0);
  assert.equal((await run({ quic: 5, socket: -5, quicFirst: false })).outcome, "webtransport");
});

test("where nothing comes of either, it says so", async () => {
  for (const how of [{ quic: -5, socket: -5 }, { quic: -5, socket: -5, quicFirst: false }, { quic: -1 }, { socket: -1 }]) {
    const { outcome, quicFailed } = await run(how);
    assert.ok(outcome instanceof QwsError && outcome.kind === "transport", String(outcome));
    assert.equal(quicFailed, false, "the server is not there, which says nothing of QUIC");
  }
});

test("whoever gives up leaves nothing behind", async () => {
  const { outcome, quic, socket } = await run({ quic: null, socket: null, abortAfter: 250 });
  assert.equal(outcome.kind, "closed");
  assert.ok(quic?.abandoned && socket?.abandoned);
});
