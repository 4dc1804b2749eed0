// The modules of the client: which may import which, and that each page preloads those that it loads.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { posix } from "node:path";
import { test } from "node:test";

const text = (path) => readFileSync(new URL(`../${path}`, import.meta.url), "utf8");

/** From the bottom up: a module may import those that are listed before it, so there are no circles. */
const LAYERS = [
  // Plain functions and small classes.
  ["backoff", "calls", "deferred", "errors", "events", "pace", "text", "timers", "topics"],
  // What is sent and received, and what the application asks for.
  ["broadcasts", "json-text", "frames", "compression", "messages", "options", "settings", "tokens", "values"],
  // Carriers.
  ["carrier", "quic-failures", "race", "websocket", "webtransport"],
  // Subscriptions, without a connection.
  ["terms", "members", "seam", "feed", "entry", "consumer-entry", "routes", "subscription"],
  // One connection.
  ["link", "dial"],
  // The parts of a client.
  ["connection", "requests", "serving", "history", "heartbeat", "bulk", "upgrade", "inbound"],
  ["asking", "catch-up", "roster", "states", "subscriptions", "driver"],
  // What the application sees.
  ["client", "internals"],
];

/** Modules that a module must never import, beyond what the layers forbid. */
const NEVER = {
  feed: ["backoff"],
  inbound: ["link", "dial", "upgrade"],
  race: ["websocket", "webtransport"],
  requests: ["link"],
  asking: ["link", "dial"],
  serving: ["link", "dial"],
  subscriptions: ["link", "dial"],
  webtransport: ["websocket"],
};

/** The paths from which a module imports or exports. */
function importsOf(source) {
  const code = source.replace(/^\s*(\/\*\*|\*|\/\/).*$/gm, "");
  return [...code.matchAll(/^(?:import|export)\s[^;]*?from "([^"]+)";|^import "([^"]+)";/gm)].map(
    ([, from, bare]) => from ?? bare,
  );
}

const order = LAYERS.flat();
const modules = readdirSync(new URL("../qws/", import.meta.url)).map((file) => posix.basename(file, ".js"));

test("every module has its place, and imports only what is below it", () => {
  assert.deepEqual([...modules].sort(), [...order].sort());
  for (const name of modules) {
    const imported = importsOf(text(`qws/${name}.js`)).map((from) => /^\.\/([a-z-]+)\.js$/.exec(from)?.[1] ?? from);
    for (const other of imported) {
      assert.ok(order.includes(other), `${name} imports ${other}, which is no module of the client`);
      assert.ok(order.indexOf(other) < order.indexOf(name), `${name} imports ${other}, which is above it`);
      assert.ok(!NEVER[name]?.includes(other), `${name} imports ${other}, which it must not know`);
    }
  }
});

test("every module opens with its purpose, and is short enough to read at once", () => {
  for (const name of modules) {
    const lines = text(`qws/${name}.js`).split("\n");
    const opening = lines.findIndex((line) => !line.startsWith("// "));
    assert.ok(opening >= 1 && opening <= 6, `${name} opens with ${opening} lines of comment`);
    assert.ok(lines.length <= 430, `${name} has ${lines.length} lines`);
    const long = lines.findIndex((line) => line.length > 120);
    assert.equal(long, -1, `${name}:${long + 1} is longer than 120 columns`);
  }
});

test("only qws.js imports the modules from outside", () => {
  const folders = ["", "chat/", "dashboard/", "ui/", "webrtc/"];
  const files = folders.flatMap((folder) =>
    readdirSync(new URL(`../${folder}`, import.meta.url))
      .filter((file) => file.endsWith(".js"))
      .map((file) => folder + file),
  );
  const outside = files.filter(
    (file) => file !== "qws.js" && importsOf(text(file)).some((from) => from.includes("/qws/")),
  );
  assert.deepEqual(outside, []);
});

/** All modules that a module loads, in the order in which a browser meets them. */
function loadedBy(entry) {
  const found = [entry];
  for (const path of found) {
    for (const from of importsOf(text(path))) {
      const other = posix.join(posix.dirname(path), from);
      if (!found.includes(other)) found.push(other);
    }
  }
  return found.slice(1);
}

for (const page of ["index.html", "dashboard.html", "webrtc.html"]) {
  test(`${page} preloads the modules that it loads, and no others`, () => {
    const html = text(page);
    const [, entry] = /<script type="module" src="\.\/([^"]+)">/.exec(html);
    const preloaded = [...html.matchAll(/<link rel="modulepreload" href="\.\/([^"]+)">/g)].map(([, href]) => href);
    const links = loadedBy(entry)
      .map((path) => `<link rel="modulepreload" href="./${path}">`)
      .join("\n");
    assert.deepEqual(preloaded, loadedBy(entry), `the head of ${page} has to have:\n${links}`);
  });
}
