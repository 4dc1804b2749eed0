// The pure parts of the chat page and the page for calls. The pages themselves are tested in a browser, in tests/web/.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { Activity, HIDDEN_MS, IDLE_MS, RENEW_MS, SILENCE_MS } from "../chat/activity.js";
import { invite } from "../chat/calls.js";
import { Chat } from "../chat/chat.js";
import { Conversation, MAX_CHARACTERS, MAX_ENTRIES } from "../chat/conversation.js";
import { LASTS_MS, Typists, typingText } from "../chat/typists.js";
import { roundTrip } from "../ui/connection.js";
import { idBefore, People } from "../ui/people.js";
import { Roster } from "../ui/roster.js";
import { endingOf, refusedName, refusedToken } from "../ui/ending.js";
import { suggestName } from "../ui/names.js";
import { nameProblem, roomProblem } from "../ui/signin.js";

const message = (offset, text = `message ${offset}`) => ({ type: "message", time: offset, offset, from: "a", text });

test("a conversation holds a bounded number of entries, and the history has the rest", () => {
  const room = new Conversation("room", "lobby");
  for (let offset = 1; offset <= 3 * MAX_ENTRIES; offset += 1) room.append(message(offset));
  assert.ok(room.entries.length <= MAX_ENTRIES * 1.1, `${room.entries.length} entries`);
  assert.equal(room.entries.at(-1).offset, 3 * MAX_ENTRIES);
  assert.equal(room.hasEarlier, true);
  assert.equal(room.oldest.offset, room.entries[0].offset);
});

test("a conversation holds a bounded number of characters, and always its newest entry", () => {
  const room = new Conversation("room", "lobby");
  const long = "x".repeat(900_000);
  for (let offset = 1; offset <= 40; offset += 1) room.append(message(offset, long));
  const held = room.entries.reduce((sum, { text }) => sum + text.length, 0);
  assert.ok(held <= MAX_CHARACTERS, `${held} characters`);
  room.append(message(41, "y".repeat(2 * MAX_CHARACTERS)));
  assert.deepEqual(
    room.entries.map(({ offset }) => offset),
    [41],
  );
});

test("a round trip is shown in few characters, however long it is", () => {
  assert.deepEqual([0.44, 9.96, 25, 999.4, 999.6, 1234, 12_345].map(roundTrip), [
    "0.4 ms",
    "10.0 ms",
    "25 ms",
    "999 ms",
    "1.0 s",
    "1.2 s",
    "12.3 s",
  ]);
  assert.deepEqual([null, undefined, Number.NaN].map(roundTrip), ["–", "–", "–"]);
});

test("entries without room before the first one are left out, and the page says so", () => {
  const room = new Conversation("room", "lobby");
  for (let offset = 1000; offset < 1000 + MAX_ENTRIES - 2; offset += 1) room.append(message(offset));
  room.prepend([message(997), message(998), message(999)]);
  assert.equal(room.oldest.offset, 998);
  assert.equal(room.isFull, true);
});

test("a gap is filled in its place, page by page", () => {
  const room = new Conversation("room", "lobby");
  const gap = { type: "gap", time: 0, first: 2, last: 5 };
  room.append(message(1));
  room.append(gap);
  room.append(message(6));
  room.fill(gap, [message(2), message(3)], false);
  assert.deepEqual(
    room.entries.map((entry) => entry.offset ?? entry.type),
    [1, 2, 3, "gap", 6],
  );
  room.fill(gap, [message(4), message(5)], true);
  assert.deepEqual(
    room.entries.map((entry) => entry.offset),
    [1, 2, 3, 4, 5, 6],
  );
});

test("members who came and left within a moment share one line, and those who returned or moved have none", () => {
  const room = new Conversation("room", "lobby");
  const [ada, bob, cy] = ["Ada", "Bob", "Cy"].map((name) => ({ key: `name ${name}`, name }));
  room.notePresence(ada, "joined", 1000);
  room.notePresence(bob, "left", 2000);
  assert.deepEqual(room.entries, [{ type: "presence", time: 1000, joined: [ada], left: [bob] }]);
  room.notePresence(bob, "joined", 3000);
  assert.deepEqual(room.entries[0].left, []);
  room.notePresence(cy, "left", 1_000_000);
  room.notePresence(cy, "joined", 1_001_000);
  assert.equal(room.entries.length, 1, "Cy has changed nothing");

  // Another carrier: the new connection is there before the old one goes.
  room.notePresence(cy, "joined", 2_000_000);
  room.notePresence(cy, "left", 2_001_000);
  assert.equal(room.entries.length, 1, "Cy is here as before");
  // Of two members with one name, one stays.
  room.notePresence({ key: "user a", name: "Ada" }, "joined", 3_000_000);
  room.notePresence({ key: "user b", name: "Ada" }, "left", 3_001_000);
  assert.deepEqual(room.entries.at(-1).left, [{ key: "user b", name: "Ada" }]);
});

