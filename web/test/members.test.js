// Members of topics, their states, and subscriptions that the server makes, against a scripted server.

import assert from "node:assert/strict";
import { test } from "node:test";

import { internals } from "../qws.js";
import { accepted, client, next, subscribed } from "./support/scripted.js";

const { Members } = internals;
const bounded = { timeout: 10_000 };

async function until(condition) {
  const end = performance.now() + 5_000;
  while (!condition()) {
    assert.ok(performance.now() < end, `still waiting for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const ready = (t, answer, options) =>
  client(
    t,
    (message, peer, connection) => {
      const own = answer(message, peer, connection);
      if (own !== undefined) return own;
      if (message.type === "handshake") return accepted(message, connection);
      if (message.type === "subscribe") return subscribed(message, 0);
      return ["state", "unsubscribe"].includes(message.type) ? { type: "ok", re: message.id } : null;
    },
    options,
  );

/** Numbers that look random, and are the same in every run. */
function* numbers(seed) {
  for (let state = seed; ; ) {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    yield state / 0x7fffffff;
  }
}

const byId = (list) => [...list].sort((a, b) => (a.id < b.id ? -1 : 1));

test("members are those of the server, in whatever order pages and news arrive", () => {
  for (let seed = 1; seed <= 300; seed += 1) {
    const random = numbers(seed);
    const draw = (most) => Math.floor(random.next().value * most);
    const server = new Map();
    const news = [];
    let born = 0;
    const step = () => {
      const ids = [...server.keys()];
      const id = ids[draw(ids.length)];
      const what = ids.length === 0 ? 0 : draw(4);
      const add = (member) => server.set(member.id, member) && member;
      if (what === 0) news.push({ type: "join", client: add({ id: `m${(born += 1)}`, name: null }) });
      else if (what === 1) news.push({ type: "leave", client: server.get(id) }) && server.delete(id);
      else if (what === 2) news.push({ type: "state", client: add({ ...server.get(id), state: draw(100) }) });
      else {
        server.delete(id);
        news.push({ type: "return", client: add({ id: `m${(born += 1)}`, name: null }), was: id });
      }
    };
    const members = new Members();
    // Left over from an earlier connection.
    members.page([{ id: "gone", name: null }]);
    for (let at = draw(10); at > 0; at -= 1) step();
    // News before the subscription does not come.
    news.length = 0;
    members.begin();
    const hear = () => news.length > 0 && members.apply(news.shift());
    for (let after = ""; after !== null; ) {
      // A page is taken at the server, and arrives before or behind the news of then.
      for (let at = draw(4); at > 0; at -= 1) draw(2) ? step() : hear();
      const page = byId(server.values()).filter(({ id }) => id > after).slice(0, 2);
      for (let at = draw(4); at > 0; at -= 1) draw(2) ? step() : hear();
      members.page(page);
      after = page.length < 2 ? null : page[1].id;
    }
    if (draw(2)) step();
    members.complete();
    while (news.length > 0) hear();
    assert.deepEqual(byId(members.list), byId(server.values()), `seed ${seed}`);
  }
});

test("a user stays one member while clients of the user come and go", () => {
  const members = new Members();
  members.page([{ id: "a", name: null, user: "ada", clients: 2 }, { id: "b", name: "Guest" }]);
  members.apply({ type: "state", client: { id: "c", name: null, user: "ada", state: 1 } });
  const ada = { clients: 2, id: "c", name: null, user: "ada", state: 1 };
  assert.deepEqual(members.list, [ada, { id: "b", name: "Guest" }]);
  members.apply({ type: "leave", client: { id: "c", name: null, user: "ada" } });
  assert.deepEqual(members.list, [{ id: "b", name: "Guest" }]);
});

test("a client's own state is that of its user, where members are users", () => {
  const members = new Members();
  members.page([{ id: "a", name: null, user: "ada", clients: 2 }, { id: "b", name: "Guest" }]);
  assert.ok(members.setOwn({ id: "c", user: "ada" }, 7) && members.setOwn({ id: "b", user: null }, 8));
  assert.deepEqual(members.list.map(({ state }) => state), [7, 8]);
  assert.ok(!members.setOwn({ id: "d", user: "eve" }, 9));
});

test("members are kept for the application, over pages and reconnects", bounded, async (t) => {
  const there = [{ id: "a", name: "A" }, { id: "b", name: "B" }, { id: "client-1", name: null }];
  const { client: it, server } = await ready(t, ({ type, id, after, topic }) => {
    if (type !== "presence") return undefined;
    const rest = there.filter((member) => after === undefined || member.id > after);
    const clients = rest.slice(0, 2);
    const more = rest.length > 2 ? { next: clients[1].id } : {};
    return { type: "presence", re: id, topic, clients, total: there.length, users: 0, ...more };
  });
  const room = it.subscribe("t", { members: true });
  assert.equal(room.members, null);
  assert.deepEqual((await next(room, "members")).members, there);
  assert.equal(server.of("subscribe")[0].presence, true);
  const events = [];
  for (const type of ["join", "leave", "state", "return"]) room.addEventListener(type, () => events.push(type));
  server.peers[0].together(
    { type: "state", topic: "t", client: { id: "a", name: "A", state: { typing: true } } },
    { type: "join", topic: "t", client: { id: "c", name: "C" } },
    { type: "return", topic: "t", client: { id: "d", name: "B" }, was: "b" },
    { type: "join", topic: "t", client: { id: "client-1", name: null } },
  );
  const { members } = await next(room, "members");
  assert.deepEqual(events, ["state", "join", "return"], "its own are not told");
  assert.deepEqual(members.map(({ id }) => id).sort(), ["a", "c", "client-1", "d"]);
  assert.deepEqual(room.members.find(({ id }) => id === "a").state, { typing: true });
  there.splice(0, 3, { id: "z", name: "Z", away: true });
  server.peers[0].drop();
  assert.deepEqual((await next(room, "members")).members, there);
});

test("the id that this client had before leaves the list, without an event", bounded, async (t) => {
  const all = [{ id: "c-1", name: null }];
  const { client: it, server } = await ready(t, (message, peer, connection) => {
    if (message.type === "handshake") return { ...accepted(message, connection), client_id: `c-${connection}` };
    if (message.type !== "presence") return undefined;
    return { type: "presence", re: message.id, topic: "t", clients: all, total: all.length };
  });
  const room = it.subscribe("t", { members: true, presence: true });
  const events = [];
  room.addEventListener("leave", () => events.push("leave"));
  await room.ready;
  await until(() => room.members?.length === 1);
  all.push({ id: "c-2", name: null });
  server.peers[0].drop();
  await next(room, "resumed");
  await until(() => room.members.length === 2);
  server.peers[1].send({ type: "leave", topic: "t", client: { id: "c-1", name: null } });
  await until(() => room.members.length === 1);
  assert.deepEqual([room.members[0].id, events], ["c-2", []]);
});

test("members that cannot be had are reported", bounded, async (t) => {
  const { client: it } = await ready(t, ({ type, id }) =>
    type === "presence" ? { type: "error", re: id, code: 404, message: "topic: presence is off" } : undefined,
  );
  const room = it.subscribe("t", { members: true });
  const { error } = await next(room, "members");
  assert.deepEqual([error.code, room.members], [404, null]);
});

test("a state goes along with the subscription, and the newest one wins", bounded, async (t) => {
  let hold = [];
  const { client: it, server } = await ready(t, (message, peer) => {
    if (message.type !== "state") return undefined;
    hold.push(() => peer.send({ type: "ok", re: message.id }));
    return "";
  });
  const room = it.subscribe("t", { state: { status: "here" } });
  await room.ready;
  assert.deepEqual(server.of("subscribe")[0].state, { status: "here" });
  const set = [1, 2, 3].map((n) => room.setState({ n }));
  await until(() => server.of("state").length === 1);
  hold.shift()();
  await until(() => server.of("state").length === 2);
  hold.shift()();
  await Promise.all(set);
  assert.deepEqual(server.of("state").map(({ state }) => state), [{ n: 1 }, { n: 3 }]);
  await room.setState({ n: 3 });
  assert.equal(server.of("state").length, 2, "the server has it");
  const removed = room.setState(null);
  await until(() => server.of("state").length === 3);
  assert.equal(server.of("state")[2].state, null);
  server.peers[0].drop();
  await next(room, "resumed");
  assert.equal(server.of("subscribe")[1].state, undefined);
  await until(() => server.of("state").length === 4);
  hold.pop()();
  await removed;
  await assert.rejects(it.subscribe("p.*").setState(1), { kind: "usage" });
  await assert.rejects(room.setState(() => {}), { kind: "usage" });
  await room.unsubscribe();
  await assert.rejects(room.setState(1), { kind: "closed" });
});

test("a state that is refused is not sent again", bounded, async (t) => {
  const { client: it, server } = await ready(t, ({ type, id, state }) =>
    type === "state" && state === "bad" ? { type: "error", re: id, code: 400, message: "state: too long" } : undefined,
  );
  const room = it.subscribe("t");
  await room.ready;
  await room.setState("good");
  await assert.rejects(room.setState("bad"), { kind: "request", code: 400 });
  server.peers[0].drop();
  await next(room, "resumed");
  assert.deepEqual(server.of("subscribe").map(({ state }) => state), [undefined, "good"]);
});

test("numbers of members come in place of names", bounded, async (t) => {
  const { client: it, server } = await ready(t, ({ type, id, counts, topic }) =>
    type === "presence" ? { type: "presence", re: id, topic, clients: [], total: 7, users: counts ? 3 : 0 } : undefined,
  );
  const room = it.subscribe("t", { presence: "counts" });
  await room.ready;
  assert.equal(server.of("subscribe")[0].presence, "counts");
  const told = next(room, "occupancy");
  server.peers[0].send({ type: "occupancy", topic: "t", clients: 7, users: 3 });
  assert.deepEqual(await told, { topic: "t", clients: 7, users: 3 });
  assert.deepEqual(await it.presence("t", { counts: true }), { clients: [], total: 7, users: 3 });
  await assert.rejects(it.subscribe("t", { presence: true }).ready, { code: 409 });
});

const made = (more) => ({ type: "subscribed", epoch: "e", offset: 0, by: "server", ...more });

test("subscriptions of the server come to the application, and resume where they were", bounded, async (t) => {
  const { client: it, server } = await ready(t, (message, peer, connection) => {
    if (message.type !== "handshake") return undefined;
    const subscriptions = connection === 3 ? [] : ["news.ada", "alerts.*"];
    const more = connection === 1 ? {} : { recovered: true };
    const pattern = { type: "subscribed", topic: "alerts.*", by: "server" };
    const announced = [made({ topic: "news.ada", offset: connection, ...more }), pattern];
    peer.together(accepted(message, connection, { subscriptions }), ...announced.slice(0, subscriptions.length));
    return "";
  });
  const got = [];
  it.addEventListener("subscription", ({ detail }) => {
    got.push(detail);
    detail.addEventListener("message", ({ detail: { topic, offset } }) => heard.push([topic, offset]));
    detail.addEventListener("resumed", () => heard.push([detail.topic, "resumed"]));
  });
  const heard = [];
  await until(() => got.length === 2);
  const [news] = got;
  assert.deepEqual(await news.ready, { epoch: "e", offset: 1, recovered: null });
  const message = (topic, offset) => ({ type: "message", topic, offset, content: "x", timestamp: 1 });
  server.peers[0].together(message("news.ada", 2), message("alerts.fire", 9));
  await until(() => heard.length === 2);
  server.peers[0].drop();
  await next(news, "resumed");
  server.peers[1].send(message("news.ada", 3));
  await until(() => heard.length === 4);
  assert.deepEqual(heard, [["news.ada", 2], ["alerts.fire", 9], ["news.ada", "resumed"], ["news.ada", 3]]);
  const positions = server.of("handshake").map(({ since }) => since);
  assert.deepEqual(positions, [undefined, { "news.ada": { epoch: "e", offset: 2 } }]);
  assert.deepEqual(server.of("subscribe"), []);
  const ended = next(news, "end");
  server.peers[1].drop();
  assert.equal((await ended).code, 403, "the server makes it no longer");
});

test("an application's own subscription takes the place of the server's", bounded, async (t) => {
  const { client: it, server } = await ready(t, (message, peer, connection) => {
    if (message.type !== "handshake") return undefined;
    peer.together(accepted(message, connection, { subscriptions: ["news.ada"] }), made({ topic: "news.ada" }));
    return "";
  });
  it.addEventListener("subscription", () => assert.fail("it has asked for it"));
  const news = it.subscribe("news.ada", { recent: 5, presence: true });
  await news.ready;
  const shown = server.heard.filter(({ type }) => /subscribe/.test(type)).map(({ id: _id, ...rest }) => rest);
  assert.deepEqual(shown, [
    { type: "unsubscribe", topic: "news.ada" },
    { type: "subscribe", topic: "news.ada", presence: true, recent: 5 },
  ]);
});

test("a subscription of the server is shared, and can be declined for good", bounded, async (t) => {
  const { client: it, server } = await ready(t, (message, peer, connection) => {
    if (message.type !== "handshake") return undefined;
    peer.together(accepted(message, connection, { subscriptions: ["news.ada"] }), made({ topic: "news.ada" }));
    return "";
  });
  const news = await next(it, "subscription");
  await news.ready;
  await news.unsubscribe();
  server.peers[0].drop();
  it.addEventListener("subscription", () => assert.fail("it is declined"));
  await until(() => server.of("unsubscribe").length === 2);
  await it.ping();
  assert.deepEqual(server.of("subscribe"), []);
  const again = it.subscribe("news.ada");
  await again.ready;
  assert.equal(server.of("subscribe").length, 1);
});

test("an operator begins and ends a subscription", bounded, async (t) => {
  const { client: it, server } = await ready(t, () => undefined);
  await it.ready;
  const begun = next(it, "subscription");
  server.peers[0].send(made({ topic: "ops", offset: 3 }));
  const ops = await begun;
  const shared = it.subscribe("ops");
  await shared.ready;
  assert.deepEqual(server.of("subscribe"), [], "what the server sends already is shared");
  const ended = next(ops, "end");
  server.peers[0].send({ type: "unsubscribed", topic: "ops", code: 403, reason: "by the operator" });
  assert.equal((await ended).code, 403);
});
