// The pure parts of the chat page and the page for calls. The pages themselves are tested in a browser, in tests/web/.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Conversation, MOST_CHARACTERS, MOST_ENTRIES } from "../chat/conversation.js";
import { idBefore } from "../ui/people.js";
import { Roster } from "../ui/roster.js";
import { nameProblem, roomProblem } from "../ui/signin.js";

const message = (offset, text = `message ${offset}`) => ({ type: "message", time: offset, offset, from: "a", text });

test("a conversation holds a bounded number of entries, and the history gives back the rest", () => {
  const room = new Conversation("room", "lobby");
  for (let offset = 1; offset <= 3 * MOST_ENTRIES; offset += 1) room.append(message(offset));
  assert.ok(room.entries.length <= MOST_ENTRIES * 1.1, `${room.entries.length} entries`);
  assert.equal(room.entries.at(-1).offset, 3 * MOST_ENTRIES);
  assert.equal(room.hasEarlier, true);
  assert.equal(room.oldestOffset, room.entries[0].offset);
});

test("a conversation holds a bounded number of characters, and always its newest entry", () => {
  const room = new Conversation("room", "lobby");
  const long = "x".repeat(900_000);
  for (let offset = 1; offset <= 40; offset += 1) room.append(message(offset, long));
  const held = room.entries.reduce((sum, { text }) => sum + text.length, 0);
  assert.ok(held <= MOST_CHARACTERS, `${held} characters`);
  room.append(message(41, "y".repeat(2 * MOST_CHARACTERS)));
  assert.deepEqual(room.entries.map(({ offset }) => offset), [41]);
});

test("what has no room before the first entry is left out, and said so", () => {
  const room = new Conversation("room", "lobby");
  for (let offset = 1000; offset < 1000 + MOST_ENTRIES - 2; offset += 1) room.append(message(offset));
  room.prepend([message(997), message(998), message(999)]);
  assert.equal(room.oldestOffset, 998);
  assert.equal(room.isFull, true);
});

test("a gap is filled in its place, page by page", () => {
  const room = new Conversation("room", "lobby");
  const gap = { type: "gap", time: 0, first: 2, last: 5 };
  room.append(message(1));
  room.append(gap);
  room.append(message(6));
  room.fill(gap, [message(2), message(3)], false);
  assert.deepEqual(room.entries.map((entry) => entry.offset ?? entry.type), [1, 2, 3, "gap", 6]);
  room.fill(gap, [message(4), message(5)], true);
  assert.deepEqual(room.entries.map((entry) => entry.offset), [1, 2, 3, 4, 5, 6]);
});

test("who came and left within a moment stands on one line, and who came back on none", () => {
  const room = new Conversation("room", "lobby");
  room.comingOrGoing("Ada", "joined", 1000);
  room.comingOrGoing("Bob", "left", 2000);
  assert.deepEqual(room.entries, [{ type: "comings", time: 1000, joined: ["Ada"], left: ["Bob"] }]);
  room.comingOrGoing("Bob", "joined", 3000);
  assert.deepEqual(room.entries[0].left, []);
  room.comingOrGoing("Cy", "left", 1_000_000);
  room.comingOrGoing("Cy", "joined", 1_001_000);
  assert.equal(room.entries.length, 1, "nothing has changed by Cy");
});

/** A subscription and a client whose answers about presence the test gives. */
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

test("who comes or leaves while the list is under way is neither lost nor a ghost", async () => {
  const { roster, asked, tell } = presence();
  const refreshed = roster.refresh();
  tell("leave", ada);
  tell("join", bob);
  asked[0].resolve({ clients: [ada], total: 1 });
  await refreshed;
  assert.deepEqual(ids(roster), ["2"]);
  assert.equal(roster.total, 1);
});

test("those beyond the end of the server's list are counted", async () => {
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

test("a list that is asked for while another is under way is asked for once more", async () => {
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

test("a list that cannot be had leaves the one before, and tells why", async () => {
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

test("a page of clients behind the id before somebody's begins with that one", () => {
  assert.equal(idBefore("56f8b2bf-467b-4af4-a7b4-af4cc63adf6d"), "56f8b2bf-467b-4af4-a7b4-af4cc63adf6c");
  assert.equal(idBefore("10000000-0000-0000-0000-000000000000"), "0fffffff-ffff-ffff-ffff-ffffffffffff");
  assert.equal(idBefore("00000000-0000-0000-0000-000000000000"), undefined);
});

test("names and rooms are checked as the protocol has it", () => {
  for (const good of ["Ada", "x".repeat(64), "😀".repeat(64), "משה", "a b"]) assert.equal(nameProblem(good), "", good);
  for (const bad of ["", "   ", "x".repeat(65), "a\nb", "a\u202eb", "a\u2066b", "a\u2028b", "a\u007fb"]) {
    assert.notEqual(nameProblem(bad), "", JSON.stringify(bad));
  }
  for (const good of ["lobby", "a.b-c_D9", "x".repeat(250)]) assert.equal(roomProblem(good, "chat."), "", good);
  for (const bad of ["", "a b", ".a", "a.", "a..b", "a*", ">", "ä", "x".repeat(251)]) {
    assert.notEqual(roomProblem(bad, "chat."), "", bad);
  }
});
