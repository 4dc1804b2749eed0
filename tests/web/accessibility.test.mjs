// Checks each page with axe, in light and dark, wide and narrow. With QWS_SCREENSHOTS=1, also takes the pictures of
// docs/images/.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { WebSocket } from "ws";

import { connect } from "../../web/qws.js";
import { BLANK, withBrowser } from "./support/browser.mjs";
import { needsServer, startServer } from "./support/server.mjs";
import { asksForTokens, tokenOf } from "./support/tokens.mjs";

const args = [
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  "--disable-features=WebRtcHideLocalIpsWithMdns",
];
const setup = withBrowser({ args });
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const images = fileURLToPath(new URL("../../docs/images/", import.meta.url));
const takesPictures = Boolean(process.env.QWS_SCREENSHOTS);

/** The violations of WCAG 2.2 A and AA, and of best practices. */
async function findings(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }),
  );
  return violations.map(
    ({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join("; ")}`,
  );
}

async function say(page, text) {
  await page.fill("#composer-text", text);
  await page.press("#composer-text", "Enter");
}

/** A separate room for each conversation. The rooms in the pictures have proper names. */
const roomFor = ({ colorScheme, viewport: { width } }) =>
  ({ light: { 1280: "lobby", 390: "kitchen" }, dark: { 1280: "workshop", 390: "garden" } })[colorScheme][width] ??
  `${colorScheme}-${width}`;

/** A page with a conversation of two people. */
async function chatting(t, options, room = roomFor(options)) {
  const grace = await setup.open(t, `/#room=${room}&name=Grace`);
  await grace.locator('#connection-badge[data-state="open"]').waitFor();
  const page = await setup.open(t, `/#room=${room}&name=Ada`, options);
  await page.locator("#people-list [data-client]", { hasText: "Grace" }).waitFor({ state: "attached" });
  await say(page, "Is the call still on for tomorrow?");
  await grace.locator(".entry-text", { hasText: "tomorrow" }).waitFor();
  await say(grace, "Yes, at ten. The notes are in the usual place.");
  await page.locator(".entry-text", { hasText: "usual place" }).waitFor();
  await say(page, "Perfect, see you then.");
  await page.locator('.entry[data-type="message"] .entry-text', { hasText: "see you then" }).waitFor();
  return page;
}

async function calling(t, options) {
  const room = roomFor(options);
  const permissions = ["camera", "microphone"];
  const grace = await setup.open(t, `/webrtc#room=${room}&name=Grace`, { permissions });
  await grace.click("#signin-submit");
  await grace.locator('#connection-badge[data-state="open"]').waitFor();
  const page = await setup.open(t, `/webrtc#room=${room}&name=Ada`, { ...options, permissions });
  await page.click("#signin-submit");
  await page.locator('[data-testid="tile"][data-client][data-channel="open"]').waitFor({ timeout: 30_000 });
  await grace.click("#toggle-camera");
  await page.click("#toggle-camera");
  await page.locator('[data-testid="tile"][data-client][data-video="true"]').waitFor({ timeout: 20_000 });
  await say(page, "Can you see me?");
  return page;
}

/** Makes the server busy: three clients that subscribe to three topics, one of which publishes. */
async function busy(t) {
  const names = ["feed", "bridge", "archive"];
  const topics = ["market.fx.eurusd", "market.fx.usdjpy", "alerts.frost"];
  const clients = names.map((name) => connect(setup.server.url, { WebSocket, name }));
  for (const client of clients) {
    for (const topic of topics) client.subscribe(topic).addEventListener("message", () => {});
  }
  await Promise.all(clients.map(({ ready }) => ready));
  let at = 0;
  const publishing = setInterval(() => {
    at += 1;
    const burst = 3 + Math.round(2 * Math.sin(at / 40));
    for (let more = 0; more < burst; more += 1)
      clients[0].publish(topics[(at + more) % topics.length], String(1.08 + more / 100));
  }, 50);
  t.after(async () => {
    clearInterval(publishing);
    await Promise.all(clients.map((client) => client.close()));
  });
}

async function watching(t, options) {
  await busy(t);
  const page = await setup.open(t, setup.server.dashboard, options);
  const chatting = await setup.open(t, `/#room=${roomFor(options)}&name=Ada`);
  await chatting.locator('#connection-badge[data-state="open"]').waitFor();
  const polls = takesPictures && options.viewport.width === 1280 ? 40 : 4;
  await page.waitForFunction((polls) => Number(document.body.dataset.polls) >= polls, polls, { timeout: 85_000 });
  return page;
}

/** The chat's menu of a person, while the other types. */
async function choosing(t, options) {
  const page = await chatting(t, options, `${roomFor(options)}-menu`);
  if (options.viewport.width < 1080) await page.click("#show-people");
  await page.getByTestId("person-more").first().click();
  await page.locator("#person-menu").waitFor();
  return page;
}

/** The dashboard's topic browser with a value, and the dialog of a client if there is room for the button. */
async function browsing(t, options) {
  const client = connect(setup.server.url, { WebSocket, name: "Node" });
  t.after(() => client.close());
  const subscription = client.subscribe("browse.values", { state: { at: "desk" } });
  subscription.addEventListener("message", () => {});
  await client.publish("browse.values", { load: [0.5] }, { meta: { event: "sample" }, bytes: new Uint8Array(9) });
  const page = await setup.open(t, setup.server.dashboard, options);
  await page.locator('[data-testid="browser-topic"][data-topic="browse.values"]').click();
  await page.getByTestId("message-json").first().waitFor();
  await page.getByTestId("member-row").first().waitFor();
  return page;
}

/** The dialog for what can be done to a user. */
async function managing(t, options) {
  const page = await setup.open(t, setup.server.dashboard, options);
  await page.locator('body[data-state="live"]').waitFor();
  await page.getByTestId("user-name").fill("ada");
  await page.getByTestId("user-find-submit").click();
  await page.locator("#manage-count", { hasText: "0 connections" }).waitFor();
  return page;
}

/** A chat page whose access ends soon, with a token that was refused. */
async function renewing(t, options) {
  const asking = await startServer({ settings: asksForTokens("warn_ms = 3_600_000") });
  t.after(() => asking.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true, ...options });
  await page.goto(`${asking.url}/#room=lobby&name=Ada`);
  await page.locator("#signin-token-field").waitFor();
  await page.fill("#signin-token", tokenOf("ada"));
  await page.click("#signin-submit");
  await page.fill("#renewal-token", tokenOf("eve"));
  await page.click("#renewal-submit");
  await page.locator("#renewal-problem", { hasText: "belongs to another user" }).waitFor();
  return page;
}

