// Over which carrier a page's client connects, and how it moves to the better one.

import assert from "node:assert/strict";
import { test } from "node:test";

import { WebSocket } from "ws";

import { connect } from "../../web/qws.js";
import { BLANK, until, withBrowser } from "./support/browser.mjs";
import { needsServer, startUdpRelay } from "./support/server.mjs";

const setup = withBrowser();

/** The server's answer about its certificate. */
const certificate = async () => (await fetch(`${setup.server.url}/certificate-hash`)).json();

/** A relay to the server's UDP port, and the options with which a page's client uses it. */
async function relayed(t) {
  const relay = await startUdpRelay(setup.server.port);
  t.after(() => relay.stop());
  const { algorithm, value } = await certificate();
  const options = { webTransportUrl: `https://127.0.0.1:${relay.port}/wt`, certificateHash: { algorithm, value } };
  return { relay, options };
}

/** Connects a client in a page, as `client`, with its events in `said`. Returns its carrier and how long it took. */
function connectIn(page, options = {}) {
  return page.evaluate(async (options) => {
    const { connect } = await import("/qws.js");
    const began = performance.now();
    const client = connect(undefined, options);
    const said = [];
    for (const type of ["open", "close", "error"])
      client.addEventListener(type, ({ detail }) => said.push([type, detail.message ?? detail]));
    Object.assign(window, { client, said });
    await client.ready;
    return { carrier: client.carrier, took: performance.now() - began };
  }, options);
}

/** The carriers of all connected clients. */
async function connected() {
  const client = connect(setup.server.url, { WebSocket, name: "observer" });
  const transports = [];
  for await (const { id, transport } of client.clients()) if (id !== client.id) transports.push(transport);
  await client.close();
  return transports;
}

test("a page connects over WebTransport with the server's short-lived certificate", needsServer, async (t) => {
  const page = await setup.open(t, BLANK);
  const { carrier, took } = await connectIn(page);
  assert.equal(carrier, "webtransport");
  t.diagnostic(`connected in ${took.toFixed(0)} ms`);
  assert.deepEqual(await connected(), ["webtransport"], "one session, and no other left behind");
  const echoes = await page.evaluate(async () => {
    const bytes = Uint8Array.from({ length: 300_000 }, (_, at) => at % 251);
    const echo = await client.echo(bytes);
    const more = await Promise.all(Array.from({ length: 20 }, () => client.echo(bytes)));
    const same = [echo, ...more].every(
      (it) => it.length === bytes.length && it.every((byte, at) => byte === bytes[at]),
    );
    return [await client.echo("hé"), same, client.streams, client.rttMs !== null];
  });
  assert.deepEqual(echoes, ["Echo: hé", true, 2, true], "large messages share one additional stream");
  await page.evaluate(() => client.close());
  assert.deepEqual(await connected(), []);
});

test("a page at localhost connects over WebTransport as well", needsServer, async (t) => {
  const page = await setup.open(t, BLANK, { host: "localhost" });
  assert.equal((await connectIn(page)).carrier, "webtransport");
  await page.evaluate(() => client.close());
});

test("if UDP is blocked, a page uses WebSocket, the next time without waiting", needsServer, async (t) => {
  const { options } = await relayed(t);
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  // How long it waits for QUIC is tested with mocked time in web/test/race.test.js.
  const { carrier, took } = await connectIn(page, options);
  t.diagnostic(`settled in ${took.toFixed(0)} ms`);
  assert.equal(carrier, "websocket");
  assert.deepEqual(await connected(), ["websocket"]);
  // Once that is known, the page does not even try WebTransport.
  const again = await page.evaluate(async (options) => {
    const { connect } = await import("/qws.js");
    let sessions = 0;
    globalThis.WebTransport = class extends WebTransport {
      constructor(...given) {
        sessions += 1;
        super(...given);
      }
    };
    const other = connect(undefined, options);
    await other.ready;
    const outcome = { carrier: other.carrier, sessions };
    await other.close();
    return outcome;
  }, options);
  assert.deepEqual(again, { carrier: "websocket", sessions: 0 });
});

