// The dashboard: its numbers are the server's, and its actions take effect.

import assert from "node:assert/strict";
import { test } from "node:test";

import { WebSocket } from "ws";

import { connect } from "../../web/qws.js";
import { BLANK, until, withBrowser } from "./support/browser.mjs";
import { ADMIN_TOKEN, needsServer, startServer } from "./support/server.mjs";
import { asksForTokens, tokenOf } from "./support/tokens.mjs";

const setup = withBrowser();

/** The numbers of `/metrics`, by name with labels. */
async function metrics() {
  const response = await setup.server.admin("/metrics");
  assert.equal(response.status, 200);
  const lines = (await response.text()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return Object.fromEntries(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]),
  );
}

/** Waits until the dashboard has polled twice more. */
async function polled(page) {
  const polls = Number(await page.getAttribute("body", "data-polls"));
  await until(page, (polls) => Number(document.body.dataset.polls) >= polls + 2, polls);
}

const shown = async (page, path) => Number(await page.getAttribute(`[data-metric="${path}"]`, "data-value"));

/** The dashboard's paths and the metrics that must have the same values. */
const SAME = {
  "clients.quic": 'qws_clients{transport="quic"}',
  "clients.webtransport": 'qws_clients{transport="webtransport"}',
  "clients.websocket": 'qws_clients{transport="websocket"}',
  connections: "qws_connections",
  handshakes: "qws_handshakes",
  "totals.messages_in": "qws_messages_in_total",
  "totals.bytes_in": "qws_bytes_in_total",
  "totals.messages_out": "qws_messages_out_total",
  "totals.bytes_out": "qws_bytes_out_total",
  "totals.published": "qws_published_total",
  "totals.fanned_out": "qws_fanned_out_total",
  "totals.dropped": "qws_dropped_total",
  "totals.refused": "qws_refused_total",
  "totals.accepted.quic": 'qws_accepted_total{transport="quic"}',
  "totals.accepted.webtransport": 'qws_accepted_total{transport="webtransport"}',
  "totals.accepted.websocket": 'qws_accepted_total{transport="websocket"}',
  "queues.messages": "qws_queued_messages",
  "queues.bytes": "qws_queued_bytes",
  "topics.count": "qws_topics",
  "topics.subscriptions": "qws_subscriptions",
};

test("the numbers are those of /metrics and match the traffic", needsServer, async (t) => {
  const dashboard = await setup.open(t, setup.server.dashboard);
  await dashboard.locator('body[data-state="live"]').waitFor();
  const page = await setup.open(t, BLANK);
  await page.evaluate(async () => {
    const { connect } = await import("/qws.js");
    window.client = connect(undefined, { name: "Page" });
    window.count = 0;
    const subscription = client.subscribe("dash.board");
    subscription.addEventListener("message", () => (count += 1));
    await subscription.ready;
  });
  const client = connect(setup.server.url, { WebSocket, name: "Node" });
  t.after(() => client.close());
  const own = client.subscribe("dash.board");
  own.addEventListener("message", () => {});
  await own.ready;
  for (let at = 0; at < 25; at += 1) await client.publish("dash.board", `message ${at}`);
  await until(page, () => count === 25);
  await (await connect(setup.server.url, { WebSocket })).close();

  let differing;
  // A client may ping between the two responses; then both are requested again.
  for (let tries = 0; tries < 10 && differing?.length !== 0; tries += 1) {
    await polled(dashboard);
    const told = await metrics();
    differing = [];
    for (const [path, name] of Object.entries(SAME)) {
      const here = await shown(dashboard, path);
      if (here !== told[name]) differing.push(`${path} is ${here}, and ${name} ${told[name]}`);
    }
  }
  assert.deepEqual(differing, []);
  assert.deepEqual(
    await Promise.all(
      ["clients.total", "clients.webtransport", "totals.published", "totals.fanned_out"].map((path) =>
        shown(dashboard, path),
      ),
    ),
    [2, 1, 25, 50],
  );
  const topic = dashboard.locator('[data-testid="topic-row"][data-topic="dash.board"]');
  assert.equal(await topic.locator('[data-metric="topics.top.subscribers"]').getAttribute("data-value"), "2");
  assert.equal(await topic.locator('[data-metric="topics.top.offset"]').getAttribute("data-value"), "25");
  const rows = dashboard.locator('[data-testid="client-row"]:not([data-unlisted="true"])');
  assert.deepEqual((await rows.locator('[data-field="name"]').allTextContents()).sort(), ["Node", "Page"]);
});