/** A subscription and a client whose answers about presence come from the test. */
function presence() {
  const subscription = Object.assign(new EventTarget(), { topic: "chat.lobby" });
  const asked = [];
  const client = { presence: () => new Promise((resolve, reject) => asked.push({ resolve, reject })) };
  const tell = (type, member) =>
    subscription.dispatchEvent(Object.assign(new Event(type), { detail: { topic: "chat.lobby", client: member } }));
  return { roster: new Roster(client, subscription), asked, tell, subscription };
}
const ada = { id: "1", name: "Ada" };
const bob = { id: "2", name: "Bob" };
const ids = (roster) => [...roster.members.keys()].sort();

test("a member who comes or leaves while the list is in flight is neither lost nor a ghost", async () => {
  const { roster, asked, tell } = presence();
  const refreshed = roster.refresh();
  tell("leave", ada);
  tell("join", bob);
  asked[0].resolve({ clients: [ada], total: 1 });
  await refreshed;
  assert.deepEqual(ids(roster), ["2"]);
  assert.equal(roster.total, 1);
});

test("members beyond the end of the server's list are counted", async () => {
  const { roster, asked, tell } = presence();
  const refreshed = roster.refresh();
  asked[0].resolve({ clients: [ada], total: 1500 });
  await refreshed;
  tell("join", bob);
  assert.equal(roster.total, 1501);
  tell("leave", { id: "9", name: "Nobody on the list" });
  assert.equal(roster.total, 1500);
  tell("leave", bob);
  assert.equal(roster.total, 1499);
});

test("a list that is requested while another is in flight is requested once more", async () => {
  const { roster, asked } = presence();
  const refreshed = roster.refresh();
  roster.refresh();
  roster.refresh();
  asked[0].resolve({ clients: [ada], total: 1 });
  while (asked.length < 2) await new Promise((resolve) => setImmediate(resolve));
  asked[1].resolve({ clients: [bob], total: 1 });
  await refreshed;
  assert.deepEqual(ids(roster), ["2"]);
  assert.equal(asked.length, 2);
});

test("a list that cannot be loaded leaves the present one, and has the reason", async () => {
  const { roster, asked } = presence();
  let refreshed = roster.refresh();
  asked[0].resolve({ clients: [ada], total: 1 });
  await refreshed;
  refreshed = roster.refresh();
  asked[1].reject(Object.assign(new Error("not allowed"), { code: 403 }));
  await refreshed;
  assert.deepEqual(ids(roster), ["1"]);
  assert.equal(roster.error.code, 403);
});

test("without presence, or without the right to see it, no member is counted", async () => {
  for (const code of [403, 404]) {
    const { roster, asked } = presence();
    assert.equal(roster.isKnown, false);
    let refreshed = roster.refresh();
    asked[0].resolve({ clients: [ada], total: 1 });
    await refreshed;
    assert.equal(roster.isKnown, true);
    refreshed = roster.refresh();
    asked[1].reject(Object.assign(new Error("no"), { code }));
    await refreshed;
    assert.equal(roster.isKnown, false);
  }
});

globalThis.addEventListener ??= () => {};

const id = (number) => `${String(number).padStart(8, "0")}-0000-4000-8000-000000000000`;

test("names that could be taken for another's have a mark that tells them apart", () => {
  const people = new People("test");
  people.learnOwn(id(1), "Me");
  for (const [number, name, user] of [
    [2, "Ada", "ada@home"],
    [3, "Ada"],
    [4, "Server"],
    [5, "Someone (00000009)"],
    [6, "Me"],
    [7, "bob", "bob"],
  ]) {
    people.learn({ id: id(number), name, user });
  }
  assert.equal(people.mark(id(1)), "");
  assert.equal(people.mark(id(2)), "ada@home");
  assert.equal(people.mark(id(3)), "");
  assert.equal(people.mark(id(3), true), "00000003");
  assert.equal(people.mark(id(4)), "00000004");
  assert.equal(people.mark(id(5)), "00000005");
  assert.equal(people.mark(id(6)), "00000006");
  assert.equal(people.mark(id(7)), "");
  assert.equal(people.mark(id(9)), "", "the name has its id in it");
  assert.equal(people.mark(undefined), "");
});