test("a page moves from WebSocket to WebTransport without losing or repeating a message", needsServer, async (t) => {
  const { relay, options } = await relayed(t);
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  const { carrier } = await connectIn(page, { ...options, retryQuicMs: 500, settleMs: 300, name: "page" });
  assert.equal(carrier, "websocket");
  await page.evaluate(async () => {
    const heard = { exact: [], pattern: [], broadcast: [], read: [], lost: 0, joins: [] };
    const exact = client.subscribe("move.exact", { presence: true });
    const pattern = client.subscribe("moves.>");
    const reader = client.subscribe("move.read", { highWaterMark: 16 });
    exact.addEventListener("message", ({ detail }) => heard.exact.push(Number(detail.content)));
    pattern.addEventListener("message", ({ detail }) => heard.pattern.push(`${detail.topic} ${detail.content}`));
    client.addEventListener("broadcast", ({ detail }) => heard.broadcast.push(Number(detail.content)));
    for (const subscription of [exact, pattern, reader]) subscription.addEventListener("lost", () => (heard.lost += 1));
    for (const type of ["join", "leave"])
      exact.addEventListener(type, ({ detail }) => heard.joins.push(`${type} ${detail.client.name}`));
    (async () => {
      for await (const { content } of reader) heard.read.push(Number(content));
    })();
    await Promise.all([exact.ready, pattern.ready, reader.ready]);
    window.heard = heard;
  });

  const writer = connect(setup.server.url, { WebSocket, name: "writer" });
  t.after(() => writer.close());
  let [count, isMoved] = [0, false];
  const write = async () => {
    // Continues for a while after the move.
    for (let behind = 0; behind < 200; behind += isMoved ? 1 : 0) {
      const content = String(count);
      await Promise.all([
        writer.publish("move.exact", content),
        writer.publish("move.read", content),
        writer.publish(`moves.${count % 3}`, content),
        writer.broadcast(content),
      ]);
      count += 1;
    }
  };
  const writing = write();
  await page.waitForTimeout(300);
  relay.open(true);
  await until(page, () => client.carrier === "webtransport");
  isMoved = true;
  await writing;
  // If this times out, the comparisons below show what is missing.
  await until(
    page,
    (count) => Math.min(heard.exact.length, heard.read.length, heard.pattern.length) >= count,
    count,
  ).catch(() => {});
  await page.waitForTimeout(300);

  const { heard, said, id, reconnects } = await page.evaluate(() => ({
    heard,
    said,
    id: client.id,
    reconnects: client.reconnects,
  }));
  const all = Array.from({ length: count }, (_, at) => at);
  t.diagnostic(`${count} messages to each of three subscriptions`);
  assert.deepEqual(heard.exact, all);
  assert.deepEqual(heard.read, all);
  for (const topic of [0, 1, 2]) {
    const expected = all.filter((at) => at % 3 === topic).map((at) => `moves.${topic} ${at}`);
    assert.deepEqual(
      heard.pattern.filter((message) => message.startsWith(`moves.${topic} `)),
      expected,
    );
  }
  assert.deepEqual(
    heard.broadcast.filter((content, at) => content !== heard.broadcast[at - 1] + 1 && at > 0),
    [],
    "broadcasts in order, each once",
  );
  assert.deepEqual([heard.lost, reconnects], [0, 0]);
  assert.deepEqual(heard.joins, [], "the page gets no presence events about itself");
  assert.deepEqual(
    said.map(([type]) => type).filter((type) => type !== "error"),
    ["open", "open"],
  );
  await until(page, () => client.state === "open");
  const left = await connected();
  assert.deepEqual(left.sort(), ["websocket", "webtransport"], `the page once (${id}), and the writer`);
});

test("a page reconnects over a dead network when the browser goes online", needsServer, async (t) => {
  const { relay, options } = await relayed(t);
  relay.open(true);
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  assert.equal((await connectIn(page, options)).carrier, "webtransport");
  await page.evaluate(() => client.subscribe("lost.network").ready);
  relay.open(false);
  await page.evaluate(() => dispatchEvent(new Event("online")));
  await until(page, () => client.state === "open" && client.carrier === "websocket");
  assert.equal(await page.evaluate(() => client.reconnects), 1);
});
