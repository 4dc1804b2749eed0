// The chat page when access expires or is limited: the warnings, and what is kept after signing in again.

import assert from "node:assert/strict";
import { test } from "node:test";

import { BLANK, until, withBrowser } from "./support/browser.mjs";
import { needsServer, startServer } from "./support/server.mjs";
import { asksForTokens, tokenOf } from "./support/tokens.mjs";

const setup = withBrowser();

/** Opens a page that has joined the rooms and shows the last one. */
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

/** Makes the server close the page's connection for good. */
async function endAccess(page) {
  const client = await page.textContent("#connection-detail-id");
  const { status } = await setup.server.admin("/api/disconnect", { client, code: 4403, reason: "enough" });
  assert.equal(status, 200);
  await page.locator("#sign-in-again").waitFor();
}

async function show(page, conversation) {
  await page.click(`[data-conversation="${conversation}"]`);
  await page.locator(`[data-conversation="${conversation}"][aria-current="true"]`).waitFor();
}

const composerHasFocus = (page) => until(page, () => document.activeElement.id === "composer-text");

const draft = (page) => page.inputValue("#composer-text");

test("unsent texts are kept when the user signs in again", needsServer, async (t) => {
  const page = await enter(t, "draft-one", "draft-two");
  await page.fill("#composer-text", "for the second room");
  await show(page, "room:draft-one");
  await page.fill("#composer-text", "for the first room");
  await show(page, "all:");
  await page.fill("#composer-text", "for everyone");
  await show(page, "room:draft-one");
  await endAccess(page);
  await page.click("#sign-in-again");
  await page.click("#signin-submit");
  await page.locator('[data-conversation="room:draft-one"][aria-current="true"]').waitFor();
  assert.equal(await draft(page), "for the first room");
  await show(page, "room:draft-two");
  assert.equal(await draft(page), "for the second room");
  await show(page, "all:");
  assert.equal(await draft(page), "for everyone");

  // Sent or deleted texts do not come back.
  await page.fill("#composer-text", "");
  await show(page, "room:draft-two");
  await page.press("#composer-text", "Enter");
  await page.locator(".entry-text", { hasText: "for the second room" }).waitFor();
  await endAccess(page);
  await page.click("#sign-in-again");
  await page.click("#signin-submit");
  await page.locator('[data-conversation="room:draft-two"][aria-current="true"]').waitFor();
  assert.equal(await draft(page), "");
  await show(page, "all:");
  assert.equal(await draft(page), "");
  await show(page, "room:draft-one");
  assert.equal(await draft(page), "for the first room");
});

