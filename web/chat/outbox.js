// Sends the user's messages. A message is pending in its conversation until the server has accepted it, and can be sent
// again if that fails. Does not know which conversations exist.

import { QwsError } from "../qws.js";
import { userOf } from "../ui/people.js";
import { TOPIC_PREFIX } from "./room.js";

// The server remembers the key of a message for two minutes by default; after that, a second attempt may publish a
// second message.
const KEY_KNOWN_MS = 110_000;
// The most that the server adds to a message, according to the protocol.
const ADDED_BYTES = 1024;

/** Dispatches "change" when anything visible has changed, and "sent" when a direct conversation has grown. */
export class Outbox extends EventTarget {
  #client;
  #people;

  /**
   * @param {import("../qws.js").Client} client connected
   * @param {import("../ui/people.js").People} people
   */
  constructor(client, people) {
    super();
    this.#client = client;
    this.#people = people;
  }

  /** The reason why this text cannot be sent, or "". */
  problem(text) {
    const most = this.#client.limits?.max_message_bytes;
    if (most === undefined) return "";
    const over = new TextEncoder().encode(JSON.stringify(text)).length + ADDED_BYTES - most;
    return over > 0 ? `Too long by ${over.toLocaleString()} ${over === 1 ? "byte" : "bytes"}.` : "";
  }

  /** Sends a message to a conversation. */
  send(conversation, text) {
    const entry = { type: "pending", time: Date.now(), text, state: "sending", key: crypto.randomUUID() };
    conversation.pending.push(entry);
    this.#changed();
    return this.#deliver(conversation, entry);
  }

  /** Sends a failed message again. The server accepts it only once, as long as it remembers the key. */
  retry(conversation, entry) {
    if (isKeyForgotten(entry)) {
      // The user has seen that it may have been sent, and wants to send it once more.
      entry.key = crypto.randomUUID();
      entry.unsureSince = undefined;
    }
    entry.state = "sending";
    this.#changed();
    return this.#deliver(conversation, entry);
  }

  discard(conversation, entry) {
    remove(conversation.pending, entry);
    this.#changed();
  }

  /** Removes a pending message that the server has delivered back to its sender. */
  confirm(conversation, entry) {
    const sent = conversation.pending.find((one) => one.offset !== undefined && isSame(one, entry));
    // The message itself may arrive before the server's reply to the request.
    const same = sent ?? conversation.pending.find(({ text, offset }) => text === entry.text && offset === undefined);
    if (same) remove(conversation.pending, same);
  }

  async #deliver(conversation, entry) {
    try {
      if (conversation.kind === "room") await this.#publish(conversation, entry);
      else if (conversation.kind === "direct") await this.#direct(conversation, entry);
      else await this.#client.broadcast(entry.text);
      if (conversation.kind === "all") remove(conversation.pending, entry);
    } catch (error) {
      entry.state = "failed";
      // A message that was refused was not sent. Without an answer it may have been.
      if (["closed", "timeout", "transport"].includes(error.kind)) entry.unsureSince ??= entry.time;
      entry.problem = this.#why(conversation, error);
    }
    this.#changed();
  }

  async #publish(conversation, entry) {
    const { epoch, offset, duplicate } = await this.#published(conversation, entry);
    entry.epoch = epoch;
    entry.offset = offset;
    // It may already be here: long before this reply, or matched with another pending message of the same text.
    if (duplicate || conversation.entries.some((said) => isSame(said, entry))) remove(conversation.pending, entry);
  }

  /** Publishes, again after a reconnect if necessary: for a while the key makes that safe. */
  async #published(conversation, entry) {
    for (;;) {
      // A message that never left the page may wait as long as necessary.
      let mayBeSent = this.#client.state === "open";
      const opened = () => (mayBeSent = true);
      this.#client.addEventListener("open", opened);
      const begun = Date.now();
      try {
        return await this.#client.publish(TOPIC_PREFIX + conversation.id, entry.text, { key: entry.key });
      } catch (error) {
        if (mayBeSent && error.kind === "timeout") entry.unsureSince ??= begun;
        if (error.kind !== "timeout" || this.#client.state !== "reconnecting") throw error;
      } finally {
        this.#client.removeEventListener("open", opened);
      }
      while (this.#client.state === "reconnecting") {
        await new Promise((changed) => this.#client.addEventListener("state", changed, { once: true }));
      }
      if (isKeyForgotten(entry)) throw new QwsError("timeout", "The connection was lost before the server answered.");
    }
  }

  async #direct(conversation, entry) {
    const user = userOf(conversation.id);
    await this.#client.direct(user === null ? conversation.id : { user }, entry.text);
    remove(conversation.pending, entry);
    // The server delivers it only to the other. A message to the user's own clients arrives like any other.
    const { id } = this.#client;
    if (!this.#people.isUser(conversation.id)) {
      conversation.append({ type: "message", time: Date.now(), from: id, text: entry.text });
    }
    conversation.hasOwn = true;
    this.dispatchEvent(new Event("sent"));
  }

  #why(conversation, error) {
    if (conversation.kind === "direct" && error.code === 404) {
      return `${this.#people.name(conversation.id)} is no longer connected.`;
    }
    if (error.code === 403) return "You are not allowed to do this.";
    if (error.kind === "closed") return "You are not connected.";
    return error.message;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Whether the server may have forgotten the key, and would accept the message as a new one. */
const isKeyForgotten = ({ unsureSince }) => unsureSince !== undefined && Date.now() - unsureSince > KEY_KNOWN_MS;

const isSame = (one, other) => one.offset === other.offset && one.epoch === other.epoch;

function remove(list, item) {
  const at = list.indexOf(item);
  if (at >= 0) list.splice(at, 1);
}
