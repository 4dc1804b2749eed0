// A browser, and pages whose every complaint is kept.

import assert from "node:assert/strict";
import { after, before } from "node:test";

import { chromium } from "playwright-core";

import { launchFirefox } from "./firefox.mjs";
import { needsServer, startServer } from "./server.mjs";

const flags = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync";

/** Which browser the tests run in: "chromium", or "firefox" for those of carriers and of many messages. */
export const engine = process.env.QWS_BROWSER ?? "chromium";

function launch(args) {
  if (engine === "firefox") return launchFirefox(process.env.QWS_FIREFOX ?? "/usr/bin/firefox-esr");
  const executablePath = process.env.QWS_CHROMIUM ?? "/usr/bin/chromium";
  return chromium.launch({ executablePath, headless: true, args: [...flags.split(" "), ...args] });
}

/** A page without a program of its own. Not one that is made up here: that would be of no network, and be kept from the server's. */
export const BLANK = "/vendor/README.txt";

/** What a page says by itself where a server is not there: not an error of the page. */
const OF_THE_NETWORK =
  /net::ERR_|WebSocket connection to .* failed|Failed to establish a connection|can.t establish a connection|connection to .* was interrupted/;

/**
 * A server and a browser for the tests of one file, and what opens pages of it.
 *
 * @param {{ settings?: string, args?: string[] }} [how]
 */
export function withBrowser({ settings, args = [] } = {}) {
  const made = { server: null, browser: null };
  before(async () => {
    if (needsServer.skip) return;
    made.server = await startServer({ settings });
    made.browser = await launch(args);
  });
  after(async () => {
    await made.browser?.close();
    await made.server?.stop();
  });
  return {
    get server() {
      return made.server;
    },

    /** A page in a profile of its own, closed with the test, which fails where the page has complained. */
    async open(t, path, { mayMissServer = false, mayBeRefused = false, host = "127.0.0.1", ...options } = {}) {
      const context = await made.browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
      const page = await context.newPage();
      const complaints = [];
      page.on("crash", () => {
        complaints.push("the page has crashed");
        // Whoever waits for something in it need not wait longer.
        context.close().catch(() => {});
      });
      page.on("pageerror", (error) => complaints.push(String(error.stack ?? error)));
      page.on("console", (message) => {
        if (!["error", "warning"].includes(message.type())) return;
        const text = `${message.text()} (${message.location().url})`;
        // Of a text that is looked at as a page, the browser wants an icon.
        if (text.includes("/favicon.ico")) return;
        if (mayMissServer && OF_THE_NETWORK.test(text)) return;
        if (mayBeRefused && text.includes("status of 401")) return;
        complaints.push(text);
      });
      t.after(async () => {
        await context.close();
        assert.deepEqual(complaints, [], `what ${path} had to complain about`);
      });
      await page.goto(made.server.url.replace("127.0.0.1", host) + path);
      return page;
    },
  };
}

/** Waits until a page's function gives something true, and gives that. */
export async function until(page, give, argument, timeout = 15_000) {
  const handle = await page.waitForFunction(give, argument, { timeout, polling: 50 });
  return handle.jsonValue();
}