test("strangers exhaust neither the look-ups of names nor the memory", async () => {
  let now = 0;
  const people = new People("test", () => now);
  let asked = 0;
  const client = {
    listClients: async () => {
      asked += 1;
      return { clients: [] };
    },
  };
  for (let number = 1; number <= 400; number += 1) await people.lookUp(client, id(number));
  assert.ok(asked > 0 && asked <= 40, `${asked} look-ups at once`);
  const before = asked;
  now += 10_000;
  await people.lookUp(client, id(500));
  assert.equal(asked, before + 1);
  await people.lookUp(client, id(500));
  assert.equal(asked, before + 1, "a client that was just looked up is not looked up again");

  for (let number = 1; number <= 20_000; number += 1)
    people.learn({ id: id(number), name: null, user: `user ${number}` });
  assert.ok(people.size <= 5000, `${people.size} are known`);
});

/** A chat with a client whose messages and log come from the test. */
async function chatIn(room) {
  const client = Object.assign(new EventTarget(), {
    id: id(1),
    name: "Me",
    state: "open",
    limits: {},
    epoch: "old",
    log: [],
    tried: [],
    async history(topic, { since, limit, reverse }) {
      const is = ({ offset }) =>
        !since || since.epoch !== client.epoch || (reverse ? offset < since.offset : offset > since.offset);
      const found = reverse ? client.log.filter(is).toReversed() : client.log.filter(is);
      return { epoch: client.epoch, messages: found.slice(0, limit), more: found.length > limit };
    },
    subscribe(topic) {
      const position = { epoch: client.epoch, offset: client.log.length };
      client.subscription = Object.assign(new EventTarget(), { topic, position, ready: Promise.resolve(position) });
      return client.subscription;
    },
    presence: async () => ({ clients: [], total: 0 }),
    listClients: async () => ({ clients: [], total: 0 }),
    publish: async (topic, text, { key }) => void client.tried.push(key),
    direct: async () => {},
  });
  const tell = (type, detail, to = client.subscription) => to.dispatchEvent(Object.assign(new Event(type), { detail }));
  const says = (offset, content) => {
    const message = { topic: `chat.${room}`, offset, from: id(2), content, timestamp: 1000 + offset };
    client.log.push(message);
    client.subscription.position = { epoch: client.epoch, offset };
    tell("message", message);
  };
  const chat = new Chat(client, new People("test"));
  return { chat, client, tell, says };
}

test("two epochs of a room's log are not mixed", async () => {
  const { chat, client, tell, says } = await chatIn("lobby");
  client.log = Array.from({ length: 200 }, (_, at) => ({
    offset: at + 1,
    from: id(2),
    content: `old ${at + 1}`,
    timestamp: at,
  }));
  await chat.join("lobby");
  const room = chat.conversations.get("room:lobby");
  tell("gap", { first: 201, last: 210 });
  const gap = room.entries.at(-1);
  assert.equal(room.hasEarlier, true);

  client.epoch = "new";
  client.log = [];
  client.subscription.position = { epoch: "new", offset: 0 };
  tell("lost", { epoch: "new", offset: 0, recovered: false });
  for (const offset of [1, 2, 3]) says(offset, `new ${offset}`);
  assert.equal(room.hasEarlier, false);
  assert.equal(gap.state, "gone");
  room.hasEarlier = true;
  await chat.loadEarlier(room);
  await chat.fillGap(room, gap);
  const texts = room.entries.filter(({ type }) => type === "message").map(({ text }) => text);
  assert.deepEqual(texts.slice(-4), ["old 200", "new 1", "new 2", "new 3"]);
  assert.equal(new Set(texts).size, texts.length, "nothing is shown twice");
  assert.equal(room.hasEarlier, false);
});

