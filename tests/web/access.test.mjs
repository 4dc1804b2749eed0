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
  const { status } = await setup.server.admin("/api/disconnect", { client, code: 4403, reason: "enough" });
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
  await turnTo(page, "all:");
  await page.fill("#composer-text", "for everyone");
  await turnTo(page, "room:draft-one");
  await endAccess(page);
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

test("who came in without a token and may do little can come back with one", needsServer, async (t) => {
  const open = await startServer({ settings: `${asksForTokens()}\n[auth.anonymous]\nsubscribe = ["other.>"]` });
  t.after(() => open.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(`${open.url}/#room=lobby&name=Ada`);
  await page.locator("#page-problem", { hasText: "enter lobby. If you have an access token, sign out and enter it." }).waitFor();
  await page.click("#sign-out");
  await page.fill("#signin-token", tokenOf("ada"));
  await page.fill("#signin-room", "lobby");
  await page.click("#signin-submit");
  await page.locator('[data-conversation="room:lobby"]').waitFor();
  await writes(page);
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
  await page.locator("#renewal-problem", { hasText: "belongs to another user" }).waitFor();
  assert.equal(await page.isVisible("#renewal"), true);

  await page.fill("#renewal-token", tokenOf("ada", 100_000));
  await page.press("#renewal-token", "Enter");
  await page.locator("#renewal").waitFor({ state: "hidden" });
  await page.locator("#announcer", { hasText: "Access renewed" }).waitFor({ state: "attached" });
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

test("who was removed is told so, cannot write, and is not told who is there", needsServer, async (t) => {
  const grace = await setup.open(t, "/#room=removed&name=Grace");
  await grace.locator('[data-conversation="room:removed"]').waitFor();
  const page = await enter(t, "removed");
  await page.locator("#people-list [data-client]", { hasText: "Grace" }).waitFor();
  await page.fill("#composer-text", "half a thought");
  await endAccess(page);
  assert.equal(await page.textContent("#connection-notice-text"), "You were removed from this server: enough.");
  assert.equal(await page.textContent("#connection-carrier"), "Not connected");
  await page.locator('#composer[data-state="closed"]').waitFor();
  assert.equal(await page.isEditable("#composer-text"), false);
  assert.equal(await page.isDisabled("#composer-send"), true);
  assert.equal(await page.textContent("#composer-state"), "You are not connected.");
  assert.equal(await draft(page), "half a thought");
  assert.equal(await page.isVisible("#people-list"), false);
  assert.equal(await page.textContent("#people-count"), "");
  assert.match(await page.textContent("#people-note"), /^You are not connected/);
  assert.equal(await page.textContent("#conversation-subtitle"), "Not connected");

  await page.click("#sign-in-again");
  await page.click("#signin-submit");
  await page.locator('#composer[data-state="open"]').waitFor();
  await page.locator("#people-list [data-client]", { hasText: "Grace" }).waitFor();
  assert.equal(await draft(page), "half a thought");
});

test("while the connection is away, rooms queue what is written, other messages wait, and nobody is counted", needsServer, async (t) => {
  const alone = await startServer();
  t.after(() => alone.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(`${alone.url}/#room=away&name=Ada`);
  await page.locator('#composer[data-state="open"]').waitFor();
  await alone.kill();
  // As where the network has gone: then the page does not wait for the next ping.
  await page.evaluate(() => dispatchEvent(new Event("offline")));
  await page.locator('#connection-badge[data-state="reconnecting"]').waitFor();
  await page.locator("#composer-state", { hasText: "will be sent once you are back" }).waitFor();
  assert.equal(await page.textContent("#conversation-subtitle"), "Reconnecting…");
  assert.equal(await page.textContent("#people-count"), "");
  await page.fill("#composer-text", "written while away");
  await page.press("#composer-text", "Enter");
  await turnTo(page, "all:");
  await page.locator('#composer[data-state="waiting"]').waitFor();
  await page.fill("#composer-text", "to all");
  await page.press("#composer-text", "Enter");
  assert.equal(await draft(page), "to all", "it stays until it can be sent");
  await turnTo(page, "room:away");
  await alone.start();
  await page.evaluate(() => dispatchEvent(new Event("online")));
  await page.locator('.entry[data-type="message"] .entry-text', { hasText: "written while away" }).waitFor({ timeout: 30_000 });
  await page.locator("#conversation-subtitle", { hasText: "Only you" }).waitFor();
});

test("what a token does not allow is closed, with the reason", needsServer, async (t) => {
  const asking = await startServer({ settings: `${asksForTokens()}\n[[topics]]\npattern = "chat.news"\npublish = "nobody"` });
  t.after(() => asking.stop());
  const signIn = async (name) => {
    const page = await setup.open(t, BLANK, { mayMissServer: true });
    await page.goto(`${asking.url}/#room=lobby&name=${name}`);
    await page.locator("#signin-token-field").waitFor();
    await page.fill("#signin-token", tokenOf(name.toLowerCase()));
    await page.click("#signin-submit");
    await page.locator('#composer[data-state="open"]').waitFor();
    return page;
  };
  const [page] = [await signIn("Ada"), await signIn("Bob")];
  const closed = async (reason) => {
    await page.locator('#composer[data-state="closed"]').waitFor();
    assert.equal(await page.textContent("#composer-state"), reason);
    assert.equal(await page.isEditable("#composer-text"), false);
  };
  await turnTo(page, "all:");
  await closed("Your access does not allow messages to everyone.");
  await turnTo(page, "room:lobby");
  await page.locator('#composer[data-state="open"]').waitFor();
  // Nor can one begin what would be refused.
  await page.locator("#people-list .person", { hasText: "Bob" }).waitFor();
  assert.equal(await page.locator("#people-list button.person").count(), 0);
  await page.fill("#join-room", "news");
  await page.press("#join-room", "Enter");
  await closed("You can read this room, but your access does not allow you to write in it.");
});

test("a token that is no good is told in words for people", needsServer, async (t) => {
  const asking = await startServer({ settings: asksForTokens() });
  t.after(() => asking.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(`${asking.url}/#room=lobby&name=Ada`);
  await page.locator("#signin-token-field").waitFor();
  for (const [token, words] of [["nonsense", "That is not a valid access token."], [tokenOf("ada", -3600), "This access token has expired."]]) {
    await page.fill("#signin-token", token);
    await page.click("#signin-submit");
    await page.locator("#signin-problem", { hasText: words }).waitFor();
  }
});