/** The percentiles of round trips and losses, as the metric and the factor: `/metrics` has seconds and ratios. */
const SPREAD = { "rtt_ms.clients": ["qws_measured_clients", 1], "loss_percent.clients": ["qws_measured_clients", 1] };
for (const [percentile, label] of Object.entries({ p50: "50", p90: "90", p99: "99", max: "100" })) {
  SPREAD[`rtt_ms.${percentile}`] = [`qws_rtt_seconds{percentile="${label}"}`, 1000];
  SPREAD[`loss_percent.${percentile}`] = [`qws_loss_ratio{percentile="${label}"}`, 100];
}

test("the percentiles of round trips and losses are those of /metrics", needsServer, async (t) => {
  const dashboard = await setup.open(t, setup.server.dashboard);
  await dashboard.locator('body[data-state="live"]').waitFor();
  const page = await setup.open(t, BLANK);
  // Enough clients for the percentiles to differ.
  await page.evaluate(async () => {
    const { connect } = await import("/qws.js");
    window.clients = Array.from({ length: 10 }, () => connect(undefined, { carriers: ["webtransport"] }));
    for (const client of clients) {
      await client.ready;
      await client.ping();
    }
  });
  let differing;
  // A new round trip may be measured between the two responses; then both are requested again.
  for (let tries = 0; tries < 15 && differing?.length !== 0; tries += 1) {
    await polled(dashboard);
    const told = await metrics();
    differing = [];
    for (const [path, [name, factor]] of Object.entries(SPREAD)) {
      const [here, there] = [await shown(dashboard, path), told[name] * factor];
      if (!(Math.abs(here - there) < 1e-6)) differing.push(`${path} is ${here}, and ${name} ${there}`);
    }
  }
  assert.deepEqual(differing, []);
  const measured = await shown(dashboard, "rtt_ms.clients");
  assert.ok(measured >= 10, `${measured} clients were measured`);
  const [median, longest] = [await shown(dashboard, "rtt_ms.p50"), await shown(dashboard, "rtt_ms.max")];
  assert.ok(0 < median && median <= longest, `${median} and ${longest}`);
});

test("a message published on the dashboard reaches subscribers", needsServer, async (t) => {
  const client = connect(setup.server.url, { WebSocket });
  t.after(() => client.close());
  const subscription = client.subscribe("from.the.dashboard");
  await subscription.ready;
  const message = subscription[Symbol.asyncIterator]().next();
  const dashboard = await setup.open(t, setup.server.dashboard);
  await dashboard.getByTestId("publish-topic").fill("from.the.dashboard");
  await dashboard.getByTestId("publish-content").fill("hello from here");
  await dashboard.getByTestId("publish-submit").click();
  const { content, offset, from } = (await message).value;
  assert.deepEqual([content, from], ["hello from here", undefined]);
  const result = dashboard.locator('[data-testid="publish-result"][data-offset]');
  assert.equal(await result.getAttribute("data-offset"), String(offset));
});

