// Unsent texts, kept while the user signs in again: in memory only, and only for the same user.

export class Drafts {
  #owner = "";
  /** @type {Map<string, string>} by the conversation's key */
  #texts = new Map();

  /** Sets the owner of the texts. Those of another user are dropped. */
  setOwner(owner) {
    if (owner !== this.#owner) this.forget();
    this.#owner = owner;
  }

  /** @param {Iterable<import("./conversation.js").Conversation>} conversations */
  keep(conversations) {
    for (const { key, draft } of conversations) if (draft !== "") this.#texts.set(key, draft);
  }

  /** Returns and removes the text of a conversation, or "". */
  take(key) {
    const text = this.#texts.get(key) ?? "";
    this.#texts.delete(key);
    return text;
  }

  forget() {
    this.#texts.clear();
  }
}
