// Bodies that the server has compressed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateRawSync } from "node:zlib";

import { internals } from "../qws.js";
import { accepted, client, next } from "./support/scripted.js";

const { encodeBody, inflate } = internals;
const bounded = { timeout: 10_000 };
const packed = (body) => Buffer.concat([Buffer.from([3]), deflateRawSync(body)]);
const bytesOf = (message, attachment) => {
  const body = encodeBody(message, attachment);
  return typeof body === "string" ? Buffer.from(body) : Buffer.from(body);
};

test("a body is inflated within its bound", async () => {
  for (const length of [0, 1, 1000, 100_000]) {
    const body = Buffer.alloc(length, "abc");
    assert.deepEqual(Buffer.from(await inflate(packed(body), 100_000)), body);
  }
  const bomb = packed(Buffer.alloc(50_000_000));
  await assert.rejects(inflate(bomb, 100_000), { kind: "protocol", code: 1009 });
  const broken = packed(Buffer.from("x".repeat(1000)));
  broken.fill(0xff, 3);
  await assert.rejects(inflate(broken, 100_000), { kind: "protocol", code: 1002 });
  await assert.rejects(inflate(packed(Buffer.from("x".repeat(1000))).subarray(0, 5), 100_000), { code: 1002 });
});

test("compressed and other bodies keep their order", bounded, async (t) => {
  const { client: it, server } = await client(t, (message, _, connection) =>
    message.type === "handshake" ? accepted(message, connection, { compression: "deflate" }) : null,
  );
  await it.ready;
  assert.deepEqual(server.of("handshake")[0].compression, ["deflate"]);
  const heard = [];
  it.addEventListener("direct", ({ detail: { text, bytes } }) => heard.push([text.length, bytes?.length]));
  const direct = (length) => ({ type: "direct", from: "f", content: "x".repeat(length), timestamp: 1 });
  server.peers[0].together(
    packed(bytesOf(direct(5000))),
    direct(1),
    packed(bytesOf(direct(2000), new Uint8Array(7))),
    direct(2),
  );
  await it.ping();
  assert.deepEqual(heard, [[5000, undefined], [1, undefined], [2000, 7], [2, undefined]]);
});

test("what was not agreed on ends the connection", bounded, async (t) => {
  const { client: it, server } = await client(t, () => null, { compression: false });
  await it.ready;
  assert.equal(server.of("handshake")[0].compression, undefined);
  const closed = next(it, "close");
  server.peers[0].send(packed(bytesOf({ type: "direct", from: "f", content: "x", timestamp: 1 })));
  assert.equal((await closed).code, 1002);
});
