// The chat page, with a second page or the chat client for terminals.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test } from "node:test";

import { BLANK, until, withBrowser } from "./support/browser.mjs";
import { needsServer, startServer } from "./support/server.mjs";
import { asksForTokens, tokenOf } from "./support/tokens.mjs";

const setup = withBrowser();
const chat = process.env.QWS_CHAT;
const needsChat = { ...needsServer, skip: needsServer.skip || (!chat && "set QWS_CHAT to the example chat_client") };

/** Opens a page and waits until it has joined the room. */
async function enter(t, name, room, options) {
  const page = await setup.open(t, `/#room=${room}&name=${name}`, options);
  await page.locator(`[data-conversation="room:${room}"]`).waitFor();
  await page.locator('#connection-badge[data-state="open"]').waitFor();
  return page;
}

async function say(page, text) {
  await page.fill("#composer-text", text);
  await page.press("#composer-text", "Enter");
}

/** Waits for an entry in the shown conversation. */
const hears = (page, text, from) =>
  page
    .locator(".entry", { has: page.locator(".entry-text", { hasText: text }), hasText: from })
    .first()
    .waitFor();

/** The chat client for terminals, controlled through its pipes. */
function terminal(t, name) {
  const child = spawn(chat, ["--server", `127.0.0.1:${setup.server.port}`, "--ca", "certs/ca.pem", "--name", name], {
    cwd: setup.server.folder,
    stdio: ["pipe", "pipe", "pipe"],
  });
  let shown = "";
  const waiting = [];
  const look = (chunk) => {
    shown += chunk;
    for (const check of [...waiting]) check();
  };
  child.stdout.on("data", look);
  child.stderr.on("data", look);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  t.after(async () => {
    child.kill();
    await ended;
  });
  return {
    type: (line) => child.stdin.write(`${line}\n`),
    /** Resolves once the text was printed. */
    shows: (text) =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`the terminal never showed ${text}:\n${shown}`)), 10_000);
        const check = () => {
          if (!shown.includes(text)) return;
          clearTimeout(timer);
          waiting.splice(waiting.indexOf(check), 1);
          resolve();
        };
        waiting.push(check);
        check();
      }),
  };
}

test("two pages in a room see each other, over WebTransport", needsServer, async (t) => {
  const [ada, bob] = [await enter(t, "Ada", "lobby"), await enter(t, "Bob", "lobby")];
  for (const page of [ada, bob])
    assert.equal(await page.getAttribute("#connection-badge", "data-carrier"), "webtransport");
  await ada.locator("#people-list [data-client]", { hasText: "Bob" }).waitFor();
  await say(ada, "Hello, Bob");
  await hears(bob, "Hello, Bob", "Ada");
  await say(bob, "Hello, <b>Ada</b>");
  await hears(ada, "Hello, <b>Ada</b>", "Bob");
  assert.equal(await ada.locator("#log-entries b").count(), 0, "markup is shown as text");
});

test("a page that joins later sees the earlier messages", needsServer, async (t) => {
  const ada = await enter(t, "Ada", "history");
  await say(ada, "early words");
  await hears(ada, "early words", "Ada");
  await hears(await enter(t, "Eve", "history"), "early words", "Ada");
});

test("a terminal client and a page talk to each other", needsChat, async (t) => {
  const page = await enter(t, "Ada", "mixed");
  const native = terminal(t, "Tom");
  await native.shows("Connected to server");
  native.type("/join mixed");
  await page.locator("#people-list [data-client]", { hasText: "Tom" }).waitFor();
  native.type("hello from a terminal");
  await hears(page, "hello from a terminal", "Tom");
  await say(page, "hello from a page");
  await native.shows("hello from a page");
});

test("pages continue after a server restart", needsServer, async (t) => {
  const [ada, bob] = [
    await enter(t, "Ada", "again", { mayMissServer: true }),
    await enter(t, "Bob", "again", { mayMissServer: true }),
  ];
  await setup.server.kill();
  for (const page of [ada, bob]) await page.evaluate(() => dispatchEvent(new Event("online")));
  await ada.locator('#connection-badge[data-state="reconnecting"]').waitFor();
  await setup.server.start();
  for (const page of [ada, bob])
    await page.locator('#connection-badge[data-state="open"]').waitFor({ timeout: 30_000 });
  await say(ada, "are you there?");
  await hears(bob, "are you there?", "Ada");
});

