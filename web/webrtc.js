// The call page: signs in, joins the room, and wires together the parts that show the call. Signaling and peer
// connections are in webrtc/call.js and webrtc/peer.js.

import { Announcer } from "./ui/announcer.js";
import { Composer } from "./ui/composer.js";
import { ConnectionBadge } from "./ui/connection.js";
import { byId, coalesced, el, icon, reconcile, setText } from "./ui/dom.js";
import { endingOf } from "./ui/ending.js";
import { linked } from "./ui/links.js";
import { OtherTabs } from "./ui/names.js";
import { avatar, People } from "./ui/people.js";
import { deepLink, roomProblem, showRoomInAddress, SignIn } from "./ui/signin.js";
import { Remembered } from "./ui/storage.js";
import { Call, MAY_NOT_CALL, MAX_PEOPLE, TOPIC_PREFIX } from "./webrtc/call.js";
import { IceServers } from "./webrtc/ice.js";
import { LocalMedia, mediaProblem } from "./webrtc/media.js";
import { Tiles } from "./webrtc/tiles.js";

const MEASURE_MS = 2000;
const MAX_TEXTS = 300;
const PEER_STATES = {
  new: "connecting…",
  connecting: "connecting…",
  connected: "connected",
  disconnected: "interrupted",
  failed: "unreachable",
};

const people = new People("qws.webrtc.people");
const lastName = new Remembered(() => localStorage, "qws.name");
const badge = new ConnectionBadge();
const tabs = new OtherTabs("webrtc");
const signIn = new SignIn(TOPIC_PREFIX, enter);

/** Joins a room with a connected client. Returns a problem, or "". */
async function enter(client, room, { token }) {
  if (client.permissions?.signal === false) {
    client.close().catch(() => {});
    return MAY_NOT_CALL;
  }
  const local = new LocalMedia();
  const iceServers = new IceServers(token);
  const call = new Call(client, room, { people, local, iceServers });
  try {
    await call.join();
    // The user has cancelled, or the server has just closed the connection.
    if (client.state === "closed") throw new Error("The connection was closed.");
  } catch (error) {
    call.leave();
    client.close().catch(() => {});
    return error.code === 403 ? "You are not allowed to join this room." : error.message;
  }
  lastName.set(client.name);
  showRoomInAddress(room);
  showCall(client, room, { call, local, iceServers });
  return "";
}

