// The dashboard's pure parts: rates, gaps, order, texts. The page itself is tested in a browser, in tests/web/.

import assert from "node:assert/strict";
import { test } from "node:test";

import { isToken, Refused, tokenFromAddress, tokenProblem } from "../dashboard/api.js";
import { isSendable, mayReturn, reasonFits } from "../dashboard/codes.js";
import * as format from "../dashboard/format.js";
import { held, matching, sorted } from "../dashboard/listing.js";
import { parseExactly, partsOf, senderOf, sizeOf } from "../dashboard/message.js";
import { Samples, WINDOW_SECONDS, extent, hasRestarted, means, ratesBetween, windowOf } from "../dashboard/samples.js";
import { Tap } from "../dashboard/tap.js";

const stats = (uptime_ms, totals = {}, more = {}) => ({ uptime_ms, totals, ...more });

test("rates are the growth of counters by the server's own clock", () => {
  const before = stats(10_000, {
    messages_in: 100,
    messages_out: 1000,
    published: 10,
    broadcasts: 0,
    fanned_out: 40,
    dropped: 3,
  });
  const next = stats(12_000, {
    messages_in: 300,
    messages_out: 1500,
    published: 14,
    broadcasts: 2,
    fanned_out: 64,
    dropped: 3,
  });
  const rates = ratesBetween(before, next);
  assert.equal(rates.messages_in, 100);
  assert.equal(rates.published, 2);
  assert.equal(rates.dropped, 0);
  assert.equal(rates.fan_out, 4, "24 deliveries of 4 messages to topics and 2 to all");
});

test("without publishes there is no fan-out, and answers too close have no rates", () => {
  assert.equal(
    ratesBetween(stats(0), stats(1000, { messages_in: 40, messages_out: 80 })).fan_out,
    null,
    "requests and replies are none",
  );
  assert.equal(format.times(null), format.NONE);
  assert.equal(format.times(12.34), "× 12.3");
  assert.equal(ratesBetween(stats(0), stats(1000)).fan_out, null);
  assert.equal(ratesBetween(stats(0), stats(50, { messages_in: 1 })), null);
});

test("a restart of the server shows by a counter that went back, or by an uptime that did not keep pace", () => {
  const before = stats(60_000, { messages_in: 5 });
  assert.equal(hasRestarted(before, stats(61_000, { messages_in: 5 }), 1000), false);
  assert.equal(hasRestarted(before, stats(61_000, { messages_in: 4 }), 1000), true);
  assert.equal(hasRestarted(before, stats(500, { messages_in: 9 }), 5000), true);
  assert.equal(hasRestarted(before, stats(90_000, { messages_in: 9 }), 120_000), true, "up for 90 s, 120 s later");
});

function sampled(times, paths = ["clients.total", "rates.messages_in"]) {
  const samples = new Samples(paths);
  let view;
  for (const [second, count] of times) {
    const at = { asked: second * 1000, received: second * 1000 + 5, epoch: 0 };
    view = samples.add(stats(second * 1000, { messages_in: count }, { clients: { total: 7 } }), at);
  }
  return { columns: samples.columns(paths), view };
}

test("the first answer has no rates, the second has", () => {
  const { columns, view } = sampled([
    [1, 10],
    [2, 30],
  ]);
  assert.deepEqual(columns[2], [null, 20]);
  assert.equal(view.rates.messages_in, 20);
});

test("a time without answers breaks the lines, and the rate after it is the mean over it", () => {
  const { columns, view } = sampled([
    [1, 0],
    [2, 10],
    [12, 110],
  ]);
  assert.deepEqual(columns[1], [7, 7, null, 7]);
  assert.equal(view.rates.messages_in, 10);
});

test("a restart breaks the lines and resets the rates", () => {
  const samples = new Samples(["rates.messages_in"]);
  const add = (uptime, count, at) =>
    samples.add(stats(uptime, { messages_in: count }), { asked: at, received: at + 5, epoch: 0 });
  add(50_000, 1000, 0);
  assert.equal(add(51_000, 1010, 1000).rates.messages_in, 10);
  assert.equal(add(800, 2, 2000).rates.messages_in, undefined);
  assert.equal(add(1800, 7, 3000).rates.messages_in, 5);
  assert.deepEqual(samples.columns(["rates.messages_in"])[1], [null, 10, null, null, 5]);
});

test("five minutes are kept, and one point before them", () => {
  const { columns } = sampled(Array.from({ length: 400 }, (_, second) => [second, second]));
  assert.equal(columns[0].length, 302);
  assert.equal(columns[0].at(-1) - columns[0][1], 300);
});

test("percentiles without clients are not shown as zero", () => {
  const samples = new Samples(["rtt_ms.p50"]);
  const at = { asked: 0, received: 1, epoch: 0 };
  const view = samples.add(stats(1000, {}, { rtt_ms: { p50: 0, p90: 0, p99: 0, max: 0, clients: 0 } }), at);
  assert.equal(view.rtt_ms.p50, undefined);
  assert.equal(view.rtt_ms.clients, 0);
  assert.deepEqual(samples.columns(["rtt_ms.p50"])[1], [null]);
});