test("strangers displace no conversation that was answered, and use only their part of the memory", async () => {
  const { chat, client, tell } = await chatIn("lobby");
  const writes = (number, content) => tell("direct", { from: id(number), content, timestamp: number }, client);
  writes(10, "from a friend ".repeat(1000));
  await chat.send(chat.conversations.get(`direct:${id(10)}`), "an answer");
  writes(11, "half of an answer waits");
  chat.conversations.get(`direct:${id(11)}`).draft = "I have";
  for (let number = 1000; number < 2000; number += 1) writes(number, "hello");
  for (let number = 3000; number < 3020; number += 1)
    for (let at = 0; at < 10; at += 1) writes(number, "x".repeat(100_000));
  const direct = [...chat.conversations.values()].filter(({ kind }) => kind === "direct");
  assert.ok(direct.length <= 203, `${direct.length} conversations`);
  const held = direct.reduce((sum, { size }) => sum + size, 0);
  assert.ok(held <= 8_000_000, `${held} characters`);
  assert.deepEqual(
    chat.conversations.get(`direct:${id(10)}`).entries.map(({ from }) => from),
    [id(10), id(1)],
  );
  assert.ok(chat.conversations.has(`direct:${id(11)}`));
});

test("a message that may have been sent before a long absence is not repeated automatically", async () => {
  const { chat, client } = await chatIn("lobby");
  await chat.join("lobby");
  const room = chat.conversations.get("room:lobby");
  mock.timers.enable({ apis: ["Date"] });
  try {
    const lost =
      (after) =>
      async (topic, text, { key }) => {
        client.tried.push(key);
        client.state = "reconnecting";
        setImmediate(() => {
          mock.timers.tick(after);
          client.publish = taken;
          client.state = "open";
          client.dispatchEvent(new Event("state"));
        });
        throw Object.assign(new Error("no answer"), { kind: "timeout" });
      };
    const taken = async (topic, text, { key }) => {
      client.tried.push(key);
      return { epoch: client.epoch, offset: 1 };
    };
    client.publish = lost(20_000);
    await chat.send(room, "a short absence");
    assert.equal(client.tried.length, 2);
    assert.equal(client.tried[0], client.tried[1]);
    room.pending = [];

    client.tried = [];
    client.publish = lost(600_000);
    await chat.send(room, "a long absence");
    assert.equal(client.tried.length, 1);
    const [entry] = room.pending;
    assert.equal(entry.state, "failed");
    assert.notEqual(entry.unsureSince, undefined);
    // Repeated by hand it is another message.
    await chat.retry(room, entry);
    assert.equal(client.tried.length, 2);
    assert.notEqual(client.tried[0], client.tried[1]);

    // Messages written without a connection were not sent.
    client.tried = [];
    client.state = "reconnecting";
    client.publish = lost(600_000);
    await chat.send(room, "written offline");
    assert.equal(client.tried.length, 2);
  } finally {
    mock.timers.reset();
  }
});

test("a page of clients after the id before a client's begins with that client", () => {
  assert.equal(idBefore("56f8b2bf-467b-4af4-a7b4-af4cc63adf6d"), "56f8b2bf-467b-4af4-a7b4-af4cc63adf6c");
  assert.equal(idBefore("10000000-0000-0000-0000-000000000000"), "0fffffff-ffff-ffff-ffff-ffffffffffff");
  assert.equal(idBefore("00000000-0000-0000-0000-000000000000"), undefined);
});

test("names and rooms are checked by the protocol's rules", () => {
  for (const good of ["Ada", "x".repeat(64), "😀".repeat(64), "משה", "a b"]) assert.equal(nameProblem(good), "", good);
  for (const bad of ["", "   ", "x".repeat(65), "a\nb", "a\u202eb", "a\u2066b", "a\u2028b", "a\u007fb"]) {
    assert.notEqual(nameProblem(bad), "", JSON.stringify(bad));
  }
  for (const good of ["lobby", "a.b-c_D9", "x".repeat(250)]) assert.equal(roomProblem(good, "chat."), "", good);
  for (const bad of ["", "a b", ".a", "a.", "a..b", "a*", ">", "ä", "x".repeat(251)]) {
    assert.notEqual(roomProblem(bad, "chat."), "", bad);
  }
});

