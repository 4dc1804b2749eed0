// The call page: browsers find each other through the server, and then talk without it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { BLANK, until, withBrowser } from "./support/browser.mjs";
import { needsServer, startServer } from "./support/server.mjs";
import { asksForTokens, tokenOf } from "./support/tokens.mjs";

// Fake cameras, and plain local addresses, because there may be no network on which mDNS names can be resolved.
const args = [
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  "--disable-features=WebRtcHideLocalIpsWithMdns",
];
const setup = withBrowser({ args });

async function enter(t, name, room) {
  const page = await setup.open(t, BLANK, { permissions: ["camera", "microphone"] });
  await page.goto(`${setup.server.url}/webrtc#room=${room}&name=${name}`);
  await page.click("#signin-submit");
  await page.locator('#connection-badge[data-state="open"]').waitFor();
  return page;
}

/** Waits until a page can send messages to this many others. */
const meets = (page, others) =>
  until(
    page,
    (others) => document.querySelectorAll('[data-testid="tile"][data-client][data-channel="open"]').length === others,
    others,
    30_000,
  );

async function say(page, text) {
  await page.fill("#composer-text", text);
  await page.click("#composer-send");
}

const hears = (page, text, from) =>
  page
    .locator('[data-testid="text"]', { has: page.locator(".text-body", { hasText: text }), hasText: from })
    .first()
    .waitFor();

test("two pages open a data channel between them and talk over it", needsServer, async (t) => {
  const [ada, bob] = [await enter(t, "Ada", "two"), await enter(t, "Bob", "two")];
  await Promise.all([meets(ada, 1), meets(bob, 1)]);
  await say(ada, "without a server");
  await hears(bob, "without a server", "Ada");
  await say(bob, "indeed");
  await hears(ada, "indeed", "Bob");

  // The connection is direct and does not need the server.
  const state = await ada.locator('[data-testid="tile"][data-client]').getAttribute("data-state");
  assert.equal(state, "connected");
});

test("the other page shows a camera while it is on", needsServer, async (t) => {
  const [ada, bob] = [await enter(t, "Ada", "seen"), await enter(t, "Bob", "seen")];
  await Promise.all([meets(ada, 1), meets(bob, 1)]);
  await ada.click("#toggle-camera");
  const seen = bob.locator('[data-testid="tile"][data-client][data-video="true"]');
  await seen.waitFor({ timeout: 20_000 });
  await until(bob, () =>
    [...document.querySelectorAll("video")].some(({ videoWidth, currentTime }) => videoWidth > 0 && currentTime > 0),
  );
  await ada.click("#toggle-camera");
  await seen.waitFor({ state: "detached", timeout: 20_000 });
});

test("three pages form a mesh, and one that hangs up leaves it", needsServer, async (t) => {
  const pages = [await enter(t, "Ada", "mesh"), await enter(t, "Bob", "mesh"), await enter(t, "Cleo", "mesh")];
  await Promise.all(pages.map((page) => meets(page, 2)));
  const [ada, bob, cleo] = pages;
  await say(cleo, "to you both");
  await Promise.all([hears(ada, "to you both", "Cleo"), hears(bob, "to you both", "Cleo")]);
  await cleo.click("#hang-up");
  await Promise.all([meets(ada, 1), meets(bob, 1)]);
  await ada.locator('[data-testid="tile"][data-client]', { hasText: "Cleo" }).waitFor({ state: "detached" });
});

test("a link alone does not join a call, which would reveal the user's address", needsServer, async (t) => {
  const page = await setup.open(t, "/webrtc#room=asked&name=Ada");
  const grace = await setup.open(t, "/webrtc#room=asked&name=Grace");
  await grace.click("#signin-submit");
  await grace.locator('#connection-badge[data-state="open"]').waitFor();
  assert.equal(await page.inputValue("#signin-room"), "asked");
  assert.equal(await page.inputValue("#signin-name"), "Ada");
  assert.equal(await grace.locator("#people-list [data-client]").count(), 1);
  assert.ok(await page.locator("#signin-form").isVisible());
});