test("extents and means ignore missing values", () => {
  assert.deepEqual(extent([null, 3, 1, null, 2]), { now: 2, lowest: 1, highest: 3 });
  assert.deepEqual(extent([]), { now: null, lowest: null, highest: null });
  assert.deepEqual(
    means(
      [
        [0, 1, 15, 16],
        [1, 3, null, null],
      ],
      15,
    ),
    [
      { from: 15, values: [null] },
      { from: 0, values: [2] },
    ],
  );
});

const client = (id, more = {}) => ({
  id,
  name: null,
  user: null,
  transport: "quic",
  address: "192.0.2.1:5000",
  rtt_ms: null,
  ...more,
});
const ids = (clients) => clients.map(({ id }) => id).join("");

test("clients without a value come last in either direction, and equal ones are in the order of their ids", () => {
  const clients = [client("c", { rtt_ms: 2 }), client("a"), client("d", { rtt_ms: 9 }), client("b", { rtt_ms: 2 })];
  assert.equal(ids(sorted(clients, { field: "rtt_ms", direction: "descending" })), "dbca");
  assert.equal(ids(sorted(clients, { field: "rtt_ms", direction: "ascending" })), "bcda");
});

test("a filter finds every word, anywhere, whatever its case", () => {
  const clients = [
    client("a", { name: "Ada Lovelace", transport: "websocket" }),
    client("b", { name: "Ada", user: "u-17" }),
    client("c"),
  ];
  assert.equal(ids(matching(clients, "  ")), "abc");
  assert.equal(ids(matching(clients, "ADA")), "ab");
  assert.equal(ids(matching(clients, "ada native")), "b");
  assert.equal(ids(matching(clients, "192.0.2 u-1")), "b");
  assert.equal(ids(matching(clients, "null")), "");
});

test("while the order is held no client moves: new ones come last, missing ones stay and are marked", () => {
  const shown = held([client("b"), client("a"), client("c")], [client("a", { rtt_ms: 4 }), client("b"), client("d")]);
  assert.equal(ids(shown), "bacd");
  assert.deepEqual(
    shown.map(({ unlisted }) => unlisted === true),
    [false, false, true, false],
  );
  assert.equal(shown[1].rtt_ms, 4, "the values are updated");
  const back = held(shown, [client("c")]);
  assert.equal(back.find(({ id }) => id === "c").unlisted, undefined);
});

test("a client without a name is named by its user", () => {
  assert.equal(format.nameOf({ name: "Ada", user: "ada@home" }), "Ada");
  assert.equal(format.nameOf({ name: null, user: "ada@home" }), "ada@home");
  assert.equal(format.nameOf({ name: null }), "Unnamed");
});

test("numbers are short, and a missing one is not zero", () => {
  assert.equal(format.count(1234567), "1,234,567");
  assert.equal(format.rate(0.25), "0.25");
  assert.equal(format.rate(12.34), "12.3");
  assert.equal(format.rate(1240.4), "1,240");
  assert.equal(format.rate(1_240_000), "1.24M");
  assert.equal(format.bytes(999), "999 B");
  assert.equal(format.bytes(1000), "0.977 KiB");
  assert.equal(format.bytes(1536), "1.5 KiB");
  assert.equal(format.bytes(3 * 1024 ** 3), "3 GiB");
  assert.equal(format.ms(0.037), "0.04 ms");
  assert.equal(format.ms(1234), "1.23 s");
  assert.equal(format.percent(0), "0 %");
  assert.equal(format.duration(3 * 3600e3 + 61e3), "3 h 1 min");
  assert.equal(format.carrier("constructor"), "constructor");
  for (const none of [null, undefined, Number.NaN]) assert.equal(format.bytes(none), format.NONE);
});

test("the close codes that can be sent, and after which clients reconnect, are those of the protocol", () => {
  for (const code of [1000, 1003, 1007, 1014, 3000, 4403, 4999]) assert.ok(isSendable(code), `${code}`);
  for (const code of [999, 1004, 1006, 1015, 2999, 5000, Number.NaN]) assert.ok(!isSendable(code), `${code}`);
  assert.ok(mayReturn(1012) && !mayReturn(4403));
  assert.ok(reasonFits("ü".repeat(61)) && !reasonFits("ü".repeat(62)));
});

test("the charts begin with the known time, and end up with the whole window", () => {
  assert.deepEqual(windowOf([], 1000), [940, 1000]);
  assert.deepEqual(windowOf([990, 1000], 5000), [940, 1000]);
  assert.deepEqual(windowOf([880, 1000], 5000), [880, 1000]);
  assert.deepEqual(windowOf([100, 1000], 5000), [1000 - WINDOW_SECONDS, 1000]);
});

