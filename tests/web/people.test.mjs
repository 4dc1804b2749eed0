// The people of the chat: who types and who is away, users with several devices, those who come back, and what the user
// can do with a person.

import assert from "node:assert/strict";
import { test } from "node:test";

import { WebSocket } from "ws";

import { connect } from "../../web/qws.js";
import { BLANK, until, withBrowser } from "./support/browser.mjs";
import { needsServer, startServer } from "./support/server.mjs";
import { asksForTokens, tokenOf } from "./support/tokens.mjs";

const setup = withBrowser();

/** Opens a page and waits until it has joined the room. */
async function enter(t, name, room) {
  const page = await setup.open(t, `/#room=${room}&name=${name}`);
  await joined(page, room);
  return page;
}

async function joined(page, room) {
  await page.locator(`[data-conversation="room:${room}"]`).waitFor();
  await page.locator('#connection-badge[data-state="open"]').waitFor();
}

/** A client in Node that has joined a room. */
async function member(t, server, name, room, options = {}) {
  const client = connect(server.url, { WebSocket, name, ...options });
  t.after(() => client.close());
  const subscription = client.subscribe(`chat.${room}`, { presence: true });
  subscription.addEventListener("message", () => {});
  await subscription.ready;
  return { client, subscription };
}

const person = (page, name) => page.locator("#people-list .person", { hasText: name });

/** A server that asks for tokens, and a page signed in to it as a user. */
async function signIn(t, server, user, room = "lobby") {
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(`${server.url}/#room=${room}&name=${user}`);
  await page.locator("#signin-token-field").waitFor();
  await page.fill("#signin-token", tokenOf(user.toLowerCase(), 600, { direct: true }));
  await page.click("#signin-submit");
  await joined(page, room);
  return page;
}

test("who types is shown to the others until the message is there", needsServer, async (t) => {
  const [ada, bob] = [await enter(t, "Ada", "typing"), await enter(t, "Bob", "typing")];
  await person(bob, "Ada").waitFor();
  await ada.locator("#composer-text").pressSequentially("Hello");
  await bob.locator("#typing", { hasText: "Ada" }).waitFor();
  await bob.locator('#people-list .person[data-typing="true"]', { hasText: "typing…" }).waitFor();
  assert.equal(await ada.textContent("#typing"), "", "nobody is told of themselves");
  await ada.press("#composer-text", "Enter");
  await bob.locator(".entry-text", { hasText: "Hello" }).waitFor();
  await until(bob, () => document.getElementById("typing").textContent === "");
  // An emptied field is no typing either.
  await ada.locator("#composer-text").pressSequentially("x");
  await bob.locator("#typing", { hasText: "Ada" }).waitFor();
  await ada.fill("#composer-text", "");
  await until(bob, () => document.getElementById("typing").textContent === "");
});

