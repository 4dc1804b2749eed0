// Signing in: by a name, and by a token where the server asks for one, which shows by its refusal. Used by every page that
// connects; expects the form that these pages have (#signin-form and its parts).

import { connect } from "../qws.js";
import { byId } from "./dom.js";
import { refusedToken } from "./ending.js";
import { suggestName } from "./names.js";

// What the protocol does not take in a name: control characters, and what breaks or turns the text around it.
const FORBIDDEN = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/u;
// One level of a topic or more.
const ROOM = /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/;
const LONGEST_TOPIC = 255;

/** What is wrong with a name, or "". */
export function nameProblem(name) {
  if (name.trim() === "") return "Enter a name.";
  if ([...name].length > 64) return "A name has at most 64 characters.";
  if (FORBIDDEN.test(name)) return "This name has characters that cannot be shown.";
  return "";
}

/** What is wrong with the name of a room, or "". `prefix` is what stands before it in the topic. */
export function roomProblem(room, prefix) {
  if (room === "") return "Enter the name of a room.";
  if (!ROOM.test(room)) return "Use letters A to Z, digits, “-” and “_”, with dots between parts.";
  if (prefix.length + room.length > LONGEST_TOPIC) {
    return `The name of a room has at most ${LONGEST_TOPIC - prefix.length} characters.`;
  }
  return "";
}

/** What a link to the page asks for: `/#room=name&name=Ada`. */
export function deepLink() {
  const asked = new URLSearchParams(location.hash.slice(1));
  return { room: asked.get("room") ?? "", name: asked.get("name") ?? "" };
}

/** Shows the room in the address, or none, so that the address can be given to others. A name does not stay in it. */
export function showRoomInAddress(room) {
  const hash = room ? `#${new URLSearchParams({ room })}` : "";
  history.replaceState(history.state, "", `${location.pathname}${location.search}${hash}`);
}

/** The form that gives a connected client. */
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
   * @param {string} prefix of the topics of rooms
   * @param {(client: import("../qws.js").Client, room: string, shown: {token: string, expiresAt: number | null}) => string | void | Promise<string | void>} onSignedIn
   *   goes on with the client, and gives what stands in the way, or ""; the client is closed where one did not want to wait.
   *   `expiresAt` is when the access ends, where the server has told that already
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

  /** Fills in what is known. */
  fill({ name, room }) {
    if (name) this.#name.value = name;
    if (room) this.#room.value = room;
  }

  /**
   * Fills in the name that was used last, or one to begin with, where there is none yet; another one where a tab beside
   * this one has it: two tabs are two people.
   * @param {string | null} last
   * @param {import("./names.js").OtherTabs} tabs
   */
  async suggest(last, tabs) {
    if (this.#name.value !== "") return;
    const before = last || suggestName();
    this.#name.value = before;
    // Enter goes in with it, and what is typed takes its place.
    this.#name.focus();
    this.#name.select();
    const taken = await tabs.names();
    if (!taken.has(before) || this.#name.value !== before || this.#client !== null) return;
    this.#name.value = suggestName(taken);
    if (document.activeElement === this.#name) this.#name.select();
  }

  /** Whether the form is shown, and not busy. */
  get isWaiting() {
    return this.#client === null && !this.#form.closest("[hidden]");
  }

  /** Puts the cursor where something is missing, and says why the form is here again. */
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
      const tell = (words) => this.#client === client && this.#problem.textContent !== words && this.#say(words, true);
      client.addEventListener("error", ({ detail }) => {
        if (detail.kind !== "request") tell("The server cannot be reached. Still trying…");
      });
      client.addEventListener("close", ({ detail }) => detail.willReconnect && tell("The connection was lost. Still trying…"));
      // The server may tell it right behind its answer, before anybody else listens.
      let expiresAt = null;
      client.addEventListener("expiring", ({ detail }) => (expiresAt = detail.expires_at), { once: true });
      await client.ready;
      if (this.#client !== client) return;
      // It is the client's from now on, and nobody's who comes to this page later.
      this.#token.value = "";
      // A server that lets everybody in may allow more to those who come back with a token.
      if (client.permissions !== null) this.#tokenField.hidden = false;
      this.#say("Entering…", false);
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
      this.#say(hadToken ? refusedToken(error.message) : "This server asks for an access token.", true);
      this.#token.focus();
    } else if (error.code === 4403) {
      this.#check(this.#name, `This name cannot be used: ${error.message}`);
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

  /** A problem is said at once, and how far one is when there is nothing else to say. */
  #say(text, isProblem) {
    this.#status.textContent = isProblem ? "" : text;
    this.#problem.textContent = isProblem ? text : "";
  }
}
