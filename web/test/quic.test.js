// When QUIC is used, and when it is left alone.

import assert from "node:assert/strict";
import { test } from "node:test";

import WebSocket from "ws";

import { connect } from "../qws.js";
import { fakeQuic } from "./support/quic.js";
import { next, scripted, subscribed } from "./support/scripted.js";

let addresses = 0;

/** A server for both carriers, at an address that no other test uses. */
async function both(t, answer = () => null) {
  const server = await scripted(answer);
  const quic = fakeQuic(t, server.url);
  const webTransportUrl = `https://quic${(addresses += 1)}.invalid/wt`;
  const open = (options = {}) => {
    const it = connect(server.url, {
      WebSocket,
      webTransportUrl,
      certificateHash: false,
      maxBackoffMs: 20,
      ...options,
    });
    t.after(() => it.close());
    return it;
  };
  t.after(() => server.stop());
  return { server, quic, open };
}

/** Makes this look like another browser while a test runs. */
function browse(t, userAgent) {
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: { userAgent }, configurable: true, writable: true });
  t.after(() => (before ? Object.defineProperty(globalThis, "navigator", before) : delete globalThis.navigator));
}

const GECKO = "(KHTML, like Gecko)";
const MAC = `Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 ${GECKO}`;
const IPHONE = `Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) AppleWebKit/605.1.15 ${GECKO}`;
const SAFARI = `${MAC} Version/26.0 Safari/605.1.15`;
const WEBKIT = {
  Safari: SAFARI,
  "Chrome on iOS": `${IPHONE} CriOS/141.0 Mobile/15E148 Safari/604.1`,
  "Firefox on iOS": `${IPHONE} FxiOS/143.0 Mobile/15E148 Safari/605.1.15`,
};
const OTHERS = {
  Chrome: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
  "headless Chrome":
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/141.0.0.0 Safari/537.36",
  Edge: `Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 ${GECKO} Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0`,
  Firefox: "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0",
};
const quickly = { timeout: 10_000 };

for (const [name, agent] of [...Object.entries(WEBKIT), ...Object.entries(OTHERS)]) {
  const carrier = name in WEBKIT ? "websocket" : "webtransport";
  test(`${name} takes ${carrier}`, quickly, async (t) => {
    browse(t, agent);
    const { quic, open } = await both(t);
    const it = open();
    await it.ready;
    assert.deepEqual([it.carrier, quic.sessions], [carrier, carrier === "websocket" ? 0 : 1]);
  });
}

test("an option overrides that", quickly, async (t) => {
  browse(t, SAFARI);
  const { open } = await both(t);
  const it = open({ webTransportOnWebKit: true });
  await it.ready;
  assert.equal(it.carrier, "webtransport");
  assert.throws(() => open({ carriers: ["webtransport"] }), { kind: "usage", message: /WebKit.*webTransportOnWebKit/ });
});

/** Advances the clock. */
function clock(t) {
  const real = performance.now.bind(performance);
  let ahead = 0;
  t.mock.method(performance, "now", () => real() + ahead);
  return (ms) => (ahead += ms);
}

test(
  "a QUIC connection that went silent is a failure of QUIC, which a handshake does not clear",
  quickly,
  async (t) => {
    const { server, quic, open } = await both(t);
    const pass = clock(t);
    const it = open({ retryQuicMs: 60_000 });
    await it.ready;
    assert.equal(it.carrier, "webtransport");
    pass(11_000);
    server.peers[0].drop();
    await next(it, "open");
    assert.deepEqual([it.carrier, quic.sessions], ["websocket", 1]);
    // Its time is over, so QUIC is used again, and left for longer when that goes silent as well.
    t.mock.method(Date, "now", () => new Date().getTime() + 130_000);
    const other = open({ retryQuicMs: 60_000 });
    await other.ready;
    assert.equal(other.carrier, "webtransport");
    pass(11_000);
    server.peers.at(-1).drop();
    await next(other, "open");
    assert.equal(other.carrier, "websocket");
    t.mock.method(Date, "now", () => new Date().getTime() + 260_000);
    const third = open({ retryQuicMs: 60_000 });
    await third.ready;
    assert.equal(third.carrier, "websocket", "twice as long as before");
  },
);

test("QUIC is used again if the network was away as well", quickly, async (t) => {
  const { server, quic, open } = await both(t);
  const pass = clock(t);
  let isAway = false;
  const Socket = class extends WebSocket {
    constructor(url, protocols) {
      super(isAway ? "ws://127.0.0.1:1/" : url, protocols);
    }
  };
  const it = open({ WebSocket: Socket });
  await it.ready;
  pass(11_000);
  isAway = quic.isBlocked = true;
  server.peers[0].drop();
  await next(it, "error");
  isAway = quic.isBlocked = false;
  await next(it, "open");
  assert.equal(it.carrier, "webtransport");
});

test("datagrams are read once a subscription asks for them, and not before", quickly, async (t) => {
  const answer = (message) => (message.type === "subscribe" ? subscribed(message, 0) : null);
  const { quic, open } = await both(t, answer);
  const it = open();
  await it.ready;
  await it.subscribe("a").ready;
  const [{ datagrams }] = quic.all;
  assert.equal(datagrams.readable.locked, false);
  await it.subscribe("b", { delivery: "datagram" }).ready;
  await it.subscribe("c", { delivery: "datagram" }).ready;
  assert.equal(datagrams.readable.locked, true);
  assert.deepEqual([datagrams.incomingHighWaterMark, datagrams.incomingMaxBufferedDatagrams], [256, 256]);
});