test("a page that is not looked at shows its user as away", needsServer, async (t) => {
  const bob = await enter(t, "Bob", "away");
  const ada = await setup.open(t, BLANK);
  await ada.clock.install();
  await ada.goto(`${setup.server.url}/#room=away&name=Ada`);
  await joined(ada, "away");
  await person(bob, "Ada").waitFor();
  const look = (state) =>
    ada.evaluate((state) => {
      Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, state);
  await look("hidden");
  await ada.clock.runFor(16_000);
  await bob.locator('#people-list .person[data-away="true"]', { hasText: "Ada" }).waitFor();
  await look("visible");
  await bob.locator("#people-list .person:not([data-away])", { hasText: "Ada" }).waitFor();
});

test("a user with several devices is one person, and has one conversation", needsServer, async (t) => {
  const server = await startServer({ settings: asksForTokens() });
  t.after(() => server.stop());
  const eve = await signIn(t, server, "Eve");
  const [desk, phone] = [await signIn(t, server, "Ada"), await signIn(t, server, "Ada")];
  await eve.locator('#people-list .person[data-devices="2"]', { hasText: "Ada" }).waitFor();
  assert.equal(await eve.locator("#people-list .person").count(), 2);
  assert.match(await eve.textContent("#conversation-subtitle"), /2 people/);
  assert.equal(await desk.locator("#people-list [data-own]").count(), 1, "the other device is no other person");

  await person(eve, "Ada").click();
  await eve.locator('[data-conversation="direct:user ada"][aria-current="true"]').waitFor();
  await eve.fill("#composer-text", "to both of you");
  await eve.press("#composer-text", "Enter");
  for (const page of [desk, phone]) {
    await page.locator('[data-conversation="direct:user eve"]').click();
    await page.locator(".entry", { hasText: "to both of you" }).waitFor();
  }
  for (const [page, text] of [
    [desk, "from the desk"],
    [phone, "from the phone"],
  ]) {
    await page.fill("#composer-text", text);
    await page.press("#composer-text", "Enter");
    await eve.locator(".entry", { hasText: text }).waitFor();
  }
  assert.equal(await eve.locator('[data-conversation^="direct:"]').count(), 1);

  await phone.click("#sign-out");
  await eve.click('[data-conversation="room:lobby"]');
  await eve.locator('#people-list .person[data-devices="1"]', { hasText: "Ada" }).waitFor();
  assert.equal(await eve.locator('.entry[data-type="presence"]', { hasText: "left" }).count(), 0);
});

test("messages of verified users are named after they have left", needsServer, async (t) => {
  const server = await startServer({ settings: asksForTokens() });
  t.after(() => server.stop());
  const ada = connect(server.url, { WebSocket, token: tokenOf("ada", 600, { name: "Ada Lovelace" }) });
  await ada.publish("chat.lobby", "before you came");
  await ada.close();
  const eve = await signIn(t, server, "Eve");
  const entry = eve.locator(".entry", { hasText: "before you came" });
  await entry.waitFor();
  assert.equal(await entry.locator(".entry-name").textContent(), "Ada Lovelace");
  assert.equal(await entry.locator(".entry-mark").textContent(), "ada");
});

test("a member whose connection breaks comes back without leaving", needsServer, async (t) => {
  const page = await enter(t, "Ada", "return");
  const sockets = [];
  class Breakable extends WebSocket {
    constructor(...how) {
      super(...how);
      sockets.push(this);
    }
  }
  const { client, subscription } = await member(t, setup.server, "Bob", "return", { WebSocket: Breakable });
  await client.direct(await page.textContent("#connection-detail-id"), "hello");
  const first = client.id;
  await page.locator(`[data-conversation="direct:${first}"]`).waitFor();
  const resumed = new Promise((resolve) => subscription.addEventListener("resumed", resolve, { once: true }));
  sockets[0].terminate();
  await resumed;
  assert.notEqual(client.id, first);
  await page.locator(`[data-conversation="direct:${client.id}"]`).waitFor();
  await page.locator(`#people-list [data-client="${client.id}"]`).waitFor();
  assert.equal(await page.locator("#people-list .person").count(), 2);
  // Bob has joined, and done nothing else.
  assert.deepEqual(await page.locator('.entry[data-type="presence"]').allTextContents(), ["\u2068Bob\u2069 joined"]);
  const heard = new Promise((resolve) => client.addEventListener("direct", ({ detail }) => resolve(detail.text)));
  await page.click(`[data-conversation="direct:${client.id}"]`);
  await page.fill("#composer-text", "welcome back");
  await page.press("#composer-text", "Enter");
  assert.equal(await heard, "welcome back");
});

test("the menu of a person opens a conversation, and invites to a call", needsServer, async (t) => {
  const [ada, bob] = [await enter(t, "Ada", "menu"), await enter(t, "Bob", "menu")];
  await person(ada, "Bob").waitFor();
  assert.equal(await ada.getByTestId("person-more").count(), 1, "the user needs no menu for themselves");
  await ada.getByTestId("person-more").click();
  await ada.locator("#person-menu", { hasText: "Online" }).waitFor();
  await ada.keyboard.press("Escape");
  await ada.locator("#person-menu").waitFor({ state: "hidden" });
  await ada.getByTestId("person-more").click();
  await ada.click("#person-message");
  await ada.locator("#conversation-title", { hasText: "Bob" }).waitFor();
  assert.equal(await ada.evaluate(() => document.activeElement.id), "composer-text");

  const [call] = await Promise.all([ada.context().waitForEvent("page"), ada.click("#call")]);
  await call.waitForURL(/\/webrtc#/);
  const room = new URLSearchParams(new URL(call.url()).hash.slice(1)).get("room");
  await bob.locator('[data-conversation^="direct:"]').click();
  const link = bob.locator(".entry-text a", { hasText: "/webrtc#" });
  await link.waitFor();
  assert.equal(new URL(await link.getAttribute("href")).hash, `#room=${room}`);
  assert.match(room, /^call-/);
});
