// What was typed and not sent, over signing in again: kept in memory alone, and for who typed it.

export class Drafts {
  #whose = "";
  /** @type {Map<string, string>} by the key of the conversation */
  #texts = new Map();

  /** They are this one's from now on. What somebody else typed is forgotten. */
  belongTo(who) {
    if (who !== this.#whose) this.forget();
    this.#whose = who;
  }

  /** @param {Iterable<import("./conversation.js").Conversation>} conversations */
  keep(conversations) {
    for (const { key, draft } of conversations) if (draft !== "") this.#texts.set(key, draft);
  }

  /** Gives back what was kept of a conversation, or "", and keeps it no longer. */
  take(key) {
    const text = this.#texts.get(key) ?? "";
    this.#texts.delete(key);
    return text;
  }

  forget() {
    this.#texts.clear();
  }
}