test("a refused admin token is explained to the user", () => {
  const why = (...refused) => tokenProblem(new Refused(...refused));
  assert.equal(why(401, "Authorization: Bearer is expected"), "That is not a valid admin token.");
  assert.equal(why(429, "too many", 30), "Too many wrong tokens from your address. Try again in 30 seconds.");
  assert.match(why(500, "nonsense"), /status 500/);
  assert.match(tokenProblem(new TypeError("Failed to fetch")), /cannot be reached/);
  for (const status of [401, 403, 429, 500]) assert.doesNotMatch(why(status, "Authorization: x"), /Authorization/);
});

test("a token is removed from the address, and nothing else is", () => {
  const page = (url) => {
    const location = new URL(url);
    const replaced = [];
    const history = { state: null, replaceState: (_state, _title, to) => replaced.push(to) };
    return [tokenFromAddress({ location, history }), replaced];
  };
  assert.deepEqual(page("http://a.example/dashboard#token=abc%2Bdef"), ["abc+def", ["/dashboard"]]);
  assert.deepEqual(page("http://a.example/dashboard?x=1#token="), ["", ["/dashboard?x=1"]]);
  assert.deepEqual(page("http://a.example/dashboard#main"), [null, []]);
  assert.ok(isToken("0123456789abcdef-_/+=") && !isToken("") && !isToken("a b") && !isToken("ä"));
});

test("a message is shown by its text, its value as JSON, and the size of its attachment", () => {
  const base64 = (length) => Buffer.alloc(length).toString("base64");
  const shown = (message) => partsOf(message).map(({ kind, text }) => `${kind}: ${text}`);
  assert.deepEqual(shown({ content: "hi", meta: { event: "greet" } }), ["text: hi", 'meta: meta {"event":"greet"}']);
  assert.deepEqual(shown({ data: base64(2048), encoding: "base64" }), ["bytes: Attachment, 2 KiB"]);
  const both = { data: { a: [1] }, encoding: "json", attachment: base64(10) };
  assert.deepEqual(shown(both), [`json: ${JSON.stringify({ a: [1] }, null, 2)}`, "bytes: Attachment, 10 B"]);
  assert.deepEqual(shown({ data: null, encoding: "json" }), ["json: null"]);
  assert.deepEqual([0, 1, 2, 3, 4, 1000].map((length) => sizeOf(base64(length))), [0, 1, 2, 3, 4, 1000]);
  const [long] = shown({ content: "\u{1f600}".repeat(5000) });
  assert.ok(long.length < 5000 && long.isWellFormed(), "cut, and not within a character");
});

test("numbers that JavaScript cannot hold are shown as they were sent, where the platform can", () => {
  const text = '{"data":[12345678901234567890,1.0,2]}';
  const exact = typeof JSON.rawJSON === "function";
  const { data } = parseExactly(text);
  assert.equal(JSON.stringify(data), exact ? "[12345678901234567890,1.0,2]" : "[12345678901234567000,1,2]");
  assert.equal(parseExactly('{"offset":41}').offset, 41);
});

test("a sender is shown by name and verified user, else by the client", () => {
  assert.equal(senderOf({ from: "1", user: "ada", name: "Ada" }), "Ada (ada)");
  assert.equal(senderOf({ from: "1", user: "ada", name: "ada" }), "ada");
  assert.equal(senderOf({ from: "1", user: "ada" }), "ada");
  assert.equal(senderOf({ from: "1" }), "1");
  assert.equal(senderOf({}), "The server");
});

test("a tap asks for what is behind the newest message, and counts what it does not get", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const asked = [];
  const heard = [];
  const api = { history: (wanted) => new Promise((resolve, reject) => asked.push({ ...wanted, resolve, reject })) };
  const tap = new Tap({ api, heard: (one) => heard.push(one), failed: (error) => error.status === 503 });
  const settled = async (count) => {
    for (let turn = 0; turn < 50 && asked.length < count; turn += 1) {
      await new Promise((resolve) => setImmediate(resolve));
      t.mock.timers.tick(3000);
    }
    return asked.at(-1);
  };
  tap.start("a", { epoch: "e", offset: 4 });
  const message = (offset) => ({ offset });
  (await settled(1)).resolve({ epoch: "e", offset: 6, messages: [message(5), message(6)] });
  const second = await settled(2);
  assert.deepEqual([second.topic, second.epoch, second.offset], ["a", "e", 6]);
  // Nothing came in time; then more than a page.
  second.resolve({ epoch: "e", offset: 6, messages: [] });
  (await settled(3)).resolve({ epoch: "e", offset: 1006, messages: [message(7)] });
  const fourth = await settled(4);
  assert.equal(fourth.offset, 1006, "it skips to the newest");
  fourth.reject(Object.assign(new Error("busy"), { status: 503 }));
  (await settled(5)).resolve({ epoch: "f", offset: 1, messages: [message(1)] });
  const sixth = await settled(6);
  assert.deepEqual([sixth.epoch, sixth.offset], ["f", 1]);
  assert.deepEqual(
    heard.map(({ messages, skipped, restarted }) => [messages.length, skipped, restarted]),
    [
      [2, 0, false],
      [1, 999, false],
      [1, 0, true],
    ],
  );
  sixth.reject(Object.assign(new Error("no"), { status: 403 }));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(tap.isRunning, false);
});
