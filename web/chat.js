// The chat page: signs in and wires together the parts that show the chat. Messages and rooms live in chat/chat.js.

import { Activity } from "./chat/activity.js";
import { invite } from "./chat/calls.js";
import { Chat } from "./chat/chat.js";
import { Drafts } from "./chat/drafts.js";
import { ConversationList, PeopleList, short } from "./chat/lists.js";
import { LogView } from "./chat/log-view.js";
import { Panels } from "./chat/panels.js";
import { PersonMenu } from "./chat/person-menu.js";
import { Renewal } from "./chat/renewal.js";
import { TOPIC_PREFIX } from "./chat/room.js";
import { invitation } from "./chat/rows.js";
import { typingText } from "./chat/typists.js";
import { Announcer } from "./ui/announcer.js";
import { Composer } from "./ui/composer.js";
import { ConnectionBadge } from "./ui/connection.js";
import { byId, coalesced, setText } from "./ui/dom.js";
import { endingOf } from "./ui/ending.js";
import { OtherTabs } from "./ui/names.js";
import { avatar, People } from "./ui/people.js";
import { deepLink, roomProblem, showRoomInAddress, SignIn } from "./ui/signin.js";
import { Remembered } from "./ui/storage.js";

const people = new People("qws.chat.people");
/** This tab's name and rooms, restored after a reload. */
const session = new Remembered(() => sessionStorage, "qws.chat");
/** The last name used, offered at the next visit. */
const lastName = new Remembered(() => localStorage, "qws.name");

const badge = new ConnectionBadge();
const tabs = new OtherTabs("chat");
const drafts = new Drafts();
const signIn = new SignIn(TOPIC_PREFIX, (client, room, { expiresAt }) => showChat(client, room, expiresAt));

