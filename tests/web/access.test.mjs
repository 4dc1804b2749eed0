// The chat page where access ends: what is said before, and what is still there after signing in again.

import assert from "node:assert/strict";
import { test } from "node:test";

import { BLANK, until, withBrowser } from "./support/browser.mjs";
import { needsServer, startServer } from "./support/server.mjs";
import { asksForTokens, tokenOf } from "./support/tokens.mjs";

const setup = withBrowser();

/** Is in the rooms, and turned to the last. */
async function enter(t, ...rooms) {
  const page = await setup.open(t, `/#room=${rooms[0]}&name=Ada`);
  await page.locator(`[data-conversation="room:${rooms[0]}"]`).waitFor();
  for (const room of rooms.slice(1)) {
    await page.fill("#join-room", room);
    await page.press("#join-room", "Enter");
    await page.locator(`[data-conversation="room:${room}"][aria-current="true"]`).waitFor();
  }
  return page;
}

/** The server ends the page's connection for good. */
async function endAccess(page) {
  const client = await page.textContent("#connection-detail-id");
  const body = JSON.stringify({ client, code: 4403, reason: "enough" });
  const headers = { "content-type": "application/json" };
  const { status } = await fetch(`${setup.server.url}/api/disconnect`, { method: "POST", headers, body });
  assert.equal(status, 200);
  await page.locator("#sign-in-again").waitFor();
}

async function turnTo(page, conversation) {
  await page.click(`[data-conversation="${conversation}"]`);
  await page.locator(`[data-conversation="${conversation}"][aria-current="true"]`).waitFor();
}

const writes = (page) => until(page, () => document.activeElement.id === "composer-text");

const draft = (page) => page.inputValue("#composer-text");

test("what was typed and not sent is still there after signing in again", needsServer, async (t) => {
  const page = await enter(t, "draft-one", "draft-two");
  await page.fill("#composer-text", "for the second room");
  await turnTo(page, "room:draft-one");
  await page.fill("#composer-text", "for the first room");
  await endAccess(page);
  await turnTo(page, "all:");
  await page.fill("#composer-text", "for everyone");
  await turnTo(page, "room:draft-one");
  await page.click("#sign-in-again");
  await page.click("#signin-submit");
  await page.locator('[data-conversation="room:draft-one"][aria-current="true"]').waitFor();
  assert.equal(await draft(page), "for the first room");
  await turnTo(page, "room:draft-two");
  assert.equal(await draft(page), "for the second room");
  await turnTo(page, "all:");
  assert.equal(await draft(page), "for everyone");

  // What was sent or wiped out does not come back.
  await page.fill("#composer-text", "");
  await turnTo(page, "room:draft-two");
  await page.press("#composer-text", "Enter");
  await page.locator(".entry-text", { hasText: "for the second room" }).waitFor();
  await endAccess(page);
  await page.click("#sign-in-again");
  await page.click("#signin-submit");
  await page.locator('[data-conversation="room:draft-two"][aria-current="true"]').waitFor();
  assert.equal(await draft(page), "");
  await turnTo(page, "all:");
  assert.equal(await draft(page), "");
  await turnTo(page, "room:draft-one");
  assert.equal(await draft(page), "for the first room");
});

test("what was typed is nobody else's", needsServer, async (t) => {
  const page = await enter(t, "whose");
  const conversations = ["room:whose", "all:"];
  const type = async () => {
    for (const conversation of conversations) {
      await turnTo(page, conversation);
      await page.fill("#composer-text", "a secret");
    }
  };
  const findsNothing = async () => {
    await page.locator('[data-conversation="room:whose"]').waitFor();
    for (const conversation of conversations) {
      await turnTo(page, conversation);
      assert.equal(await draft(page), "", conversation);
    }
  };
  await type();
  await endAccess(page);
  await page.click("#sign-in-again");
  await page.fill("#signin-name", "Eve");
  await page.click("#signin-submit");
  await findsNothing();

  await type();
  await page.click("#sign-out");
  assert.equal(await draft(page), "");
  await page.fill("#signin-room", "whose");
  await page.click("#signin-submit");
  await findsNothing();
});

test("that access ends soon is said, and another token makes it go on", needsServer, async (t) => {
  // So long before that every token ends soon.
  const asking = await startServer({ settings: asksForTokens("warn_ms = 3_600_000") });
  t.after(() => asking.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(`${asking.url}/#room=lobby&name=Ada`);
  await page.locator("#signin-token-field").waitFor();
  await page.fill("#signin-token", tokenOf("ada"));
  await page.click("#signin-submit");
  await page.locator("#renewal").waitFor();
  await page.locator("#announcer", { hasText: "Your access ends" }).waitFor({ state: "attached" });
  assert.match(await page.textContent("#renewal-text"), /^Your access ends at .*\d/);
  // Who writes is not interrupted.
  await writes(page);

  await page.fill("#renewal-token", tokenOf("somebody.else"));
  await page.click("#renewal-submit");
  await page.locator("#renewal-problem", { hasText: "not accepted" }).waitFor();
  assert.equal(await page.isVisible("#renewal"), true);

  await page.fill("#renewal-token", tokenOf("ada", 100_000));
  await page.press("#renewal-token", "Enter");
  await page.locator("#renewal").waitFor({ state: "hidden" });
  await page.locator("#announcer", { hasText: "Your access goes on" }).waitFor({ state: "attached" });
  assert.equal(await page.inputValue("#renewal-token"), "");
  await writes(page);
  assert.equal(await page.getAttribute("#connection-badge", "data-state"), "open");
});

test("what is asked before access ends is not asked any more behind that, nor of who comes next", needsServer, async (t) => {
  const asking = await startServer({ settings: asksForTokens("warn_ms = 3_600_000") });
  t.after(() => asking.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(`${asking.url}/#room=lobby&name=Ada`);
  const signIn = async (token) => {
    await page.locator("#signin-token-field").waitFor();
    await page.fill("#signin-token", token);
    await page.click("#signin-submit");
    await page.locator("#chat").waitFor();
  };
  await signIn(tokenOf("ada"));
  await page.locator("#renewal").waitFor();
  await page.fill("#renewal-token", "half a tok");
  await page.click("#sign-out");
  assert.equal(await page.inputValue("#renewal-token"), "");
  await signIn(tokenOf("eve", 100_000));
  await page.locator('[data-conversation="room:lobby"]').waitFor();
  assert.equal(await page.isVisible("#renewal"), false);
});