test("without a name in the link, the page asks for one", needsServer, async (t) => {
  const page = await setup.open(t, "/");
  await page.fill("#signin-name", "Zoe");
  await page.fill("#signin-room", "lobby");
  await page.click("#signin-submit");
  await until(page, () => document.querySelector("#connection-badge")?.dataset.state === "open");
  await say(page, "here I am");
  await hears(page, "here I am", "Zoe");
});

test("signing out leaves nothing of the user in the browser", needsServer, async (t) => {
  const asking = await startServer({ settings: asksForTokens() });
  t.after(() => asking.stop());

  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(`${asking.url}/#room=lobby&name=Ada`);
  await page.locator("#signin-token-field").waitFor();
  await page.fill("#signin-token", tokenOf("ada"));
  await page.click("#signin-submit");
  await page.locator('[data-conversation="room:lobby"]').waitFor();
  assert.equal(await page.inputValue("#signin-token"), "");
  await page.click("#sign-out");
  await page.locator("#signin-form").waitFor();
  assert.equal(await page.inputValue("#signin-token"), "");
  await page.reload();
  const kept = await page.evaluate(
    () => JSON.stringify(sessionStorage) + JSON.stringify({ ...localStorage, "qws.name": "" }),
  );
  assert.doesNotMatch(kept, /Ada|ey[JK]/);
});

test("an unreachable server is reported from the first attempt on", needsServer, async (t) => {
  const alone = await startServer();
  const page = await setup.open(t, "/", { mayMissServer: true });
  await page.goto(alone.url);
  await page.locator("#signin-form").waitFor();
  await alone.stop();
  await page.fill("#signin-name", "Ada");
  await page.click("#signin-submit");
  await page.locator("#signin-problem", { hasText: "cannot be reached" }).waitFor();
  await page.click("#signin-cancel");
  assert.equal(await page.textContent("#signin-problem"), "");
});

test("every loss of the connection and every reconnect is announced", needsServer, async (t) => {
  const alone = await startServer();
  t.after(() => alone.stop());
  const page = await setup.open(t, BLANK, { mayMissServer: true });
  await page.goto(`${alone.url}/#room=lobby&name=Ada`);
  await page.locator('[data-conversation="room:lobby"]').waitFor();
  for (let loss = 0; loss < 2; loss += 1) {
    await alone.kill();
    await page.locator("#announcer", { hasText: "Connection lost" }).waitFor({ state: "attached" });
    await alone.start();
    await page.evaluate(() => dispatchEvent(new Event("online")));
    await page.locator("#announcer", { hasText: "Reconnected." }).waitFor({ state: "attached" });
  }
});

test("the focus stays visible if the window becomes wide while a panel is open", needsServer, async (t) => {
  const page = await setup.open(t, "/#room=wide&name=Ada", { viewport: { width: 390, height: 800 } });
  await page.locator('#connection-badge[data-state="open"]').waitFor();
  await page.click("#show-people");
  await page.locator("#people.open").waitFor();
  await page.setViewportSize({ width: 1280, height: 800 });
  await page.locator("#people.open").waitFor({ state: "detached" });
  assert.equal(await page.evaluate(() => document.activeElement.id), "conversation-title");
});

test("web addresses in a message become links, and nothing else does", needsServer, async (t) => {
  const [ada, bob] = [await enter(t, "Ada", "links"), await enter(t, "Bob", "links")];
  const text =
    'see https://example.com/a?b=<img src=x onerror="document.title=1"> javascript:alert(1) ' +
    "https://bank.example@evil.example/";
  await say(ada, text);
  await hears(bob, "see https://example.com", "Ada");
  const links = bob.locator(".entry-text a");
  assert.equal(await links.count(), 1);
  const { href, target, rel } = await links.evaluate(({ href, target, rel }) => ({ href, target, rel }));
  assert.deepEqual([href, target, rel], ["https://example.com/a?b=", "_blank", "noopener noreferrer nofollow"]);
  assert.equal(await bob.locator(".entry-text").last().textContent(), text);
  assert.equal(await bob.locator(".entry-text img").count(), 0);
});

const title = (page, room) => page.locator("#conversation-title", { hasText: room }).waitFor();

/** Follows a link in the page's tab. */
const follow = (page, hash) => page.evaluate((hash) => location.assign(hash), hash);

