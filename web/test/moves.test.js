// What happens to subscriptions if a connection ends, or the server refuses something, while a client moves to QUIC.

import assert from "node:assert/strict";
import { test } from "node:test";

import WebSocket from "ws";

import { connect } from "../qws.js";
import { fakeQuic } from "./support/quic.js";
import { next, scripted, subscribed } from "./support/scripted.js";

const bounded = { timeout: 10_000 };
const message = (topic, offset) => ({ type: "message", topic, offset, content: String(offset), timestamp: 1 });

/** The answer to a `subscribe` to a pattern, which has no position. */
const accepted = ({ id, topic }) => ({ type: "subscribed", re: id, topic });

let addresses = 0;

/**
 * A client that uses WebSocket, and moves to QUIC on `move()`. `answer` gets the number of the connection: 1 is the
 * old one, 2 the new one. `""` is no answer.
 */
async function moving(t, answer) {
  const server = await scripted(answer);
  const quic = fakeQuic(t, server.url);
  quic.isBlocked = true;
  const it = connect(server.url, {
    WebSocket,
    webTransportUrl: `https://moves${(addresses += 1)}.invalid/wt`,
    certificateHash: false,
    maxBackoffMs: 20,
    retryQuicMs: 100,
  });
  t.after(async () => {
    await it.close();
    await server.stop();
  });
  await it.ready;
  assert.equal(it.carrier, "websocket");
  const move = () => {
    const moved = next(it, "open");
    quic.isBlocked = false;
    return moved;
  };
  return { client: it, server, move };
}

/** Records the offsets of messages, and other events. */
function listen(subscription) {
  const heard = [];
  subscription.addEventListener("message", ({ detail }) => heard.push(detail.offset));
  for (const type of ["resumed", "lost", "end"]) subscription.addEventListener(type, () => heard.push(type));
  return heard;
}

async function until(condition) {
  const end = performance.now() + 5_000;
  while (!condition()) {
    assert.ok(performance.now() < end, `still waiting for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test("a pattern reports a loss if the old connection ends before all of it has come", bounded, async (t) => {
  const answer = (request) => {
    if (request.type === "subscribe") return accepted(request);
    return request.type === "unsubscribe" ? "" : null;
  };
  const { client, server, move } = await moving(t, answer);
  const all = client.subscribe("a.*");
  const heard = listen(all);
  await all.ready;
  await move();
  await until(() => server.of("unsubscribe").length === 1);
  const lost = next(all, "lost");
  server.peers[1].send(message("a.b", 7));
  server.peers[0].drop();
  assert.match((await lost).reason, /pattern/);
  await until(() => heard.at(-1) === 7);
  assert.deepEqual(heard, ["resumed", "lost", 7]);
});

test("a pattern that moves reports one loss if the new connection ends", bounded, async (t) => {
  const answer = (request) => {
    if (request.type === "subscribe") return accepted(request);
    return request.type === "unsubscribe" ? "" : null;
  };
  const { client, server, move } = await moving(t, answer);
  const all = client.subscribe("a.*");
  const heard = listen(all);
  await all.ready;
  await move();
  await until(() => server.of("unsubscribe").length === 1);
  server.peers[1].drop();
  await until(() => server.of("subscribe").length === 3);
  await client.ping();
  assert.deepEqual(heard, ["resumed", "lost"]);
});

test("a pattern that moves waits for the old connection even if that puts the end off", bounded, async (t) => {
  let refusals = 0;
  const answer = (request, peer) => {
    if (request.type === "subscribe") return accepted(request);
    if (request.type !== "unsubscribe") return null;
    refusals += 1;
    if (refusals > 1) return { type: "ok", re: request.id, topic: request.topic };
    peer.send({ type: "error", re: request.id, code: 429, message: "too many", retry_after_ms: 50 });
    peer.send(message("a.b", 7));
    return "";
  };
  const { client, server, move } = await moving(t, answer);
  const all = client.subscribe("a.*");
  const heard = listen(all);
  await all.ready;
  await move();
  await until(() => server.of("unsubscribe").length === 2);
  server.peers[1].send(message("a.b", 8));
  await until(() => heard.at(-1) === 8);
  assert.deepEqual(heard, ["resumed", 7, 8]);
});

test("a pattern that the server ends on the new connection has ended", bounded, async (t) => {
  const answer = (request) => {
    if (request.type === "subscribe") return accepted(request);
    return request.type === "unsubscribe" ? "" : null;
  };
  const { client, server, move } = await moving(t, answer);
  const all = client.subscribe("a.*");
  const ended = next(all, "end");
  await all.ready;
  await move();
  await until(() => server.of("unsubscribe").length === 1);
  server.peers[1].send({ type: "unsubscribed", topic: "a.*", code: 403, reason: "no longer" });
  assert.equal((await ended).code, 403);
});

for (const [mayReplay, name] of [
  [true, "a message comes once if the old connection brings it and ends before the new one has answered"],
  [false, "the same if the client may not read the topic's history"],
]) {
  test(name, bounded, async (t) => {
    let answerLater = () => {};
    const answer = (request, peer, connection) => {
      const { type, id, since } = request;
      if (type !== "subscribe") return null;
      if (connection === 1) return subscribed(request, 10);
      if (since && !mayReplay) return { type: "error", re: id, code: 403, message: "since: no" };
      const reply = subscribed(request, 10, since ? { recovered: true } : {});
      answerLater = () => peer.together(reply, message("t", 11), message("t", 12));
      return "";
    };
    const { client, server, move } = await moving(t, answer);
    const one = client.subscribe("t");
    const heard = listen(one);
    await one.ready;
    await move();
    await until(() => server.of("subscribe").length === (mayReplay ? 2 : 3));
    server.peers[0].send(message("t", 11));
    await until(() => heard.length === 1);
    server.peers[0].drop();
    await server.peers[0].closed;
    await new Promise((resolve) => setTimeout(resolve, 50));
    answerLater();
    await until(() => heard.at(-1) === 12);
    assert.deepEqual(heard, [11, mayReplay ? "resumed" : "lost", 12]);
    assert.deepEqual(one.position, { epoch: "e", offset: 12 });
  });
}
