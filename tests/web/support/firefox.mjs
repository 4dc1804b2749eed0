// Firefox, controlled by WebDriver BiDi. Playwright supports only its own build of Firefox; Puppeteer supports the
// installed one. This wraps Puppeteer in the part of Playwright's API that the tests of carriers and of many messages
// use.

import puppeteer from "puppeteer-core";

/** @param {string} executablePath */
export async function launchFirefox(executablePath) {
  const browser = await puppeteer.launch({ browser: "firefox", executablePath, headless: true });
  return {
    newContext: async () => contextOf(await browser.createBrowserContext()),
    close: () => browser.close(),
  };
}

function contextOf(context) {
  return {
    newPage: async () => pageOf(await context.newPage()),
    close: () => context.close(),
  };
}

function pageOf(page) {
  return {
    on(type, listener) {
      if (type === "console") page.on(type, (message) => listener(consoleMessage(message)));
      // Puppeteer calls a crash "error".
      else page.on(type === "crash" ? "error" : type, listener);
    },
    goto: (url) => page.goto(url),
    evaluate: (run, argument) => page.evaluate(run, argument),
    waitForFunction: (give, argument, options) => page.waitForFunction(give, options, argument),
    waitForTimeout: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  };
}

/** Translates the type of a warning to Playwright's. */
function consoleMessage(message) {
  return {
    type: () => (message.type() === "warn" ? "warning" : message.type()),
    text: () => message.text(),
    location: () => message.location(),
  };
}