test("a room link that is followed in the chat's tab opens that room", needsServer, async (t) => {
  const page = await enter(t, "Ada", "invited-one");
  await follow(page, "#room=invited-two&name=Eve");
  await title(page, "invited-two");
  assert.equal(await page.textContent("#own-name"), "Ada");
  await until(page, () => location.hash === "#room=invited-two");
  // Also the room shown just before: the address names no room while another conversation is shown.
  await page.click('[data-conversation="all:"]');
  await title(page, "Everyone");
  await follow(page, "#room=invited-two");
  await title(page, "invited-two");
  await follow(page, "#room=not%20a%20room");
  await page.locator("#page-problem-text", { hasText: "Use only letters" }).waitFor();
  await title(page, "invited-two");
});

test("a room link fills in the form, and signs in again after a disconnect", needsServer, async (t) => {
  const page = await setup.open(t, "/");
  await page.locator("#signin-form").waitFor();
  await follow(page, "#room=invited-three");
  await until(page, () => document.getElementById("signin-room").value === "invited-three");
  await page.fill("#signin-name", "Ada");
  await page.click("#signin-submit");
  await title(page, "invited-three");
  await setup.server.admin("/api/disconnect", {
    client: await page.textContent("#connection-detail-id"),
    code: 4403,
  });
  await page.locator("#sign-in-again").waitFor();
  await follow(page, "#room=invited-four");
  await title(page, "invited-four");
  await page.locator('#connection-badge[data-state="open"]').waitFor();
});

test("two tabs of one browser become two people with a few keys", needsServer, async (t) => {
  const first = await setup.open(t, "/");
  await first.locator("#signin-form").waitFor();
  await until(first, () => document.activeElement.id === "signin-name" && document.activeElement.value !== "");
  await first.fill("#signin-room", "newcomers");
  await first.press("#signin-room", "Enter");
  await until(first, () => document.activeElement.id === "composer-text");
  const [second] = await Promise.all([first.context().waitForEvent("page"), first.getByTestId("empty-second").click()]);
  const name = await first.textContent("#own-name");
  await until(second, (name) => !["", name].includes(document.getElementById("signin-name")?.value), name);
  await second.press("#signin-name", "Enter");
  await until(second, () => document.activeElement.id === "composer-text");
  assert.equal(await second.locator('[data-conversation="room:newcomers"]').count(), 1);
  await second.keyboard.type("hello from the second tab");
  await second.keyboard.press("Enter");
  await hears(first, "hello from the second tab", await second.textContent("#own-name"));
});

test("the round trip of a cold connection is soon replaced", needsServer, async (t) => {
  const page = await setup.open(t, BLANK);
  // Delays the first ping, as on a slow machine.
  const shown = await page.evaluate(async () => {
    const { connect } = await import("/qws.js");
    const now = performance.now.bind(performance);
    let late = 0;
    performance.now = () => now() + late;
    const client = connect();
    const told = [];
    client.addEventListener("open", () => queueMicrotask(() => (late = 5_000)), { once: true });
    await new Promise((done) => client.addEventListener("rtt", ({ detail }) => told.push(detail) === 4 && done()));
    await client.close();
    return told;
  });
  assert.ok(shown[0] >= 5_000, `${shown}`);
  assert.ok(
    shown.slice(1).every((ms) => ms < 5_000),
    `${shown}`,
  );
});

test("on a phone the badge shows the state in words and can be tapped", needsServer, async (t) => {
  const page = await setup.open(t, "/#room=phone&name=Ada", { viewport: { width: 360, height: 740 } });
  await page.locator('#connection-badge[data-state="open"]').waitFor();
  const badge = page.locator("#connection-badge");
  assert.match(await badge.innerText(), /Online/);
  const { height } = await badge.boundingBox();
  assert.ok(height >= 24, `${height} px high`);
  // The bar fits on one line, whatever the badge says.
  const heights = [];
  for (const width of [414, 390, 375, 360, 320]) {
    await page.setViewportSize({ width, height: 740 });
    for (const words of ["Online", "Retrying", "Offline"]) {
      heights.push(
        await page.evaluate((words) => {
          document.getElementById("connection-carrier-short").textContent = words;
          return [innerWidth, words, document.querySelector(".topbar").offsetHeight];
        }, words),
      );
    }
  }
  assert.deepEqual(
    heights.filter(([, , height]) => height > 60),
    [],
  );
  await badge.click();
  await page.locator("#connection-detail-carrier", { hasText: "WebTransport" }).waitFor();
  await page.keyboard.press("Escape");
  await setup.server.admin("/api/disconnect", { client: await page.textContent("#connection-detail-id"), code: 4403 });
  await page.locator("#connection-badge", { hasText: "Offline" }).waitFor();
  assert.match(await badge.innerText(), /Offline/);
});
