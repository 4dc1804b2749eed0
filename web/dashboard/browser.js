// The topic browser: all topics by name, and of the chosen one its messages, page by page or as they come, and its
// members.

import { byId, make, setAttribute, setMessage, setText } from "./dom.js";
import * as format from "./format.js";
import { partsOf, senderOf } from "./message.js";
import { Tap } from "./tap.js";

const TOPICS = 50;
const MESSAGES = 50;
const MEMBERS = 50;
/** Most messages that are shown: a tap drops the oldest. */
const MAX_MESSAGES = 500;
/** The list of topics is requested again after this time. */
const REFRESH_MS = 5000;
const SEARCH_MS = 250;

export class TopicBrowser {
  #api;
  #search = byId("topic-search");
  #list = byId("browser-topics");
  #messages = byId("browser-messages");
  #members = byId("browser-members");
  #tapButton = byId("tap");
  #older = byId("older");
  #tap;
  #topics = [];
  #asked = TOPICS;
  #refreshedAt = -Infinity;
  #searching = 0;
  #listing = null;
  /**
   * What is shown of the chosen topic.
   * @type {{ topic: string, position: object | null, oldest: number | null } | null}
   */
  #shown = null;
  #opening = null;
  #memberPages = [];

  constructor(api) {
    this.#api = api;
    this.#tap = new Tap({ api, heard: (heard) => this.#heard(heard), failed: (error) => this.#tapFailed(error) });
    this.#search.addEventListener("input", () => {
      clearTimeout(this.#searching);
      this.#searching = setTimeout(() => {
        this.#asked = TOPICS;
        this.#refresh();
      }, SEARCH_MS);
    });
    byId("more-topics").addEventListener("click", () => {
      this.#asked += TOPICS;
      this.#refresh();
    });
    this.#tapButton.addEventListener("click", () => (this.#tap.isRunning ? this.#untap() : this.#startTap()));
    this.#older.addEventListener("click", () => this.#loadOlder());
    byId("browser-refresh").addEventListener("click", () => this.#shown && this.open(this.#shown.topic));
    byId("more-members").addEventListener("click", () => this.#loadMembers(this.#memberPages.at(-1)?.next));
  }

  /** The server has answered: the list of topics is brought up to date, now and then. */
  polled() {
    if (performance.now() - this.#refreshedAt >= REFRESH_MS) this.#refresh();
  }

  /** The page no longer asks the server: neither does this. */
  pause() {
    this.#untap();
    this.#listing?.abort();
  }

  /** Shows a topic. */
  async open(topic) {
    this.#untap();
    this.#opening?.abort();
    const opening = new AbortController();
    this.#opening = opening;
    const { signal } = opening;
    this.#shown = { topic, position: null, oldest: null };
    this.#memberPages = [];
    byId("browser-detail").hidden = false;
    byId("browser-hint").hidden = true;
    setText(byId("browser-title"), topic);
    this.#messages.replaceChildren();
    this.#members.replaceChildren();
    this.#markChosen();
    this.#report("");
    this.#say("Loading…");
    try {
      const page = await this.#api.history({ topic, limit: MESSAGES, reverse: true, signal });
      if (signal.aborted) return;
      this.#shown.position = { epoch: page.epoch, offset: page.offset };
      this.#append(page);
      this.#say(this.#summary(page));
    } catch (error) {
      if (signal.aborted) return;
      this.#say("");
      this.#report(explain(error));
    }
    await this.#loadMembers();
  }

  #summary({ messages, offset }) {
    if (messages.length > 0) return "Newest first.";
    if (offset > 0) return `${format.plural(offset, "message")} so far, none of which is kept.`;
    return "No messages yet.";
  }

  async #loadOlder() {
    const { topic, position, oldest } = this.#shown;
    this.#older.disabled = true;
    try {
      const asked = { topic, limit: MESSAGES, reverse: true, epoch: position.epoch, offset: oldest };
      const page = await this.#api.history({ ...asked, signal: this.#opening.signal });
      if (this.#shown?.topic === topic) this.#append(page);
    } catch (error) {
      if (error.name !== "AbortError") this.#report(explain(error));
    } finally {
      this.#older.disabled = false;
    }
  }

  /** Adds a page, newest first, at the end. */
  #append({ messages, more, epoch }) {
    for (const message of messages) this.#messages.append(rowOf(message));
    if (messages.length > 0) this.#shown.oldest = messages.at(-1).offset;
    const isFull = this.#messages.childElementCount >= MAX_MESSAGES;
    this.#older.hidden = !more || epoch !== this.#shown.position.epoch || isFull;
  }

  #startTap() {
    const { topic, position } = this.#shown ?? {};
    if (!position) return;
    setAttribute(this.#tapButton, "aria-pressed", "true");
    setText(this.#tapButton, "Stop tap");
    this.#report("");
    this.#say("Waiting for messages…");
    this.#tap.start(topic, position);
  }

  #untap() {
    if (!this.#tap.isRunning) return;
    this.#tap.stop();
    this.#showUntapped();
  }

  #showUntapped() {
    setAttribute(this.#tapButton, "aria-pressed", "false");
    setText(this.#tapButton, "Tap live");
    this.#say("Tap stopped.");
  }

  #heard({ messages, skipped, restarted, position }) {
    this.#shown.position = position;
    this.#report("");
    if (restarted) {
      this.#messages.prepend(noteOf("The topic’s log began again."));
      // What is older is in no log any longer.
      this.#older.hidden = true;
    }
    if (skipped > 0) {
      const some = `${format.plural(skipped, "message")} passed that ${skipped === 1 ? "is" : "are"} not shown.`;
      this.#messages.prepend(noteOf(some));
    }
    for (const message of messages) this.#messages.prepend(rowOf(message, true));
    while (this.#messages.childElementCount > MAX_MESSAGES) this.#messages.lastElementChild.remove();
    const oldest = [...this.#messages.children].findLast((row) => row.dataset.offset !== undefined);
    if (oldest) this.#shown.oldest = Number(oldest.dataset.offset);
    this.#say(`Live. Last message at ${format.clock(Date.now())}.`);
  }

  #tapFailed(error) {
    this.#report(explain(error));
    const isPassing = error.status === undefined || error.status >= 500 || error.status === 429;
    if (!isPassing) queueMicrotask(() => this.#showUntapped());
    return isPassing;
  }

  async #loadMembers(after) {
    const { topic } = this.#shown;
    const { signal } = this.#opening;
    try {
      const page = await this.#api.members({ topic, limit: MEMBERS, after, signal });
      if (signal.aborted) return;
      this.#memberPages.push(page);
      for (const member of page.clients) this.#members.append(memberOf(member));
      byId("more-members").hidden = page.next === undefined;
      const users = page.users > 0 ? `, ${format.plural(page.users, "user")}` : "";
      setText(byId("browser-member-count"), `${format.plural(page.total, "member")}${users}`);
      const unnamed = page.total > 0 && this.#members.childElementCount === 0;
      setMessage(byId("browser-member-note"), unnamed ? "This topic only counts its members." : "");
    } catch (error) {
      if (signal.aborted) return;
      setText(byId("browser-member-count"), "");
      byId("more-members").hidden = true;
      setMessage(byId("browser-member-note"), explain(error));
    }
  }

  async #refresh() {
    this.#refreshedAt = performance.now();
    this.#listing?.abort();
    const listing = new AbortController();
    this.#listing = listing;
    const contains = this.#search.value.trim();
    try {
      let topics = [];
      let page;
      do {
        const limit = Math.min(200, this.#asked - topics.length);
        page = await this.#api.topics({ contains, limit, after: page?.next, signal: listing.signal });
        topics = [...topics, ...page.topics];
      } while (page.next !== undefined && topics.length < this.#asked);
      this.#topics = topics;
      this.#showTopics(page, contains);
    } catch (error) {
      // If the server is away or wants another token, the page says so already.
      if (listing.signal.aborted || error.status === undefined || error.isAboutToken) return;
      setText(byId("browser-count"), explain(error));
    }
  }

  #showTopics({ total, next }, contains) {
    const rows = new Map([...this.#list.children].map((row) => [row.dataset.topic, row]));
    const wanted = this.#topics.map((topic) => fillTopic(rows.get(topic.topic) ?? this.#topicRow(topic.topic), topic));
    const kept = new Set(wanted);
    for (const row of rows.values()) if (!kept.has(row)) row.remove();
    wanted.forEach((row, at) => {
      if (this.#list.children[at] !== row) this.#list.insertBefore(row, this.#list.children[at] ?? null);
    });
    this.#markChosen();
    byId("more-topics").hidden = next === undefined;
    const some = contains === "" ? format.plural(total, "topic") : `${format.plural(total, "topic")} matching`;
    setText(byId("browser-count"), some);
  }

  #topicRow(name) {
    const button = make(
      "button",
      { type: "button", class: "browser-topic", "data-testid": "browser-topic", "data-topic": name },
      make("span", { class: "truncate mono" }, name),
      make("span", { class: "muted browser-facts" }),
    );
    button.addEventListener("click", () => this.open(name));
    return make("li", { "data-topic": name }, button);
  }

  #markChosen() {
    for (const { firstElementChild: button } of this.#list.children) {
      setAttribute(button, "aria-current", button.dataset.topic === this.#shown?.topic ? "true" : null);
    }
  }

  #report(text) {
    setMessage(byId("browser-problem"), text);
  }

  #say(text) {
    setText(byId("browser-status"), text);
  }
}

function fillTopic(row, { topic, subscribers, per_second, offset, durable, history }) {
  const [name, facts] = row.firstElementChild.children;
  setAttribute(name, "title", topic);
  const kept = durable ? "on disk" : history ? "" : "not kept";
  const counts = [format.plural(subscribers, "subscriber"), format.plural(offset, "message")];
  setText(facts, [`${format.rate(per_second)}/s`, ...counts, kept].filter(Boolean).join(" · "));
  return row;
}

function rowOf(message, isNew = false) {
  const sender = senderOf(message);
  const parts = partsOf(message).map(({ kind, text }) =>
    make(
      kind === "json" ? "pre" : "p",
      { class: `message-${kind}`, "data-testid": `message-${kind}`, dir: "auto" },
      text,
    ),
  );
  return make(
    "li",
    { class: isNew ? "message new" : "message", "data-testid": "message-row", "data-offset": message.offset },
    make(
      "p",
      { class: "message-head" },
      make("bdi", { class: "truncate message-sender", title: message.from ?? "" }, sender),
      make("span", { class: "muted mono" }, `#${message.offset}`),
      make("time", { class: "muted", datetime: new Date(message.timestamp).toISOString() }, timeOf(message.timestamp)),
    ),
    ...parts,
  );
}

const timeOf = (time) =>
  new Date(time).toDateString() === new Date().toDateString() ? format.clock(time) : format.moment(time);

const noteOf = (text) => make("li", { class: "message note muted", "data-testid": "tap-note" }, text);

function memberOf({ id, name, user, state, clients, away }) {
  const facts = [
    user !== undefined && user !== name && `user ${user}`,
    clients > 1 && format.plural(clients, "client"),
    away && "connection lost",
  ].filter(Boolean);
  const row = make(
    "li",
    { class: "member", "data-testid": "member-row", "data-client": id },
    make("bdi", { class: "truncate" }, name ?? user ?? "Unnamed"),
  );
  if (facts.length > 0) row.append(make("span", { class: "truncate muted" }, facts.join(" · ")));
  row.append(make("span", { class: "truncate muted mono", title: id }, id));
  if (state !== undefined) row.append(make("span", { class: "truncate mono member-state" }, JSON.stringify(state)));
  return row;
}

const explain = (error) =>
  error.status === undefined ? "The server cannot be reached." : format.sentence(error.message);