test("a client disconnected on the dashboard gets code and reason, and leaves the list", needsServer, async (t) => {
  const client = connect(setup.server.url, { WebSocket, name: "Unwanted" });
  t.after(() => client.close());
  await client.ready;
  const closed = new Promise((resolve) => client.addEventListener("close", ({ detail }) => resolve(detail)));
  const dashboard = await setup.open(t, setup.server.dashboard);
  const row = dashboard.locator(`[data-testid="client-row"][data-client="${client.id}"]`);
  await row.getByTestId("disconnect").click();
  await dashboard.getByTestId("disconnect-code").selectOption("4403");
  await dashboard.getByTestId("disconnect-reason").fill("enough");
  await dashboard.getByTestId("disconnect-confirm").click();
  assert.deepEqual(await closed, { code: 4403, reason: "enough", willReconnect: false });
  await until(
    dashboard,
    (id) => !document.querySelector(`[data-testid="client-row"][data-client="${id}"]:not([data-unlisted="true"])`),
    client.id,
  );
});

const kept = (page) =>
  page.evaluate(() => [JSON.stringify({ ...sessionStorage }), JSON.stringify({ ...localStorage })]);

test("the token is removed from the address at once and kept only in the tab", needsServer, async (t) => {
  const page = await setup.open(t, setup.server.dashboard);
  await page.locator('body[data-state="live"]').waitFor();
  assert.equal(await page.evaluate(() => location.href), `${setup.server.url}/dashboard`);
  const [session, local] = await kept(page);
  assert.ok(session.includes(ADMIN_TOKEN) && !local.includes(ADMIN_TOKEN));
  await page.reload();
  await page.locator('body[data-state="live"]').waitFor();
  await page.getByTestId("forget-token").click();
  await page.locator('body[data-state="denied"]').waitFor();
  assert.ok(!(await kept(page)).join().includes(ADMIN_TOKEN));
  // The address that the server prints, opened in the tab that asks for the token.
  await page.evaluate((hash) => location.assign(hash), new URL(setup.server.dashboard, "http://x").hash);
  await page.locator('body[data-state="live"]').waitFor();
  assert.equal(await page.evaluate(() => location.hash), "");
});

test("the dialog explains where to find the admin token, and rejects a wrong one", needsServer, async (t) => {
  const page = await setup.open(t, "/dashboard", { mayBeRefused: true });
  await page.getByTestId("token-dialog").waitFor();
  for (const place of [/log when it starts/, /http\.admin_token/]) {
    assert.match(await page.textContent("#token-text"), place);
  }
  assert.equal(await page.isVisible("#token-problem"), false);
  const enter = async (token) => {
    await page.getByTestId("token-input").fill(token);
    await page.getByTestId("token-submit").click();
  };
  for (const wrong of ["a wrong token", "another-wrong-token"]) {
    await enter(wrong);
    await page.locator("#token-problem", { hasText: "That is not a valid admin token." }).waitFor();
  }
  await enter(ADMIN_TOKEN);
  await page.locator('body[data-state="live"]').waitFor();
  assert.equal(await page.getByTestId("token-dialog").isVisible(), false);

  const other = await setup.open(t, "/dashboard#token=a-token-of-another-server", { mayBeRefused: true });
  await other.locator("#token-problem", { hasText: "That is not a valid admin token." }).waitFor();
  assert.equal(await other.evaluate(() => location.hash), "");
});

test("there is a fan-out only while messages are published", needsServer, async (t) => {
  const page = await setup.open(t, setup.server.dashboard);
  await page.locator('body[data-state="live"]').waitFor();
  const client = connect(setup.server.url, { WebSocket });
  t.after(() => client.close());
  const subscription = client.subscribe("fan.out");
  subscription.addEventListener("message", () => {});
  await subscription.ready;
  await polled(page);
  const fanOut = page.locator('[data-metric="rates.fan_out"]');
  assert.deepEqual([await fanOut.textContent(), await fanOut.getAttribute("data-value")], ["–", ""]);
  let isOver = false;
  t.after(() => (isOver = true));
  (async () => {
    while (!isOver) await client.publish("fan.out", "x");
  })().catch(() => {});
  await until(page, () => document.querySelector('[data-metric="rates.fan_out"]').dataset.value !== "");
  isOver = true;
  const value = Number(await fanOut.getAttribute("data-value"));
  assert.ok(Math.abs(value - 1) < 0.1, `one subscriber, and × ${value}`);
});