test("a connection lost while joining is reported, and joining can be cancelled", needsServer, async (t) => {
  const alone = await startServer();
  t.after(() => alone.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  // Joining waits for this response, which does not arrive before the server is gone.
  await page.route("**/ice-servers", () => {});
  await page.goto(`${alone.url}/webrtc#room=late&name=Ada`);
  await page.click("#signin-submit");
  await page.locator("#signin-status", { hasText: "Joining" }).waitFor();
  await alone.kill();
  await page.locator("#signin-problem", { hasText: "Still trying" }).waitFor();
  await page.click("#signin-cancel");
  assert.equal(await page.isEnabled("#signin-submit"), true);
  assert.equal(await page.textContent("#signin-problem"), "");
});

test("people of the same name are distinguished by their client IDs", needsServer, async (t) => {
  const [ada, other] = [await enter(t, "Ada", "names"), await enter(t, "Ada", "names")];
  await Promise.all([meets(ada, 1), meets(other, 1)]);
  const tile = ada.locator('[data-testid="tile"][data-client]');
  const id = await tile.getAttribute("data-client");
  assert.equal(await tile.locator(".tile-mark").textContent(), id.slice(0, 8));
  assert.equal(await ada.locator(`#people-list [data-client="${id}"] .person-mark`).textContent(), id.slice(0, 8));
  assert.equal(await ada.locator("#people-list [data-own] .person-mark").count(), 0);
});

test("a call continues over the same connection after a server restart", needsServer, async (t) => {
  const alone = await startServer();
  t.after(() => alone.stop());
  const pages = [];
  for (const name of ["Ada", "Bob"]) {
    const page = await setup.open(t, BLANK, { mayMissServer: true });
    await page.goto(`${alone.url}/webrtc#room=again&name=${name}`);
    await page.click("#signin-submit");
    await page.locator('#connection-badge[data-state="open"]').waitFor();
    pages.push(page);
  }
  await Promise.all(pages.map((page) => meets(page, 1)));
  for (const page of pages)
    await page.evaluate(() => (document.querySelector('[data-testid="tile"][data-client]').dataset.kept = "yes"));
  const before = await pages[0].getAttribute('[data-testid="tile"][data-client]', "data-client");
  await alone.kill();
  for (const page of pages) {
    await page.evaluate(() => dispatchEvent(new Event("online")));
    await page.locator('#connection-badge[data-state="reconnecting"]').waitFor();
  }
  await alone.start();
  for (const page of pages) await page.locator('#connection-badge[data-state="open"]').waitFor({ timeout: 30_000 });
  await pages[0].waitForFunction(
    (before) => [...document.querySelectorAll("[data-kept]")].some(({ dataset }) => dataset.client !== before),
    before,
  );
  for (const page of pages) {
    const tiles = page.locator('[data-testid="tile"][data-client]');
    assert.equal(await tiles.count(), 1);
    assert.equal(await tiles.getAttribute("data-kept"), "yes");
    assert.equal(await tiles.getAttribute("data-state"), "connected");
  }
  await say(pages[0], "still here");
  await hears(pages[1], "still here", "Ada");
});

test("on a phone the whole call is in sight, and no name covers an avatar", needsServer, async (t) => {
  const grace = await enter(t, "Grace", "narrow");
  for (const height of [740, 640]) {
    const page = await setup.open(t, `/webrtc#room=narrow&name=Ada`, { viewport: { width: 360, height } });
    await page.click("#signin-submit");
    await meets(page, 1);
    const whole = await page.evaluate(() => {
      const inSight = (selector) => {
        const { top, bottom } = document.querySelector(selector).getBoundingClientRect();
        return top >= 0 && bottom <= innerHeight;
      };
      return ["#call-title", "#tiles", "#controls", "#people-list", "#texts", "#composer-text"].filter(
        (selector) => !inSight(selector),
      );
    });
    assert.deepEqual(whole, [], `not in sight at a height of ${height} px`);
    const covered = await page.evaluate(() =>
      [...document.querySelectorAll('[data-testid="tile"]')]
        .map((tile) =>
          [tile.querySelector(".avatar"), tile.querySelector(".tile-bar")].map((part) => part.getBoundingClientRect()),
        )
        .filter(([avatar, bar]) => avatar.bottom > bar.top && avatar.right > bar.left && avatar.left < bar.right),
    );
    assert.deepEqual(covered, []);
    await page.click("#hang-up");
    await meets(grace, 0);
  }
});

test("a link to another room, followed during a call, does not leave the call by itself", needsServer, async (t) => {
  const page = await enter(t, "Ada", "link-one");
  await page.evaluate(() => location.assign("#room=link-two"));
  await page.locator("#call-problem-text", { hasText: "link-two" }).waitFor();
  assert.equal(await page.textContent("#call-title"), "link-one");
  assert.equal(await page.evaluate(() => location.hash), "#room=link-one");
  await page.click("#call-move");
  await page.locator("#signin-form").waitFor();
  assert.equal(await page.inputValue("#signin-room"), "link-two");
});

test("a user who may not make calls is told before joining", needsServer, async (t) => {
  const asking = await startServer({ settings: asksForTokens().replaceAll("chat.>", "webrtc.>") });
  t.after(() => asking.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(`${asking.url}/webrtc#room=lobby&name=Ada`);
  await page.click("#signin-submit");
  await page.locator("#signin-token-field").waitFor();
  await page.fill("#signin-token", tokenOf("ada"));
  await page.click("#signin-submit");
  await page.locator("#signin-problem", { hasText: "You are not allowed to make calls." }).waitFor();
});
