// Which carrier wins, and what happens to the other one. Time is simulated: the load of the machine changes nothing.

import assert from "node:assert/strict";
import { after, before, mock, test } from "node:test";

import { internals, QwsError } from "../qws.js";

const { race } = internals;
const RACE_DELAY = 150;
const SETTLE = 500;

let now = 0;
before(() => {
  mock.method(performance, "now", () => now);
  mock.timers.enable({ apis: ["setTimeout"] });
});
after(() => mock.reset());

/** The result of a promise, while time passes one millisecond after the other. */
async function passing(promise) {
  let isOver = false;
  void promise.finally(() => (isOver = true));
  for (let left = 20_000; left > 0; left -= 1) {
    await new Promise((resolve) => setImmediate(resolve));
    if (isOver) return promise;
    now += 1;
    mock.timers.tick(1);
  }
  throw new Error("it never came to anything");
}

/** A try that connects after so long; fails if that is negative; never ends if it is `null`. */
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
  const ended = race({
    quic: tries.quic?.open ?? null,
    socket: tries.socket?.open ?? null,
    quicFirst,
    raceDelayMs: RACE_DELAY,
    settleMs: SETTLE,
    signal: abort.signal,
    onQuicFailed: () => void (quicFailed = true),
  });
  const outcome = await passing(
    ended.then(
      (transport) => transport.carrier,
      (error) => error,
    ),
  );
  const took = performance.now() - began;
  return { outcome, took, quicFailed, quic: tries.quic?.seen, socket: tries.socket?.seen, began };
}

test("QUIC has a head start, and if it connects within that nothing else is tried", async () => {
  const { outcome, socket, quicFailed } = await run({ quic: 5, socket: 0 });
  assert.equal(outcome, "webtransport");
  assert.equal(socket?.started, 0, "WebSocket was tried");
  assert.equal(quicFailed, false);
});

test("if QUIC is silent, WebSocket is used once it is time to settle, and not before", async () => {
  const { outcome, took, quic, socket, began, quicFailed } = await run({ quic: null, socket: 0 });
  assert.equal(outcome, "websocket");
  assert.equal((socket?.started ?? 0) - began, RACE_DELAY, "the head start");
  assert.equal(took, SETTLE);
  assert.ok(quic?.abandoned && !socket?.abandoned);
  assert.ok(quicFailed, "it is kept in mind");
});

test("if QUIC fails, WebSocket is tried at once", async () => {
  const { outcome, took, quicFailed } = await run({ quic: -1, socket: 0 });
  assert.equal(outcome, "websocket");
  assert.ok(took <= 2, `it took ${took} ms`);
  assert.ok(quicFailed);
});

test("QUIC that connects while WebSocket is open already is used, and the socket is abandoned", async () => {
  const { outcome, socket, quicFailed } = await run({ quic: 300, socket: 0 });
  assert.equal(outcome, "webtransport");
  assert.ok(socket?.abandoned);
  assert.equal(quicFailed, false);
});

test("a WebSocket that is open when QUIC fails is used at once", async () => {
  const { outcome, took } = await run({ quic: -250, socket: 0 });
  assert.equal(outcome, "websocket");
  assert.equal(took, 250);
});

test("after the time to settle, the first of both is used", async () => {
  assert.equal((await run({ quic: 600, socket: null })).outcome, "webtransport");
  assert.equal((await run({ quic: null, socket: 600 })).outcome, "websocket");
});

test("if QUIC failed before, WebSocket is tried alone, and QUIC only if that fails", async () => {
  const first = await run({ quic: 0, socket: 10, quicFirst: false });
  assert.equal(first.outcome, "websocket");
  assert.equal(first.quic?.started, 0);
  assert.equal((await run({ quic: 5, socket: -5, quicFirst: false })).outcome, "webtransport");
});

test("if neither connects, the error says so", async () => {
  for (const how of [
    { quic: -5, socket: -5 },
    { quic: -5, socket: -5, quicFirst: false },
    { quic: -1 },
    { socket: -1 },
  ]) {
    const { outcome, quicFailed } = await run(how);
    assert.ok(outcome instanceof QwsError && outcome.kind === "transport", String(outcome));
    assert.equal(quicFailed, false, "the server is not there, which says nothing of QUIC");
  }
});

test("an aborted race leaves nothing behind", async () => {
  const { outcome, quic, socket } = await run({ quic: null, socket: null, abortAfter: 250 });
  assert.equal(outcome.kind, "closed");
  assert.ok(quic?.abandoned && socket?.abandoned);
});
