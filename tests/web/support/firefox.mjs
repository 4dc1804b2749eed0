// Firefox, driven by WebDriver BiDi. Playwright drives only a Firefox of its own; Puppeteer drives the one that is installed. What
// the tests of carriers and of many messages need of a browser has the names of Playwright here.

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
      // Puppeteer knows "error" for a crash.
      else page.on(type === "crash" ? "error" : type, listener);
    },
    goto: (url) => page.goto(url),
    evaluate: (run, argument) => page.evaluate(run, argument),
    waitForFunction: (give, argument, options) => page.waitForFunction(give, options, argument),
    waitForTimeout: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  };
}

/** With Playwright's name for a warning. */
function consoleMessage(message) {
  return {
    type: () => (message.type() === "warn" ? "warning" : message.type()),
    text: () => message.text(),
    location: () => message.location(),
  };
}
