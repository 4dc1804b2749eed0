// The parts of the client that need no connection.

import assert from "node:assert/strict";
import { test } from "node:test";

import { internals, QwsError } from "../qws.js";

const { Backoff, FrameReader, decodeBody, encodeBody, frameOf, Pace, matches } = internals;

const hex = (/** @type {Uint8Array} */ bytes) => Buffer.from(bytes).toString("hex");
const bytes = (/** @type {string} */ text) => new Uint8Array(Buffer.from(text.replace(/\s/g, ""), "hex"));

/** The bodies of a stream that arrives in these pieces. */
function read(pieces, maxBytes = 1000) {
  const reader = new FrameReader(maxBytes);
  return pieces.flatMap((piece) => [...reader.push(piece)].map((body) => hex(body)));
}

test("frames are those of the protocol's examples", () => {
  const ping = "000000167b2274797065223a2270696e67222c226964223a377d";
  assert.equal(hex(frameOf(encodeBody({ type: "ping", id: 7 }))), ping);
  const attachment = bytes("de ad be ef");
  const binary = "0000002101000000187b2274797065223a2262696e617279222c226964223a387ddeadbeef";
  assert.equal(hex(frameOf(encodeBody({ type: "binary", id: 8 }, attachment))), binary);
  const { json, bytes: got } = decodeBody(bytes(binary).subarray(4));
  assert.deepEqual([json, got], [{ type: "binary", id: 8 }, attachment]);
});

test("a stream may be cut anywhere", () => {
  const bodies = [1, 2, 3, 4, 5, 300].map((length) => new Uint8Array(length).fill(length));
  const whole = Buffer.concat(bodies.map((body) => frameOf(body)));
  const expected = bodies.map(hex);
  assert.deepEqual(read([whole]), expected);
  assert.deepEqual(read([...whole].map((byte) => Uint8Array.of(byte))), expected, "byte by byte");
  for (let cut = 0; cut <= whole.length; cut += 1) {
    assert.deepEqual(read([whole.subarray(0, cut), whole.subarray(cut)]), expected, `cut at ${cut}`);
  }
  for (const size of [2, 3, 7, 64]) {
    const pieces = [];
    for (let at = 0; at < whole.length; at += size) pieces.push(whole.subarray(at, at + size));
    assert.deepEqual(read(pieces), expected, `pieces of ${size}`);
  }
});

test("an excessive length is refused before any of the body arrives", () => {
  assert.throws(() => read([bytes("00 00 03 e9")]), { kind: "protocol", code: 1009 });
  assert.throws(() => read([bytes("ff"), bytes("ff ff ff")]), { code: 1009 });
  assert.throws(() => read([bytes("00 00 00 00")]), { kind: "protocol", code: 1002 });
  assert.deepEqual(read([frameOf(new Uint8Array(1000))]).length, 1, "the limit itself is taken");
});

test("an invalid body is a protocol error", () => {
  const utf8 = (/** @type {string} */ it) => new TextEncoder().encode(it);
  const broken = ["", "x", "[]", "{}", '{"type":1}', "null", '{"type":"a"', '\ufeff{"type":"a"}'];
  for (const body of [...broken, ...broken.map(utf8)]) {
    assert.throws(() => decodeBody(body), { kind: "protocol", code: 1002 }, String(body));
  }
  for (const body of ["01", "01 00 00 00", "01 00 00 00 09 7b7d", "01 ff ff ff ff", "02 28", "7b ff 7d"]) {
    assert.throws(() => decodeBody(bytes(body)), { kind: "protocol", code: 1002 }, body);
  }
  const text = '{"type":"new","x":{"y":[1]}}';
  assert.deepEqual(decodeBody(text), { json: { type: "new", x: { y: [1] } }, text });
});

test("an attachment keeps no other memory alive", () => {
  const { bytes: data } = decodeBody(bytes("01 00000011 7b2274797065223a2262696e617279227d"));
  assert.deepEqual([data?.length, data?.buffer.byteLength], [0, 0]);
  const piece = new Uint8Array(100_000);
  piece.set(encodeBody({ type: "x" }, bytes("01 02")), 50_000);
  const body = piece.subarray(50_000, 50_000 + encodeBody({ type: "x" }, bytes("01 02")).length);
  assert.deepEqual([...(decodeBody(body).bytes ?? [])], [1, 2]);
  assert.equal(decodeBody(body).bytes?.buffer.byteLength, 2);
});

test("every delay is below a ceiling that doubles to its limit", () => {
  const ceilings = (/** @type {number} */ longest, /** @type {number} */ count) => {
    const backoff = new Backoff(longest, () => 1);
    return Array.from({ length: count }, () => backoff.next());
  };
  assert.deepEqual(ceilings(20_000, 8), [500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
  assert.deepEqual(ceilings(700, 3), [500, 700, 700]);
  assert.ok(ceilings(20_000, 2000).every((delay) => delay <= 20_000));
  const low = new Backoff(20_000, () => 0);
  assert.deepEqual([low.next(), low.next()], [0, 0], "full jitter begins at nothing");
});

test("only a connection that lasted resets the count", () => {
  const backoff = new Backoff(20_000, () => 1);
  for (let tries = 0; tries < 3; tries += 1) {
    backoff.next();
    backoff.connectedFor(10);
  }
  assert.equal(backoff.next(), 4000, "let in and lost again is no success");
  backoff.connectedFor(20_000);
  assert.equal(backoff.next(), 500);
});

test("patterns match as the protocol defines", () => {
  const table = [
    ["market.*.eurusd", "market.fx.eurusd", true],
    ["market.>", "market.fx.eurusd", true],
    ["market.>", "market", false],
    ["market.*", "market.fx.eurusd", false],
    ["*.*", "a.b", true],
    ["*", "a.b", false],
    [">", "a", true],
    [">", "a.b.c", true],
    ["*.>", "a", false],
    ["a.b", "a.b", true],
    ["a.b", "a.c", false],
  ];
  for (const [pattern, topic, expected] of table)
    assert.equal(matches(pattern, topic), expected, `${pattern} ${topic}`);
});

test("the window grows with each reply; after refusals requests go at the times that were named", () => {
  const pace = new Pace();
  let open = 0;
  const send = (/** @type {number} */ now) => {
    for (; pace.wait(now, open >= 96) === 0; open += 1) pace.sent();
    return open;
  };
  const reply = (/** @type {() => void} */ outcome) => {
    open -= 1;
    pace.forget();
    outcome();
  };
  assert.equal(send(0), 16);
  for (let replies = 0; replies < 8; replies += 1) reply(() => pace.served());
  assert.equal(send(0), 24);
  // All of them are refused, in any order.
  for (let at = 24; at > 0; at -= 1) reply(() => pace.refused(1000 + at * 100, new QwsError("request", "slow")));
  assert.equal(pace.refusals, 24);
  assert.deepEqual([pace.wait(0, false), send(1099)], [1100, 0]);
  assert.equal(send(1100), 1, "one at its time");
  assert.equal(pace.wait(1100, false), 100);
  assert.equal(send(1350), 3, "and what came late");
  for (let replies = 0; replies < 3; replies += 1) reply(() => pace.served());
  pace.expire(10_000);
  assert.equal(send(10_000), 4, "what was served has opened the window again");
});
