// Opens pages in a browser, and fails a test if its page reports an error or warning.

import assert from "node:assert/strict";
import { after, before } from "node:test";

import { chromium } from "playwright-core";

import { launchFirefox } from "./firefox.mjs";
import { needsServer, startServer } from "./server.mjs";

const flags =
  "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync";

/** The browser of the tests: "chromium", or "firefox" for the tests of carriers and of many messages. */
export const engine = process.env.QWS_BROWSER ?? "chromium";

function launch(args) {
  if (engine === "firefox") return launchFirefox(process.env.QWS_FIREFOX ?? "/usr/bin/firefox-esr");
  const executablePath = process.env.QWS_CHROMIUM ?? "/usr/bin/chromium";
  return chromium.launch({ executablePath, headless: true, args: [...flags.split(" "), ...args] });
}

/** A page without scripts. Served by the server, because a page without an origin cannot connect to it. */
export const BLANK = "/vendor/README.txt";

/** Messages of the browser about an unreachable server, which are not errors of the page. */
const OF_THE_NETWORK = new RegExp(
  [
    "net::ERR_",
    "WebSocket connection to .* failed",
    "Failed to establish a connection",
    "can.t establish a connection",
    "connection to .* was interrupted",
  ].join("|"),
);

/**
 * A server and a browser for the tests of one file, and a function that opens its pages.
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

    /** A page in its own profile, closed with the test. The test fails if the page has reported an error or warning. */
    async open(t, path, { mayMissServer = false, mayBeRefused = false, host = "127.0.0.1", ...options } = {}) {
      const context = await made.browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
      const page = await context.newPage();
      const complaints = [];
      page.on("crash", () => {
        complaints.push("the page crashed");
        // So that nothing waits for the page any longer.
        context.close().catch(() => {});
      });
      page.on("pageerror", (error) => complaints.push(String(error.stack ?? error)));
      page.on("console", (message) => {
        if (!["error", "warning"].includes(message.type())) return;
        const text = `${message.text()} (${message.location().url})`;
        // The browser requests an icon for a plain text as well.
        if (text.includes("/favicon.ico")) return;
        if (mayMissServer && OF_THE_NETWORK.test(text)) return;
        if (mayBeRefused && text.includes("status of 401")) return;
        complaints.push(text);
      });
      t.after(async () => {
        await context.close();
        assert.deepEqual(complaints, [], `errors and warnings of ${path}`);
      });
      await page.goto(made.server.url.replace("127.0.0.1", host) + path);
      return page;
    },
  };
}

/** Waits until a function in a page returns something true, and returns that. */
export async function until(page, give, argument, timeout = 15_000) {
  const handle = await page.waitForFunction(give, argument, { timeout, polling: 50 });
  return handle.jsonValue();
}