test("the end of a connection is explained to the user", () => {
  assert.equal(endingOf({ code: 4403, reason: "spam" }), "You were removed from this server: spam.");
  assert.equal(endingOf({ code: 4403, reason: "" }), "You were removed from this server.");
  assert.equal(endingOf({ code: 4401, reason: "token: it has expired (exp)" }), "Your access has expired.");
  assert.equal(endingOf({ code: 1002, reason: "what?" }), "The server closed the connection: what? (code 1002).");
  assert.equal(refusedToken("token: it has expired (exp); get a new one"), "This access token has expired.");
  assert.equal(
    refusedToken("token: it is not a JSON Web Token (three parts separated by dots); get a new one"),
    "That is not a valid access token.",
  );
});

test("a refused name is explained to the user", () => {
  const taken = "client_name: this name is another user's; choose another one";
  assert.equal(refusedName(taken), "This name belongs to another user. Choose a different one.");
  const owned = "token: the name in it is another user's, who is connected; get a token with another name";
  assert.equal(refusedName(owned), "The name in your access token belongs to another user.");
  assert.equal(refusedName("closed for today"), "The server refused the connection: closed for today.");
});

test("a suggested name is a good one, and none that another tab has", () => {
  const first = suggestName(new Set(), () => 0);
  assert.equal(nameProblem(first), "");
  const digits = [0, 0, 0.5, 0.5];
  assert.notEqual(
    suggestName(new Set([first]), () => digits.shift() ?? 0),
    first,
  );
  assert.equal(
    suggestName(new Set([first]), () => 0),
    first,
    "there is one in any case",
  );
});

test("a known user without a name is shown by the user, not as a stranger", () => {
  const people = new People("test");
  people.learn({ id: id(21), name: null, user: "ada@home" });
  assert.equal(people.name(id(21)), "ada@home");
  assert.equal(people.name(id(22)), "Someone (00000022)");
});

test("names and users are known after a reload", (t) => {
  const stored = new Map();
  const hiding = [];
  t.mock.method(globalThis, "addEventListener", (type, listener) => type === "pagehide" && hiding.push(listener));
  globalThis.sessionStorage = {
    getItem: (key) => stored.get(key) ?? null,
    setItem: (key, value) => void stored.set(key, value),
  };
  t.after(() => delete globalThis.sessionStorage);
  const before = new People("test");
  before.learnOwn(id(1), "Me");
  before.learn({ id: id(2), name: "Ada", user: "ada@home" });
  before.learn({ id: id(3), name: null, user: "bob@home" });
  for (const hide of hiding) hide();
  const after = new People("test");
  assert.deepEqual(
    [1, 2, 3].map((number) => after.name(id(number))),
    ["Me", "Ada", "bob@home"],
  );
  assert.deepEqual(
    [2, 3].map((number) => after.mark(id(number))),
    ["ada@home", ""],
  );
  assert.deepEqual(
    [1, 2].map((number) => after.isOwn(id(number))),
    [true, false],
  );
});

test("where the user can write depends on the permissions and the connection", async () => {
  const { chat, client } = await chatIn("lobby");
  await chat.join("lobby");
  const room = chat.conversations.get("room:lobby");
  const all = chat.conversations.get("all:");
  chat.openDirect(id(2));
  const direct = chat.conversations.get(`direct:${id(2)}`);
  const closed = () => [room, direct, all].map((one) => chat.closedBecause(one) !== "");
  assert.deepEqual(closed(), [false, false, false]);
  client.permissions = { broadcast: false, direct: false, signal: false, list_clients: false };
  assert.deepEqual(closed(), [false, true, true]);
  client.subscription.mayPublish = false;
  assert.deepEqual(closed(), [true, true, true]);
  client.permissions = null;
  client.subscription.mayPublish = true;
  client.state = "reconnecting";
  assert.deepEqual(closed(), [false, false, false], "messages may be written, and wait");
  client.state = "closed";
  assert.deepEqual(closed(), [true, true, true]);
});

test("clients of one user are one person, who is away when all of them are", async () => {
  const { roster, asked, tell } = presence();
  const refreshed = roster.refresh();
  const phone = { id: "7", name: "Ada", user: "ada", state: { away: true } };
  const desk = { id: "8", name: "Ada", user: "ada" };
  asked[0].resolve({ clients: [phone, desk, bob, { id: "9", name: "Cy", away: true }], total: 4 });
  await refreshed;
  const shown = () => roster.people.map(({ key, clients, isAway }) => [key, clients, isAway]);
  assert.deepEqual(shown(), [
    ["user ada", 2, false],
    ["2", 1, false],
    ["9", 1, true],
  ]);
  assert.equal(roster.count, 3);
  tell("state", { ...desk, state: { away: true } });
  assert.deepEqual(shown()[0], ["user ada", 2, true]);
  tell("state", { ...phone, state: undefined });
  assert.equal(roster.hasOther(desk), true);
  tell("leave", desk);
  assert.deepEqual(shown()[0], ["user ada", 1, false]);
  assert.equal(roster.hasOther(phone), false);
  assert.equal(roster.count, 3);
});

