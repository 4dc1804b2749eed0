// What one says oneself, on its way: it stands in its conversation as pending until the server has taken it, and what failed
// can be tried again. Knows nothing of which conversations there are.

import { QwsError } from "../qws.js";
import { TOPIC_PREFIX } from "./room.js";

// The server knows the key of a message for two minutes, where it is not told otherwise; past that, a second try may be a
// second message.
const KEY_KNOWN_MS = 110_000;
// What the server adds to a message, at most, as the protocol has it.
const ADDED_BYTES = 1024;

/** Dispatches "change" when anything to show has changed, and "sent" when a conversation between two has grown by it. */
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

  /** Why this text cannot be sent, or "". */
  problem(text) {
    const most = this.#client.limits?.max_message_bytes;
    if (most === undefined) return "";
    const over = new TextEncoder().encode(JSON.stringify(text)).length + ADDED_BYTES - most;
    return over > 0 ? `Too long by ${over.toLocaleString()} bytes.` : "";
  }

  /** Says something in a conversation. */
  send(conversation, text) {
    const entry = { type: "pending", time: Date.now(), text, state: "sending", key: crypto.randomUUID() };
    conversation.pending.push(entry);
    this.#changed();
    return this.#deliver(conversation, entry);
  }

  /** Tries again to send what failed; the server takes it once, whatever became of the first try, as long as it knows the key. */
  retry(conversation, entry) {
    if (isKeyForgotten(entry)) {
      // One was told that it may have been sent, and wants it once more.
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

  /** One's own message has come in as others get it: it is no longer pending. */
  cameBack(conversation, entry) {
    const sent = conversation.pending.find((one) => one.offset !== undefined && isSame(one, entry));
    // The message itself can be here before the server's word that it was taken.
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
      // Whoever refuses it has not sent it; without an answer nobody knows.
      if (["closed", "timeout", "transport"].includes(error.kind)) entry.unsureSince ??= entry.time;
      entry.problem = this.#why(conversation, error);
    }
    this.#changed();
  }

  async #publish(conversation, entry) {
    const { epoch, offset, duplicate } = await this.#published(conversation, entry);
    entry.epoch = epoch;
    entry.offset = offset;
    // It may have come already, taken for another one with the same text or long before this answer.
    if (duplicate || conversation.entries.some((said) => isSame(said, entry))) remove(conversation.pending, entry);
  }

  /** Publishes, if need be when the connection is back: the key makes it safe to ask again, for a while. */
  async #published(conversation, entry) {
    for (;;) {
      // What never left the page may wait for as long as it takes.
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
      if (isKeyForgotten(entry)) throw new QwsError("timeout", "The connection was lost before the server’s answer.");
    }
  }

  async #direct(conversation, entry) {
    await this.#client.direct(conversation.id, entry.text);
    remove(conversation.pending, entry);
    // The server tells it to the other alone; to oneself it comes by itself.
    const { id } = this.#client;
    if (id !== conversation.id) conversation.append({ type: "message", time: Date.now(), from: id, text: entry.text });
    conversation.hasOwn = true;
    this.dispatchEvent(new Event("sent"));
  }

  #why(conversation, error) {
    if (conversation.kind === "direct" && error.code === 404) {
      return `${this.#people.name(conversation.id)} is no longer connected.`;
    }
    if (error.code === 403) return "Your access does not allow this.";
    if (error.kind === "closed") return "You are not connected.";
    return error.message;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Whether the server may take it for another message by now. */
const isKeyForgotten = ({ unsureSince }) => unsureSince !== undefined && Date.now() - unsureSince > KEY_KNOWN_MS;

const isSame = (one, other) => one.offset === other.offset && one.epoch === other.epoch;

function remove(list, item) {
  const at = list.indexOf(item);
  if (at >= 0) list.splice(at, 1);
}