const PAGES = {
  chat: chatting,
  "chat-renewal": renewing,
  "chat-signin": (t, options) => setup.open(t, "/", options),
  video: calling,
  dashboard: watching,
  "chat-menu": choosing,
  "dashboard-topic": browsing,
  "dashboard-user": managing,
};

test("violations on a page are found", needsServer, async (t) => {
  const page = await setup.open(t, "/");
  await page.evaluate(() => {
    const faint = document.createElement("p");
    faint.append(document.createElement("img"), "too faint to read");
    faint.style.cssText = "color: #ccc; background: #fff; position: fixed; z-index: 9; top: 0";
    document.querySelector("main").append(faint);
  });
  const found = (await findings(page)).join("\n");
  assert.match(found, /image-alt/);
  assert.match(found, /color-contrast/);
});

/** How much wider a page is than its window, in pixels. */
const overflow = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

for (const [name, open] of Object.entries(PAGES)) {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390, 360, 320]) {
      test(`${name} is accessible and fits, ${colorScheme}, ${width} px wide`, needsServer, async (t) => {
        const page = await open(t, { colorScheme, viewport: { width, height: 800 }, reducedMotion: "reduce" });
        const isOfDocs = !name.includes("-") && (width === 1280 || (name === "chat" && width === 390));
        if (takesPictures && isOfDocs) {
          if (name === "chat") await page.waitForTimeout(2_500);
          const variant = width === 1280 ? colorScheme : `narrow-${colorScheme}`;
          // Before axe, which blocks the page for seconds and leaves a gap in the dashboard's charts.
          await page.screenshot({ path: `${images}${name}-${variant}.png` });
        }
        assert.deepEqual(await findings(page), []);
        assert.equal(await overflow(page), 0, "pixels wider than the window");
      });
    }
  }
}

for (const name of ["chat", "video"]) {
  test(`${name} fits a phone with a long round trip and with large text`, needsServer, async (t) => {
    const page = await PAGES[name](t, { colorScheme: "light", viewport: { width: 414, height: 800 } });
    const wider = [];
    for (const fontSize of ["100%", "200%"]) {
      for (const width of [414, 390, 375, 360, 320]) {
        await page.setViewportSize({ width, height: 800 });
        const by = await page.evaluate((fontSize) => {
          document.documentElement.style.fontSize = fontSize;
          // Measured at once, because the page soon shows its own round trip there.
          document.getElementById("connection-rtt").textContent = "12345 ms";
          return document.documentElement.scrollWidth - document.documentElement.clientWidth;
        }, fontSize);
        if (by > 0) wider.push(`${width} px wide with text of ${fontSize}: by ${by} px`);
      }
    }
    assert.deepEqual(wider, []);
  });
}