test("a user whom the server lists with all clients stays one member when the first of them leaves", async () => {
  const { roster, asked, tell } = presence();
  const refreshed = roster.refresh();
  asked[0].resolve({ clients: [{ id: "7", name: "Ada", user: "ada", clients: 2 }], total: 1 });
  await refreshed;
  tell("state", { id: "8", name: "Ada", user: "ada", state: { typing: 1 } });
  assert.deepEqual(
    roster.people.map(({ id, clients, members }) => [id, clients, members[0].state]),
    [["8", 2, { typing: 1 }]],
  );
  tell("leave", { id: "8", name: "Ada", user: "ada" });
  assert.equal(roster.count, 0);
});

test("a member that returns with another id neither leaves nor joins", async () => {
  const { roster, asked, subscription } = presence();
  const refreshed = roster.refresh();
  asked[0].resolve({ clients: [ada, bob], total: 2 });
  await refreshed;
  const told = [];
  for (const type of ["join", "leave", "return"]) roster.addEventListener(type, () => told.push(type));
  const detail = { topic: "chat.lobby", client: { id: "3", name: "Ada" }, was: "1" };
  subscription.dispatchEvent(Object.assign(new Event("return"), { detail }));
  assert.deepEqual([told, ids(roster), roster.total], [["return"], ["2", "3"], 2]);
});

test("where members are only counted, the number is known and nobody is listed", async () => {
  const { roster, asked, subscription } = presence();
  const refreshed = roster.refresh();
  asked[0].resolve({ clients: [], total: 5000, users: 10 });
  await refreshed;
  const detail = { topic: "chat.lobby", clients: 5001, users: 10 };
  subscription.dispatchEvent(Object.assign(new Event("occupancy"), { detail }));
  assert.deepEqual([roster.isKnown, roster.count, roster.people], [true, 5001, []]);
});

test("messages name their sender, known or not, and a user has one conversation whatever the client", async () => {
  const { chat, client, tell } = await chatIn("lobby");
  const people = new People("test");
  people.learnSender({ from: id(2), user: "ada", name: "Ada L." });
  const names = [people.name(id(2)), people.name("user ada"), people.personOf(id(2))];
  assert.deepEqual(names, ["Ada L.", "Ada L.", "user ada"]);
  assert.equal(people.learnSender({ from: id(3), name: "not verified" }), false);

  const sent = [];
  client.direct = async (to, text) => void sent.push([to, text]);
  for (const number of [2, 3]) {
    const said = { from: id(number), user: "ada", name: "Ada", content: `from ${number}`, timestamp: number };
    tell("direct", said, client);
  }
  const conversation = chat.conversations.get("direct:user ada");
  assert.deepEqual(
    conversation.entries.map(({ text }) => text),
    ["from 2", "from 3"],
  );
  assert.equal(chat.nameOf(conversation), "Ada");
  assert.equal(chat.openDirect(id(3)), conversation);
  await chat.send(conversation, "hello");
  assert.deepEqual(sent, [[{ user: "ada" }, "hello"]]);
});

test("a conversation with a client without a user follows it to its next id", async () => {
  const { chat, client, tell } = await chatIn("lobby");
  await chat.join("lobby");
  tell("direct", { from: id(2), content: "hi", timestamp: 1 }, client);
  const conversation = chat.conversations.get(`direct:${id(2)}`);
  tell("return", { topic: "chat.lobby", client: { id: id(3), name: "Cy" }, was: id(2) });
  assert.equal(chat.conversations.get(`direct:${id(3)}`), conversation);
  assert.equal(chat.nameOf(conversation), "Cy");
  const room = chat.conversations.get("room:lobby");
  assert.deepEqual(room.entries, [], "nobody joined or left");
});