/** Shows the chat of a connected client until it ends. `expiresAt` is set if the server has announced an expiry. */
function showChat(client, firstRoom, expiresAt) {
  const ended = new AbortController();
  const { signal } = ended;
  const chat = new Chat(client, people);
  const log = new LogView(chat, people, { onInvite: ({ currentTarget }) => copyLink(currentTarget), signal });
  const conversations = new ConversationList(chat, (conversation) => openConversation(conversation));
  const menu = new PersonMenu(chat, people, { onMessage: openDirect, onCall: call, signal });
  const list = new PeopleList(chat, people, {
    onOpen: openDirect,
    onMenu: (key, button) => menu.open(key, button),
  });
  const activity = new Activity((room, state) => chat.show(room, state));
  const panels = new Panels(signal);
  const announcer = new Announcer();
  const composer = new Composer((text) => {
    const problem = chat.problem(text);
    if (problem !== "") return problem;
    chat.active.firstUnread = null;
    log.follow();
    activity.stopTyping();
    chat.send(chat.active, text);
    return "";
  }, signal);
  const renewal = new Renewal(client, { announcer, onDone: () => composer.focus(), signal });
  const render = coalesced(() => {
    if (signal.aborted) return;
    log.render();
    conversations.render();
    list.render();
    renderHead();
    renderTyping();
    renderComposer();
    renderConnection();
    menu.render();
    activity.setRooms(roomsOf(chat));
    if (chat.active !== shown) activeChanged();
  });
  /** The conversation shown last. */
  let shown = chat.active;
  /** The rooms to restore after a reload. */
  let remembered = session.get()?.rooms ?? [];
  /** Whether signing in again requires a new token. */
  let wantsToken = false;

  byId("signin").hidden = true;
  byId("chat").hidden = false;
  byId("own-name").textContent = client.name;
  byId("own-avatar").replaceChildren(avatar(client.name));
  badge.watch(client);
  tabs.setName(client.name);
  lastName.set(client.name);
  drafts.setOwner(client.user === null ? `name ${client.name}` : `user ${client.user}`);
  showDraft();
  if (expiresAt !== null) renewal.show(expiresAt);

  chat.addEventListener("change", render, { signal });
  chat.addEventListener("received", ({ detail }) => announce(detail), { signal });
  client.addEventListener("close", ({ detail }) => !detail.willReconnect && showClosed(detail), { signal });
  byId("sign-out").addEventListener("click", () => leave(true), { signal });
  byId("sign-in-again").addEventListener("click", () => leave(false), { signal });
  byId("invite").addEventListener("click", () => copyLink(byId("invite")), { signal });
  byId("page-problem-close").addEventListener("click", () => report(""), { signal });
  byId("leave").addEventListener("click", () => leaveActive(), { signal });
  byId("call").addEventListener("click", () => call(chat.active.id), { signal });
  byId("composer-text").addEventListener("input", () => typed(), { signal });
  for (const sign of ["pointerdown", "pointermove", "keydown", "wheel", "focus"]) {
    addEventListener(sign, () => activity.active(), { signal, passive: true });
  }
  document.addEventListener("visibilitychange", () => showPresence(), { signal });
  byId("join-form").addEventListener("submit", joinFromForm, { signal });
  byId("join-room").addEventListener("input", () => (byId("join-problem").textContent = ""), { signal });
  byId("skip-link").addEventListener("click", (event) => (event.preventDefault(), composer.focus()), { signal });
  document.addEventListener("keydown", shortcut, { signal });
  follow = followAddress;

  showPresence();
  enter();

  async function enter() {
    render();
    const rooms = [...remembered.filter((room) => room !== firstRoom), firstRoom];
    for (const room of rooms) report(await join(room));
    // If the user has moved the focus meanwhile, leave it: what they type is not meant for the room.
    if (!byId("chat").contains(document.activeElement)) composer.focus();
  }

  async function join(room) {
    try {
      keepDraft();
      await chat.join(room);
      activeChanged();
      return "";
    } catch (error) {
      if (client.state === "closed") return "You are not connected.";
      if (error.code !== 403) return `Could not join ${room}: ${error.message}`;
      const hint = client.user === null ? " If you have an access token, sign out and sign in with it." : "";
      return `You are not allowed to join ${room}.${hint}`;
    }
  }

  async function joinFromForm(event) {
    event.preventDefault();
    const field = byId("join-room");
    const room = field.value.trim().replace(/^#/, "");
    const problem = roomProblem(room, TOPIC_PREFIX) || (await join(room));
    byId("join-problem").textContent = problem;
    if (problem === "") {
      field.value = "";
      panels.close();
      composer.focus();
    } else {
      field.focus();
    }
  }

  function openDirect(id) {
    panels.close();
    keepDraft();
    const conversation = chat.openDirect(id);
    activeChanged();
    composer.focus();
    return conversation;
  }

  /** Invites a person to a call, and joins it in another tab. */
  function call(id) {
    const conversation = openDirect(id);
    const { text, href } = invite(client.name);
    log.follow();
    chat.send(conversation, text);
    open(href, "_blank", "noopener");
  }

  function typed() {
    if (shown.kind === "room") activity.typed(shown.id, composer.text);
  }

  function showPresence() {
    if (document.visibilityState === "visible") activity.active();
    else activity.hidden();
  }

  function keepDraft() {
    if (shown) shown.draft = composer.text;
  }

  function showDraft() {
    shown.draft ||= drafts.take(shown.key);
    composer.text = shown.draft;
  }

  function openConversation(conversation) {
    panels.close();
    keepDraft();
    chat.activate(conversation);
    activeChanged();
    composer.focus();
  }

  /** Follows a change of the active conversation. */
  function activeChanged() {
    if (chat.active === shown) return;
    shown = chat.active;
    activity.stopTyping();
    showDraft();
    // Otherwise the address would name a room that is not shown, and following that room's link would change nothing.
    showRoomInAddress(shown.kind === "room" ? shown.id : "");
    report("");
    remember();
    render();
  }

  function leaveActive() {
    const { active } = chat;
    keepDraft();
    chat.leave(active).catch(() => {
      // The connection is gone, or the server has already ended the subscription: the room is left either way.
    });
    activeChanged();
    byId("conversation-title").focus();
  }

  function remember() {
    remembered = roomsOf(chat);
    session.set({ name: client.name, rooms: remembered });
  }

  function announce({ conversation, entry }) {
    const where = conversation === chat.active ? "" : ` in ${chat.nameOf(conversation)}`;
    // Other rooms only show an unread count; direct messages and broadcasts are announced.
    if (where !== "" && conversation.kind === "room") return;
    const kind = conversation.kind === "direct" ? " to you" : where;
    const mark = chat.markOf(entry.from);
    announcer.say(`${people.name(entry.from)}${mark && ` (${mark})`}${kind}: ${entry.text.slice(0, 300)}`);
  }

  function renderHead() {
    const { active } = chat;
    const name = chat.nameOf(active);
    const roster = chat.rosterOf(active);
    byId("conversation-title").textContent = name;
    byId("conversation").dataset.kind = active.kind;
    const offline = { closed: "Not connected", reconnecting: "Reconnecting…" }[client.state];
    byId("conversation-subtitle").textContent = {
      room: offline ?? (roster === null ? "Not in this room" : headCount(roster)),
      direct: ["Direct message", chat.markOf(active.id), offline ?? awayOf(active.id)].filter(Boolean).join(" · "),
      all: offline ?? "Broadcast to everyone on this server",
    }[active.kind];
    byId("invite").hidden = active.kind !== "room";
    byId("call").hidden = active.kind !== "direct" || chat.closedBecause(active) !== "" || people.isUser(active.id);
    byId("leave").hidden = active.kind === "all";
    byId("leave-text").textContent = active.kind === "room" ? "Leave" : "Close";
    for (const id of ["join-room", "join-submit"]) byId(id).disabled = client.state === "closed";

    const unread = [...chat.conversations.values()].reduce((sum, one) => sum + one.unread, 0);
    const elsewhere = unread - active.unread;
    byId("unread-elsewhere").hidden = elsewhere === 0;
    byId("unread-elsewhere").textContent = elsewhere === 0 ? "" : `${short(elsewhere)} unread`;
    document.title = `${unread > 0 ? `(${short(unread)}) ` : ""}${name} · quic-websocket`;
  }

  function awayOf(id) {
    return chat.find(id)?.isAway ? "away" : "";
  }

  function renderTyping() {
    const names = [...new Set(chat.typingIn(chat.active).map((id) => people.name(id)))];
    setText(byId("typing"), client.state === "open" ? typingText(names) : "");
  }

  function renderComposer() {
    const { active } = chat;
    const name = chat.nameOf(active);
    const label = { room: `Message #${name}`, direct: `Message ${name}`, all: "Message everyone" }[active.kind];
    setText(byId("composer-label"), label);
    const isAway = client.state !== "open";
    const isRoom = active.kind === "room";
    composer.update({
      label,
      closed: chat.closedBecause(active),
      waits: isAway && !isRoom ? "Reconnecting. You can send this once you are back." : "",
      note: isAway && isRoom ? "Reconnecting. Your messages will be sent once you are back." : "",
    });
  }

  function renderConnection() {
    const notice = byId("connection-notice");
    if (client.state === "closed") return;
    const isLost = client.state !== "open";
    const words = "Connection lost. Reconnecting… Messages you write in rooms will be sent once you are back.";
    if (isLost === notice.hidden) announcer.say(isLost ? words : "Reconnected.");
    notice.hidden = !isLost;
    notice.dataset.state = client.state;
    notice.className = "notice warn";
    byId("connection-notice-text").textContent = words;
    byId("sign-in-again").hidden = true;
  }

  function showClosed(end) {
    const notice = byId("connection-notice");
    notice.hidden = false;
    notice.dataset.state = "closed";
    notice.className = "notice bad";
    const why = endingOf(end);
    byId("connection-notice-text").textContent = why;
    announcer.say(why);
    byId("sign-in-again").hidden = false;
    wantsToken = end.code === 4401;
    render();
  }

  /** Copies the room's link, and confirms that on the button for a moment. */
  async function copyLink(button) {
    try {
      await navigator.clipboard.writeText(invitation(chat.active.id));
      announcer.say("Link copied.");
      briefly(button, "Copied");
    } catch {
      report("Your browser does not allow copying. Copy the link from the address bar instead.");
    }
  }

  /** Handles a link to a room that was followed in this tab. */
  async function followAddress({ room, name }) {
    if (room === "") return;
    const problem = roomProblem(room, TOPIC_PREFIX);
    if (problem === "" && client.state === "closed") {
      leave(false);
      signIn.fill({ name, room });
      if (!wantsToken) signIn.submit();
      return;
    }
    report(problem || (await join(room)));
    if (signal.aborted) return;
    // Even if nothing else changes: neither a name nor a room that is not joined stays in the address.
    showRoomInAddress(shown.kind === "room" ? shown.id : "");
  }

  /** Shows a problem; "" hides it. */
  function report(problem) {
    byId("page-problem").hidden = problem === "";
    setText(byId("page-problem-text"), problem);
  }

  function shortcut(event) {
    if (!event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const places = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (places === undefined) return;
    event.preventDefault();
    openConversation(conversations.neighbour(places));
  }

  function leave(forGood) {
    const room = shown.kind === "room" ? shown.id : "";
    if (forGood) {
      session.set(null);
      people.forget();
      drafts.forget();
    } else {
      keepDraft();
      drafts.keep(chat.conversations.values());
    }
    composer.text = "";
    report("");
    ended.abort();
    activity.stop();
    follow = followUnsigned;
    tabs.setName(null);
    announcer.stop();
    badge.forget();
    client.close().catch(() => {});
    byId("chat").hidden = true;
    byId("connection-notice").hidden = true;
    byId("signin").hidden = false;
    document.title = "Chat · quic-websocket";
    signIn.fill({ name: client.name, room });
    signIn.focus(wantsToken ? "Enter a new access token to continue." : "", wantsToken);
  }
}

const FOR_A_MOMENT_MS = 2000;

/** Replaces a button's text for a moment. */
function briefly(button, words) {
  const text = button.querySelector("span") ?? button.lastChild;
  const own = button.dataset.words ?? text.textContent;
  button.dataset.words = own;
  text.textContent = words;
  setTimeout(() => (text.textContent = own), FOR_A_MOMENT_MS);
}

/** Handles a link that was followed before signing in. If the link has a name, the page signs in at once. */
function followUnsigned({ room, name }) {
  if (!signIn.isWaiting) return;
  signIn.fill({ name, room });
  if (name) signIn.submit();
  else signIn.focus();
}

/** The number of people in a room, or "" if it is not known. */
function headCount({ isKnown, count }) {
  if (!isKnown) return "";
  return count === 1 ? "Only you" : `${count.toLocaleString()} people`;
}

/** The names of the rooms. */
function roomsOf(chat) {
  return [...chat.conversations.values()].filter(({ kind }) => kind === "room").map(({ id }) => id);
}

/** Handles a link that is followed in this tab. */
let follow = followUnsigned;
addEventListener("hashchange", () => follow(deepLink()));

const link = deepLink();
const kept = session.get();
signIn.fill({ name: link.name || kept?.name, room: link.room || kept?.rooms?.at(-1) });
if (link.name || kept?.name) {
  signIn.submit();
} else {
  signIn.suggest(lastName.get(), tabs);
}
