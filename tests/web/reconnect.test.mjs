// A server that stops and comes back.

import assert from "node:assert/strict";
import { test } from "node:test";

import { BLANK, until, withBrowser } from "./support/browser.mjs";
import { needsServer } from "./support/server.mjs";

const setup = withBrowser({ settings: "[timing]\ndrain_timeout_ms = 1500" });

/** Connects a client in a page, with the events of its subscription to `back.again` in `told`. */
async function listening(t, options) {
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.evaluate(async (options) => {
    const { connect } = await import("/qws.js");
    const client = connect(undefined, { ...options, maxBackoffMs: 300 });
    const told = [];
    const subscription = client.subscribe("back.again");
    for (const type of ["resumed", "lost"]) subscription.addEventListener(type, () => told.push(type));
    subscription.addEventListener("message", ({ detail }) => told.push(detail.content));
    const codes = [];
    client.addEventListener("close", ({ detail }) => {
      told.push(detail.willReconnect ? "down" : "over");
      codes.push(detail.code);
    });
    client.addEventListener("open", ({ detail }) => told.push(detail.resumed ? "back" : "there"));
    await client.ready;
    await subscription.ready;
    Object.assign(window, { client, subscription, told, codes });
  }, options);
  return page;
}

for (const carrier of ["webtransport", "websocket"]) {
  test(`over ${carrier}, a page reconnects to a killed server and reports the lost log`, needsServer, async (t) => {
    const page = await listening(t, { carriers: [carrier] });
    await page.evaluate(() => client.publish("back.again", "before"));
    await until(page, () => told.includes("before"));
    await setup.server.kill();
    // QUIC does not notice by itself that the server is gone; the "online" event makes the page check.
    await page.evaluate(() => dispatchEvent(new Event("online")));
    await until(page, () => client.state === "reconnecting");
    const published = page.evaluate(() => client.publish("back.again", "after"));
    await setup.server.start();
    assert.equal((await published).offset, 1, "a message published meanwhile waits, and is published once");
    await until(page, () => told.includes("after"));
    assert.deepEqual(await page.evaluate(() => told), ["there", "before", "down", "back", "lost", "after"]);
    assert.deepEqual(await page.evaluate(() => [client.carrier, client.reconnects, client.state]), [
      carrier,
      1,
      "open",
    ]);
  });
}

test("a draining server disconnects its clients, and they reconnect to the next one", needsServer, async (t) => {
  const page = await listening(t, {});
  assert.equal(await page.evaluate(() => client.carrier), "webtransport");
  await setup.server.kill("SIGTERM");
  await until(page, () => codes.length > 0);
  assert.deepEqual(await page.evaluate(() => codes), [1001]);
  await setup.server.start();
  await until(page, () => client.state === "open" && subscription.state === "active");
  assert.equal(await page.evaluate(() => client.reconnects), 1);
});

test("a page that is disconnected repeatedly gets every message once and in order", needsServer, async (t) => {
  const page = await listening(t, {});
  await page.evaluate(async () => {
    const { connect } = await import("/qws.js");
    window.writer = connect(undefined, { name: "writer" });
    await writer.ready;
  });
  const contents = (round) => Array.from({ length: 200 }, (_, at) => String(round * 200 + at));
  for (let round = 0; round < 5; round += 1) {
    const sent = page.evaluate(
      (contents) => Promise.all(contents.map((content) => writer.publish("back.again", content))),
      contents(round),
    );
    // As if it had read too slowly.
    const response = await setup.server.admin("/api/disconnect", {
      client: await page.evaluate(() => client.id),
      code: 4413,
    });
    assert.equal(response.status, 200, await response.text());
    await until(page, (round) => client.reconnects === round + 1, round);
    await sent;
  }
  await until(page, () => told.includes("999"));
  const heard = await page.evaluate(() => told);
  assert.deepEqual(
    heard.filter((it) => Number.isInteger(Number(it))),
    [0, 1, 2, 3, 4].flatMap(contents),
  );
  assert.equal(heard.includes("lost"), false);
});