/** Shows the call until the user hangs up or the connection is closed for good. */
function showCall(client, room, { call, local, iceServers }) {
  const ended = new AbortController();
  const { signal } = ended;
  const tiles = new Tiles(call, { client, people, local });
  const texts = byId("texts");
  const composer = new Composer(say, signal);
  const announcer = new Announcer();
  const rows = new Map();
  /** Whether anyone else has been here before. */
  let wasAccompanied = false;
  const render = coalesced(() => {
    if (signal.aborted) return;
    tiles.render();
    renderPeople();
    renderControls();
    renderConnection();
  });

  byId("signin").hidden = true;
  byId("call").hidden = false;
  byId("call-title").textContent = room;
  document.title = `${room} · Video · quic-websocket`;
  byId("texts-list").replaceChildren();
  byId("people-list").replaceChildren();
  byId("texts-empty").hidden = false;
  composer.text = "";
  report(iceServers.problem);
  badge.watch(client);
  tabs.setName(client.name);
  follow = followAddress;

  call.addEventListener("change", render, { signal });
  call.addEventListener(
    "text",
    ({ detail }) => addText(people.name(detail.from), call.markOf(detail.from), detail.text, false),
    { signal },
  );
  call.addEventListener("problem", ({ detail }) => report(detail), { signal });
  client.addEventListener("state", render, { signal });
  client.addEventListener(
    "close",
    ({ detail }) => {
      if (!detail.willReconnect) leave(endingOf(detail), detail.code === 4401);
    },
    { signal },
  );
  byId("toggle-microphone").addEventListener("click", () => turn("audio"), { signal });
  byId("toggle-camera").addEventListener("click", () => turn("video"), { signal });
  byId("hang-up").addEventListener("click", () => (leave(""), people.forget()), { signal });
  byId("invite").addEventListener("click", copyLink, { signal });
  byId("call-problem-close").addEventListener("click", () => report(""), { signal });
  byId("call-move").addEventListener("click", () => move(), { signal });
  byId("skip-link").addEventListener(
    "click",
    (event) => {
      event.preventDefault();
      byId("toggle-microphone").focus();
    },
    { signal },
  );
  // Also if the browser keeps the page for going back to it: a call does not wait there.
  addEventListener("pagehide", () => leave(""), { signal });
  const timer = setInterval(measure, MEASURE_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  render();
  byId("call-title").focus();

  async function turn(kind) {
    const isOn = !local.state[kind];
    report("");
    try {
      await local.turn(kind, isOn);
    } catch (error) {
      report(mediaProblem(kind, error));
    }
    if (signal.aborted) local.stop();
    else render();
  }

  async function measure() {
    await Promise.allSettled([...call.peers.values()].map((peer) => peer.measure()));
    render();
  }

  function say(text) {
    if (call.peers.size === 0) return "Nobody else is here.";
    if (call.say(text) === 0) return "Not sent: nobody can be reached, or the message is too long.";
    addText(client.name, "", text, true);
    return "";
  }

  function addText(name, mark, text, isOwn) {
    const isAtEnd = texts.scrollHeight - texts.scrollTop - texts.clientHeight < 48;
    byId("texts-empty").hidden = true;
    const list = byId("texts-list");
    list.append(
      el(
        "li",
        { "data-testid": "text", "data-own": isOwn ? "true" : undefined },
        el("bdi", { class: "text-name" }, isOwn ? "You" : name),
        mark && el("bdi", { class: "muted text-mark" }, mark),
        el("p", { class: "text-body", dir: "auto" }, ...linked(text)),
      ),
    );
    while (list.childElementCount > MAX_TEXTS) list.firstElementChild.remove();
    if (isAtEnd || isOwn) texts.scrollTop = texts.scrollHeight;
  }

  function renderPeople() {
    const members = [...(call.roster?.members.values() ?? [])];
    const known = new Set(members.map(({ id }) => id));
    for (const id of rows.keys()) if (!known.has(id)) rows.delete(id);
    reconcile(
      byId("people-list"),
      members.map(({ id }) => personRow(id)),
    );
    // Without a connection the list is out of date.
    byId("people-count").textContent = client.state === "open" ? `${members.length} of ${MAX_PEOPLE}` : "";
    const others = call.peers.size;
    const connected = [...call.peers.values()].filter(({ state }) => state === "connected").length;
    wasAccompanied ||= others > 0;
    setText(byId("call-subtitle"), others === 0 ? alone() : withOthers(others, connected));
  }

  function alone() {
    if (client.state !== "open") return "Reconnecting…";
    return wasAccompanied ? "Nobody else is here" : "Nobody else is here yet. Copy the link and send it to someone.";
  }

  function withOthers(others, connected) {
    if (connected < others) return "Connecting…";
    return others === 1 ? "Connected to 1 person" : `Connected to ${others} people`;
  }

  function personRow(id) {
    const name = people.name(id);
    // While the connection is lost, the client has no ID, and the list still has the last one.
    const isOwn = id === client.id || (client.id === null && people.isOwn(id));
    const state = isOwn ? "you" : (PEER_STATES[call.peerOf(id)?.state] ?? "not in the call");
    const mark = isOwn ? "" : call.markOf(id);
    const signature = `${name}\n${mark}\n${state}`;
    if (rows.get(id)?.signature === signature) return rows.get(id).row;
    const row = el(
      "li",
      { class: "person", "data-client": id, "data-own": isOwn ? "true" : undefined, "data-state": state },
      avatar(name),
      el("span", { class: "truncate" }, el("bdi", {}, name)),
      mark && el("bdi", { class: "muted truncate person-mark" }, mark),
      el("span", { class: "muted person-state" }, state),
    );
    rows.set(id, { signature, row });
    return row;
  }

  function renderControls() {
    for (const [kind, id, name] of [
      ["audio", "toggle-microphone", "microphone"],
      ["video", "toggle-camera", "camera"],
    ]) {
      const button = byId(id);
      const isOn = String(local.state[kind]);
      if (button.getAttribute("aria-pressed") === isOn) continue;
      button.setAttribute("aria-pressed", isOn);
      button.querySelector("svg").replaceWith(icon(isOn === "true" ? name : `${name}-off`));
    }
  }

  function renderConnection() {
    const notice = byId("connection-notice");
    const isLost = client.state !== "open";
    const words =
      "Connection to the server lost. Reconnecting… The call continues, but nobody can join until you are back.";
    if (isLost === notice.hidden) announcer.say(isLost ? words : "Reconnected to the server.");
    notice.hidden = !isLost;
    notice.dataset.state = client.state;
    byId("connection-notice-text").textContent = words;
  }

  async function copyLink() {
    const text = byId("invite-text");
    try {
      await navigator.clipboard.writeText(location.href);
      text.textContent = "Copied";
    } catch {
      text.textContent = "Copy it from the address bar";
    }
    setTimeout(() => (text.textContent = "Copy link"), 2000);
  }

  /** Handles a link to another room that was followed in this tab. It asks first: a link alone does not end a call. */
  function followAddress(asked) {
    const isOther = asked.room !== "" && asked.room !== room && roomProblem(asked.room, TOPIC_PREFIX) === "";
    showRoomInAddress(room);
    if (!isOther) return;
    report(`This link leads to another room: ${asked.room}.`);
    byId("call-move").dataset.room = asked.room;
    byId("call-move").hidden = false;
  }

  function move() {
    const other = byId("call-move").dataset.room;
    leave("");
    followUnsigned({ room: other, name: "" });
  }

  function leave(problem, wantsToken = false) {
    if (signal.aborted) return;
    ended.abort();
    follow = followUnsigned;
    tabs.setName(null);
    call.leave();
    local.stop();
    badge.forget();
    announcer.stop();
    client.close().catch(() => {});
    byId("connection-notice").hidden = true;
    byId("tiles").replaceChildren();
    byId("call").hidden = true;
    byId("signin").hidden = false;
    for (const id of ["toggle-microphone", "toggle-camera"]) byId(id).setAttribute("aria-pressed", "false");
    report("");
    document.title = "Video · quic-websocket";
    signIn.fill({ name: client.name, room });
    signIn.focus(problem, wantsToken);
  }
}

/** Shows a problem; "" hides it. */
function report(problem) {
  byId("call-problem").hidden = problem === "";
  byId("call-move").hidden = true;
  byId("call-problem-text").textContent = problem;
}

/** Handles a link before joining. It only fills in the form, because joining reveals the user's address to others. */
function followUnsigned({ room, name }) {
  if (!signIn.isWaiting) return;
  signIn.fill({ name, room });
  signIn.focus();
}

/** Handles a link that is followed in this tab. */
let follow = followUnsigned;
addEventListener("hashchange", () => follow(deepLink()));

followUnsigned(deepLink());
signIn.suggest(lastName.get(), tabs);