test("an idle server's dashboard has no large empty boxes", needsServer, async (t) => {
  const quiet = await startServer();
  t.after(() => quiet.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(quiet.url + quiet.dashboard);
  await page.locator('body[data-state="live"]').waitFor();
  await page.locator("#topics .empty", { hasText: "Nothing published yet." }).waitFor();
  await page.locator("#closes .empty", { hasText: "No connections closed yet." }).waitFor();
  for (const id of ["topics", "closes"]) {
    const { height } = await page.locator(".panel", { has: page.locator(`#${id}`) }).boundingBox();
    assert.ok(height < 180, `#${id} is ${height} px high`);
  }
  await page
    .locator('[data-testid="chart-refusals"] .plot-quiet', { hasText: "Nothing dropped or refused." })
    .waitFor();
});

/** The dashboard of a server, once it is live. */
async function dashboardOf(t, server) {
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(server.url + server.dashboard);
  await page.locator('body[data-state="live"]').waitFor();
  return page;
}

const offsets = (page) =>
  page.getByTestId("message-row").evaluateAll((rows) => rows.map(({ dataset }) => Number(dataset.offset)));

test("the topic browser shows a topic's values, attachments and members, page by page", needsServer, async (t) => {
  const client = connect(setup.server.url, { WebSocket, name: "Node" });
  t.after(() => client.close());
  for (let at = 1; at <= 60; at += 1) await client.publish("browse.long", `message ${at}`);
  await client.publish("browse.value", { load: [0.5] }, { meta: { event: "sample" }, bytes: new Uint8Array(2048) });
  const subscription = client.subscribe("browse.value", { state: { at: "desk" } });
  subscription.addEventListener("message", () => {});
  await subscription.ready;

  const page = await setup.open(t, setup.server.dashboard);
  await page.getByTestId("topic-search").fill("browse");
  await until(page, () => document.getElementById("browser-count").textContent === "2 topics matching");
  await page.locator('[data-testid="browser-topic"][data-topic="browse.value"]').click();
  const row = page.getByTestId("message-row");
  await row.getByTestId("message-json").waitFor();
  assert.deepEqual(JSON.parse(await row.getByTestId("message-json").textContent()), { load: [0.5] });
  assert.equal(await row.getByTestId("message-bytes").textContent(), "Attachment, 2 KiB");
  assert.match(await row.getByTestId("message-meta").textContent(), /"event":"sample"/);
  const member = page.locator(`[data-testid="member-row"][data-client="${client.id}"]`);
  await member.waitFor();
  assert.match(await member.textContent(), /Node.*"at":"desk"/);

  await page.locator('[data-testid="open-topic"]', { hasText: "browse.long" }).click();
  await page.getByTestId("older").waitFor();
  const sixty = Array.from({ length: 60 }, (_, at) => 60 - at);
  assert.deepEqual(await offsets(page), sixty.slice(0, 50));
  await page.getByTestId("older").click();
  await page.getByTestId("older").waitFor({ state: "hidden" });
  assert.deepEqual(await offsets(page), sixty);
});

test("a tap shows the messages of a topic as they come, also where clients need tokens", needsServer, async (t) => {
  const server = await startServer({ settings: asksForTokens() });
  t.after(() => server.stop());
  const client = connect(server.url, { WebSocket, token: tokenOf("ada", 600, { name: "Ada" }) });
  t.after(() => client.close());
  await client.publish("chat.tapped", "before");
  const page = await dashboardOf(t, server);
  await page.locator('[data-testid="browser-topic"][data-topic="chat.tapped"]').click();
  await page.getByTestId("message-row").waitFor();
  await page.getByTestId("tap").click();
  for (const text of ["one", "two"]) {
    await client.publish("chat.tapped", text);
    await page.locator('[data-testid="message-row"]', { hasText: text }).waitFor();
  }
  assert.deepEqual(await offsets(page), [3, 2, 1]);
  assert.match(await page.getByTestId("message-row").first().textContent(), /Ada \(ada\)/);
  await page.getByTestId("tap").click();
  await page.locator('[data-testid="tap"][aria-pressed="false"]').waitFor();
  await client.publish("chat.tapped", "three");
  // Started again, it continues behind what it has shown.
  await page.getByTestId("tap").click();
  await page.locator('[data-testid="message-row"]', { hasText: "three" }).waitFor();
  assert.deepEqual(await offsets(page), [4, 3, 2, 1]);
});

test("all connections of a user are subscribed, disconnected and revoked on the dashboard", needsServer, async (t) => {
  const server = await startServer({ settings: asksForTokens() });
  t.after(() => server.stop());
  const token = tokenOf("ada", 600, { name: "Ada", iat: Math.floor(Date.now() / 1000) - 10 });
  const clients = [0, 1].map(() => connect(server.url, { WebSocket, token: () => token }));
  t.after(() => Promise.all(clients.map((client) => client.close())));
  const next = (target, type) => new Promise((done) => target.addEventListener(type, ({ detail }) => done(detail)));
  const heard = clients.map((client) => next(client, "subscription"));
  await Promise.all(clients.map((client) => client.ready));

  const page = await dashboardOf(t, server);
  await page.locator('[data-testid="client-row"] [data-field="user"]', { hasText: "user ada" }).first().click();
  await page.getByTestId("manage-client").nth(1).waitFor();
  assert.equal(await page.getByTestId("manage-client").count(), 2);
  await page.getByTestId("manage-subscribe").click();
  await page.getByTestId("manage-problem").waitFor();
  await page.getByTestId("manage-topic").fill("team.>");
  await page.getByTestId("manage-subscribe").click();
  await page.getByTestId("manage-result").filter({ hasText: "2 clients will be subscribed to team.>" }).waitFor();
  const subscriptions = await Promise.all(heard);
  assert.deepEqual(
    subscriptions.map(({ topic }) => topic),
    ["team.>", "team.>"],
  );
  const ended = subscriptions.map((subscription) => next(subscription, "end"));
  await page.getByTestId("manage-unsubscribe").click();
  await Promise.all(ended);

  const gone = clients.map((client) => next(client, "close"));
  await page.getByTestId("manage-revoke").click();
  await page.getByTestId("manage-result").filter({ hasText: "auth.revocations_file" }).waitFor();
  assert.deepEqual(
    (await Promise.all(gone)).map(({ code }) => code),
    [4401, 4401],
  );
  await page.getByTestId("manage-unrevoke").click();
  await page.getByTestId("manage-result").filter({ hasText: "accepted again" }).waitFor();
  await page.getByTestId("manage-close").click();

  // By name, as there may be more clients than are listed.
  const other = connect(server.url, { WebSocket, token: tokenOf("bob") });
  t.after(() => other.close());
  await other.ready;
  const left = next(other, "close");
  await page.getByTestId("user-name").fill("bob");
  await page.getByTestId("user-find-submit").click();
  await page.getByTestId("manage-client").waitFor();
  await page.getByTestId("manage-disconnect").click();
  await page.getByTestId("disconnect-confirm").click();
  assert.equal((await left).code, 4403);
});

test("the menu of a client that is nobody's acts on that client alone", needsServer, async (t) => {
  const client = connect(setup.server.url, { WebSocket, name: "Alone" });
  t.after(() => client.close());
  const made = new Promise((resolve) => client.addEventListener("subscription", ({ detail }) => resolve(detail)));
  await client.ready;
  const page = await setup.open(t, setup.server.dashboard);
  await page.locator(`[data-testid="client-row"][data-client="${client.id}"]`).getByTestId("manage").click();
  assert.equal(await page.getByTestId("manage-revoke").isVisible(), false);
  await page.getByTestId("manage-topic").fill("alone");
  await page.getByTestId("manage-subscribe").click();
  assert.equal((await made).topic, "alone");
  await page.getByTestId("manage-result").filter({ hasText: "1 client will be subscribed" }).waitFor();
});
