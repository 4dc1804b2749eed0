// The sign-in form: a name, and a token if the server has refused a connection without one. Used by every page that
// connects; expects the form of these pages (#signin-form and its parts).

import { connect } from "../qws.js";
import { byId } from "./dom.js";
import { refusedName, refusedToken } from "./ending.js";
import { suggestName } from "./names.js";

// Characters that the protocol forbids in a name: control characters, line breaks, and bidi controls.
const FORBIDDEN = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/u;
// One or more levels of a topic.
const ROOM = /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/;
const MAX_TOPIC_LENGTH = 255;

/** The problem with a name, or "". */
export function nameProblem(name) {
  if (name.trim() === "") return "Enter your name.";
  if ([...name].length > 64) return "Use at most 64 characters for your name.";
  if (FORBIDDEN.test(name)) return "Your name contains characters that cannot be displayed.";
  return "";
}

/** The problem with a room's name, or "". `prefix` precedes the name in the topic. */
export function roomProblem(room, prefix) {
  if (room === "") return "Enter a room name.";
  if (!ROOM.test(room)) return "Use only letters A to Z, digits, “-” and “_”, with dots between parts.";
  if (prefix.length + room.length > MAX_TOPIC_LENGTH) {
    return `Use at most ${MAX_TOPIC_LENGTH - prefix.length} characters for the room name.`;
  }
  return "";
}

/** The room and name in a link to the page, such as `/#room=lobby&name=Ada`. */
export function deepLink() {
  const asked = new URLSearchParams(location.hash.slice(1));
  return { room: asked.get("room") ?? "", name: asked.get("name") ?? "" };
}

/** Shows the room in the address, so that it can be shared; "" removes it. A name never stays in the address. */
export function showRoomInAddress(room) {
  const hash = room ? `#${new URLSearchParams({ room })}` : "";
  history.replaceState(history.state, "", `${location.pathname}${location.search}${hash}`);
}

/** The sign-in form, which creates a connected client. */
export class SignIn {
  #form = byId("signin-form");
  #name = byId("signin-name");
  #room = byId("signin-room");
  #token = byId("signin-token");
  #tokenField = byId("signin-token-field");
  #status = byId("signin-status");
  #problem = byId("signin-problem");
  #submit = byId("signin-submit");
  #cancel = byId("signin-cancel");
  #prefix;
  #onSignedIn;
  #client = null;

  /**
   * @typedef {import("../qws.js").Client} Client
   * @typedef {{ token: string, expiresAt: number | null }} Access `expiresAt` is set if the server has announced it
   * @typedef {string | void} Problem
   * @param {string} prefix of the topics of rooms
   * @param {(client: Client, room: string, access: Access) => Problem | Promise<Problem>} onSignedIn
   *   continues with the client, and returns a problem or ""; the client is closed if the user cancels meanwhile
   */
  constructor(prefix, onSignedIn) {
    this.#prefix = prefix;
    this.#onSignedIn = onSignedIn;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.#cancel.addEventListener("click", () => this.#abandon());
    this.#form.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#client) this.#abandon();
    });
  }

  /** Fills in the given values. */
  fill({ name, room }) {
    if (name) this.#name.value = name;
    if (room) this.#room.value = room;
  }

  /**
   * Fills in the last name used, or a suggestion, if the field is empty. If another tab already has the name, suggests
   * a different one: two tabs are two people.
   * @param {string | null} last
   * @param {import("./names.js").OtherTabs} tabs
   */
  async suggest(last, tabs) {
    if (this.#name.value !== "") return;
    const before = last || suggestName();
    this.#name.value = before;
    // Enter accepts the name; typing replaces it.
    this.#name.focus();
    this.#name.select();
    const taken = await tabs.names();
    if (!taken.has(before) || this.#name.value !== before || this.#client !== null) return;
    this.#name.value = suggestName(taken);
    if (document.activeElement === this.#name) this.#name.select();
  }

  /** Whether the form is shown and not busy. */
  get isWaiting() {
    return this.#client === null && !this.#form.closest("[hidden]");
  }

  /** Focuses the first empty field, and shows why the form is back. */
  focus(problem = "", wantsToken = false) {
    if (wantsToken) this.#askForToken();
    this.#say(problem, problem !== "");
    const first = [this.#name, this.#token].find((field) => !field.closest("[hidden]") && field.value === "");
    (first ?? this.#submit).focus();
  }

  async submit() {
    if (this.#client) return;
    const name = this.#name.value.trim();
    const room = this.#room.value.trim();
    const token = this.#token.value.trim();
    if (!this.#check(this.#name, nameProblem(name))) return;
    if (!this.#check(this.#room, roomProblem(room, this.#prefix))) return;

    this.#busy(true);
    this.#say("Connecting…", false);
    let client = null;
    let problem = "";
    try {
      client = connect(undefined, token === "" ? { name } : { name, token });
      this.#client = client;
      const report = (words) =>
        this.#client === client && this.#problem.textContent !== words && this.#say(words, true);
      client.addEventListener("error", ({ detail }) => {
        if (detail.kind !== "request") report("The server cannot be reached. Still trying…");
      });
      client.addEventListener(
        "close",
        ({ detail }) => detail.willReconnect && report("Connection lost. Still trying…"),
      );
      // The server may announce it right after its handshake reply, before the page listens.
      let expiresAt = null;
      client.addEventListener("expiring", ({ detail }) => (expiresAt = detail.expires_at), { once: true });
      await client.ready;
      if (this.#client !== client) return;
      // From now on only the client needs the token: do not leave it in the form for the next user.
      this.#token.value = "";
      // A server that admits anonymous clients may allow more with a token.
      if (client.permissions !== null) this.#tokenField.hidden = false;
      this.#say("Joining…", false);
      problem = await this.#onSignedIn(client, room, { token, expiresAt });
    } catch (error) {
      if (this.#client === client) this.#refused(error, token !== "");
      return;
    }
    if (this.#client !== client) return;
    this.#client = null;
    this.#busy(false);
    this.#say("", false);
    if (problem) this.focus(problem);
  }

  #check(field, problem) {
    field.toggleAttribute("aria-invalid", false);
    if (problem === "") return true;
    field.setAttribute("aria-invalid", "true");
    this.#say(problem, true);
    field.focus();
    return false;
  }

  #refused(error, hadToken) {
    this.#client = null;
    this.#busy(false);
    if (error.code === 4401) {
      this.#askForToken();
      this.#say(hadToken ? refusedToken(error.message) : "This server requires an access token.", true);
      this.#token.focus();
    } else if (error.code === 4403) {
      this.#check(this.#name, refusedName(error.message));
    } else {
      this.#say(`Could not connect: ${error.message}`, true);
      this.#submit.focus();
    }
  }

  #askForToken() {
    this.#tokenField.hidden = false;
    this.#token.required = true;
  }

  #abandon() {
    const client = this.#client;
    this.#client = null;
    client?.close().catch(() => {});
    this.#busy(false);
    this.#say("", false);
    this.#submit.focus();
  }

  #busy(busy) {
    this.#submit.disabled = busy;
    this.#cancel.hidden = !busy;
    for (const field of [this.#name, this.#room, this.#token]) field.readOnly = busy;
    if (busy) this.#cancel.focus();
  }

  /** Shows a problem, which screen readers announce at once, or a status. */
  #say(text, isProblem) {
    this.#status.textContent = isProblem ? "" : text;
    this.#problem.textContent = isProblem ? text : "";
  }
}