test("unsent texts are not shown to the next user", needsServer, async (t) => {
  const page = await enter(t, "whose");
  const conversations = ["room:whose", "all:"];
  const type = async () => {
    for (const conversation of conversations) {
      await show(page, conversation);
      await page.fill("#composer-text", "a secret");
    }
  };
  const findsNothing = async () => {
    await page.locator('[data-conversation="room:whose"]').waitFor();
    for (const conversation of conversations) {
      await show(page, conversation);
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

test("an anonymous user with few permissions can sign in again with a token", needsServer, async (t) => {
  const open = await startServer({ settings: `${asksForTokens()}\n[auth.anonymous]\nsubscribe = ["other.>"]` });
  t.after(() => open.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(`${open.url}/#room=lobby&name=Ada`);
  const problem = "You are not allowed to join lobby. If you have an access token, sign out and sign in with it.";
  await page.locator("#page-problem", { hasText: problem }).waitFor();
  await page.click("#sign-out");
  await page.fill("#signin-token", tokenOf("ada"));
  await page.fill("#signin-room", "lobby");
  await page.click("#signin-submit");
  await page.locator('[data-conversation="room:lobby"]').waitFor();
  await composerHasFocus(page);
});

test("the page announces that access ends soon, and a new token renews it", needsServer, async (t) => {
  // The warning comes so early that every token is about to expire.
  const asking = await startServer({ settings: asksForTokens("warn_ms = 3_600_000") });
  t.after(() => asking.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(`${asking.url}/#room=lobby&name=Ada`);
  await page.locator("#signin-token-field").waitFor();
  await page.fill("#signin-token", tokenOf("ada"));
  await page.click("#signin-submit");
  await page.locator("#renewal").waitFor();
  await page.locator("#announcer", { hasText: "Your access ends" }).waitFor({ state: "attached" });
  assert.match(await page.textContent("#renewal-text"), /^Your access ends (at|on) .*\d/);
  // The focus stays in the message field.
  await composerHasFocus(page);

  await page.fill("#renewal-token", tokenOf("somebody.else"));
  await page.click("#renewal-submit");
  await page.locator("#renewal-problem", { hasText: "belongs to another user" }).waitFor();
  assert.equal(await page.isVisible("#renewal"), true);

  await page.fill("#renewal-token", tokenOf("ada", 100_000));
  await page.press("#renewal-token", "Enter");
  await page.locator("#renewal").waitFor({ state: "hidden" });
  await page.locator("#announcer", { hasText: "Access renewed" }).waitFor({ state: "attached" });
  assert.equal(await page.inputValue("#renewal-token"), "");
  await composerHasFocus(page);
  assert.equal(await page.getAttribute("#connection-badge", "data-state"), "open");
});

test("the renewal notice is not shown to the next user", needsServer, async (t) => {
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

test("a removed user sees the reason, cannot write, and sees no list of people", needsServer, async (t) => {
  const grace = await setup.open(t, "/#room=removed&name=Grace");
  await grace.locator('[data-conversation="room:removed"]').waitFor();
  const page = await enter(t, "removed");
  await page.locator("#people-list [data-client]", { hasText: "Grace" }).waitFor();
  await page.fill("#composer-text", "half a thought");
  await endAccess(page);
  assert.equal(await page.textContent("#connection-notice-text"), "You were removed from this server: enough.");
  // The badge is drawn in a later frame than the notice.
  await page.locator("#connection-carrier", { hasText: "Not connected" }).waitFor();
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

test("while disconnected, rooms queue messages, other conversations wait", needsServer, async (t) => {
  const alone = await startServer();
  t.after(() => alone.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(`${alone.url}/#room=away&name=Ada`);
  await page.locator('#composer[data-state="open"]').waitFor();
  // The composer of a room is open before the first connection, too.
  await page.locator('#connection-badge[data-state="open"]').waitFor();
  await alone.kill();
  // As if the network was lost, so that the page does not wait for the next ping.
  await page.evaluate(() => dispatchEvent(new Event("offline")));
  await page.locator('#connection-badge[data-state="reconnecting"]').waitFor();
  await page.locator("#composer-state", { hasText: "will be sent once you are back" }).waitFor();
  assert.equal(await page.textContent("#conversation-subtitle"), "Reconnecting…");
  assert.equal(await page.textContent("#people-count"), "");
  await page.fill("#composer-text", "written while away");
  await page.press("#composer-text", "Enter");
  await show(page, "all:");
  await page.locator('#composer[data-state="waiting"]').waitFor();
  await page.fill("#composer-text", "to all");
  await page.press("#composer-text", "Enter");
  assert.equal(await draft(page), "to all", "the text stays until it can be sent");
  const icons = page.locator("#conversation-list .icon use");
  const widths = await icons.evaluateAll((uses) => uses.map((use) => use.getBoundingClientRect().width));
  assert.deepEqual([widths.length, widths.filter((width) => width === 0)], [2, []], "icons do not need the server");
  await show(page, "room:away");
  await alone.start();
  await page.evaluate(() => dispatchEvent(new Event("online")));
  await page
    .locator('.entry[data-type="message"] .entry-text', { hasText: "written while away" })
    .waitFor({ timeout: 30_000 });
  await page.locator("#conversation-subtitle", { hasText: "Only you" }).waitFor();
});

test("a conversation in which the token does not allow writing is closed, with the reason", needsServer, async (t) => {
  const asking = await startServer({
    settings: `${asksForTokens()}\n[[topics]]\npattern = "chat.news"\npublish = "nobody"`,
  });
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
  await show(page, "all:");
  await closed("You are not allowed to send messages to everyone.");
  await show(page, "room:lobby");
  await page.locator('#composer[data-state="open"]').waitFor();
  // Direct messages, which would be refused, cannot be started.
  await page.locator("#people-list .person", { hasText: "Bob" }).waitFor();
  assert.equal(await page.locator("#people-list button.person").count(), 0);
  await page.fill("#join-room", "news");
  await page.press("#join-room", "Enter");
  await closed("You can read this room but not write in it.");
});

test("a name that belongs to another user is refused", needsServer, async (t) => {
  const asking = await startServer({ settings: asksForTokens() });
  t.after(() => asking.stop());
  const signIn = async (token) => {
    const page = await setup.open(t, BLANK, { mayMissServer: true });
    await page.goto(`${asking.url}/#room=lobby&name=Ada`);
    await page.locator("#signin-token-field").waitFor();
    await page.fill("#signin-token", token);
    await page.click("#signin-submit");
    return page;
  };
  const ada = await signIn(tokenOf("ada", 600, { name: "Ada" }));
  await ada.locator('#composer[data-state="open"]').waitFor();
  const eve = await signIn(tokenOf("eve"));
  await eve.locator("#signin-problem", { hasText: "This name belongs to another user." }).waitFor();
  assert.equal(await eve.evaluate(() => document.activeElement.id), "signin-name");
});

test("a refused token is explained to the user", needsServer, async (t) => {
  const asking = await startServer({ settings: asksForTokens() });
  t.after(() => asking.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(`${asking.url}/#room=lobby&name=Ada`);
  await page.locator("#signin-token-field").waitFor();
  for (const [token, words] of [
    ["nonsense", "That is not a valid access token."],
    [tokenOf("ada", -3600), "This access token has expired."],
  ]) {
    await page.fill("#signin-token", token);
    await page.click("#signin-submit");
    await page.locator("#signin-problem", { hasText: words }).waitFor();
  }
});