test("another device of somebody who is here joins and leaves without a line", async () => {
  const { chat, client, tell } = await chatIn("lobby");
  client.presence = async () => ({ clients: [{ id: id(2), name: "Ada", user: "ada" }], total: 1 });
  await chat.join("lobby");
  const room = chat.conversations.get("room:lobby");
  const phone = { topic: "chat.lobby", client: { id: id(3), name: "Ada", user: "ada" } };
  tell("join", phone);
  tell("leave", phone);
  assert.deepEqual(room.entries, []);
  tell("leave", { topic: "chat.lobby", client: { id: id(2), name: "Ada", user: "ada" } });
  assert.deepEqual(
    room.entries.map(({ left }) => left.map(({ key }) => key)),
    [["user ada"]],
  );
});

test("typing is shown at once, renewed while it goes on, and over after a silence or when the text is sent", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  const tick = (ms) => {
    now += ms;
    t.mock.timers.tick(ms);
  };
  const shown = [];
  const activity = new Activity((room, state) => shown.push([room, state]), () => now);
  activity.setRooms(["one", "two"]);
  assert.deepEqual(shown.splice(0), []);
  activity.typed("one", "h");
  activity.typed("one", "he");
  assert.deepEqual(shown.splice(0), [["one", { typing: 1 }]]);
  for (let spent = 0; spent < RENEW_MS; spent += 1000) {
    tick(1000);
    activity.typed("one", "hello");
  }
  assert.deepEqual(shown.splice(0), [["one", { typing: 2 }]]);
  tick(SILENCE_MS);
  assert.deepEqual(shown.splice(0), [["one", null]]);
  activity.typed("two", "x");
  activity.stopTyping();
  activity.typed("two", " ");
  assert.deepEqual(shown.splice(0), [
    ["two", { typing: 3 }],
    ["two", null],
  ]);
  activity.stop();
});

test("the user is away when the page was hidden or idle for a while, in every room", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const shown = [];
  const activity = new Activity((room, state) => shown.push([room, state]), () => 0);
  activity.setRooms(["one"]);
  activity.active();
  activity.hidden();
  t.mock.timers.tick(HIDDEN_MS - 1);
  activity.active();
  assert.deepEqual(shown.splice(0), [], "a short look elsewhere is no absence");
  t.mock.timers.tick(IDLE_MS);
  activity.setRooms(["one", "two"]);
  assert.deepEqual(shown.splice(0), [
    ["one", { away: true }],
    ["two", { away: true }],
  ]);
  activity.active();
  assert.deepEqual(shown.splice(0), [
    ["one", null],
    ["two", null],
  ]);
  activity.hidden();
  activity.stop();
  t.mock.timers.tick(IDLE_MS);
  assert.deepEqual(shown, []);
});

test("a member counts as typing until it says something, stops, is gone, or was not heard of for long", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  let changes = 0;
  const typists = new Typists(() => (changes += 1), () => now);
  const states = [{ typing: 1 }, { typing: 4 }, "a text", null, { typing: 1 }];
  states.forEach((state, at) => typists.showed({ id: String(at + 1), state }));
  assert.deepEqual(typists.ids, ["1", "2", "5"]);
  typists.heard("1");
  typists.showed({ id: "2", state: { away: true } });
  assert.deepEqual(typists.ids, ["5"]);
  now += LASTS_MS;
  t.mock.timers.tick(LASTS_MS + 1);
  assert.deepEqual([typists.ids, changes], [[], 1]);
  for (let number = 0; number < 1000; number += 1) typists.showed({ id: String(number), state: { typing: 1 } });
  assert.ok(typists.ids.length <= 20);
  typists.stop();
  assert.equal(typingText([]), "");
  assert.match(typingText(["Ada"]), /Ada.* is typing/);
  assert.match(typingText(["Ada", "Bob"]), /Ada.* and .*Bob.* are typing/);
  assert.match(typingText(["Ada", "Bob", "Cy"]), /Ada.* and 2 others are typing/);
});

test("an invitation to a call names a room that nobody can guess, and no name", () => {
  const { text, href } = invite("Ada", "https://chat.example/#room=lobby");
  const [, room] = /^Join my video call: https:\/\/chat\.example\/webrtc#room=(call-[0-9a-f]{20})$/.exec(text);
  assert.equal(roomProblem(room, "webrtc."), "");
  assert.equal(href, `https://chat.example/webrtc#room=${room}&name=Ada`);
});
