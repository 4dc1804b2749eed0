// The rows of the log: one element per entry, created again only if its content has changed.

import { el, icon } from "../ui/dom.js";
import { linked } from "../ui/links.js";
import { avatar } from "../ui/people.js";

// Messages of one person within this time share one heading.
const TOGETHER_MS = 5 * 60_000;
// Longer texts are cut until the reader expands them.
const MAX_CHARACTERS = 1500;
const MAX_LINES = 24;
const MAX_NAMES = 3;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

/**
 * @param {import("./chat.js").Chat} chat
 * @param {import("../ui/people.js").People} people
 * @param {object} how
 * @param {() => void} how.onExpand called before a long text is expanded
 * @param {(event: Event) => void} how.onInvite copies the room's link
 */
export function rowsOf(chat, people, { onExpand, onInvite }) {
  /** @type {WeakMap<object, {signature: string, row: HTMLElement}>} */
  const made = new WeakMap();
  const days = new Map();
  const expanded = new WeakSet();
  let earlierRow = null;
  const fullRow = line("full", "This page cannot show more. Earlier messages remain in the room’s history.");

  function cached(entry, signature, make) {
    const known = made.get(entry);
    if (known?.signature === signature) return known.row;
    const row = make();
    made.set(entry, { signature, row });
    return row;
  }

  /** The row of an entry, preceded by a day divider or the divider of new messages if one belongs there. */
  function entry(conversation, one, before) {
    const rows = [];
    const date = new Date(one.time);
    if (before === null || new Date(before.time).toDateString() !== date.toDateString()) rows.push(dayRow(date));
    const isFirstUnread = conversation.firstUnread === one;
    if (isFirstUnread) rows.push(unreadRow(one));
    rows.push(rowOf(conversation, one, rows.length > 0 ? null : before));
    return rows;
  }

  function rowOf(conversation, one, before) {
    switch (one.type) {
      case "message":
      case "pending":
        return message(conversation, one, before);
      case "presence":
        return presence(one);
      case "gap":
        return gap(conversation, one);
      default:
        return cached(one, "", () => line("note", one.text));
    }
  }

  /** The sender's person, or "own". */
  function senderOf(one) {
    if (one.type === "pending" || people.isUser(one.from)) return "own";
    return one.from === undefined ? undefined : people.personOf(one.from);
  }

  function message(conversation, one, before) {
    const isPending = one.type === "pending";
    const sender = senderOf(one);
    const isOwn = sender === "own";
    const followsMessage = before?.type === "message" || before?.type === "pending";
    const previous = followsMessage ? senderOf(before) : null;
    const isFirst = previous !== sender || one.time - before.time > TOGETHER_MS;
    const name = isOwn ? (chat.client.name ?? "You") : people.name(one.from);
    const mark = isOwn ? "" : chat.markOf(one.from);
    // Messages of the server itself have a badge that no name can imitate.
    const isOfServer = !isOwn && one.from === undefined;
    const signature = [isFirst, isOwn, expanded.has(one), one.state, name, mark].join("\n");
    return cached(one, signature, () => {
      const head = el(
        "p",
        { class: isFirst ? "entry-head" : "entry-head visually-hidden" },
        el("bdi", { class: "entry-name" }, name),
        mark && el("bdi", { class: "entry-mark truncate muted" }, mark),
        isOwn && el("span", { class: "badge accent" }, "You"),
        isOfServer && el("span", { class: "badge", "data-testid": "of-server" }, "From the server"),
        el(
          "time",
          { datetime: new Date(one.time).toISOString(), title: full.format(one.time) },
          clock.format(one.time),
        ),
      );
      return el(
        "li",
        {
          class: `entry message${isFirst ? " first" : ""}${isPending ? ` ${one.state}` : ""}`,
          "data-type": one.type,
          "data-offset": one.offset,
          "data-from": one.from,
          "data-own": isOwn ? "true" : undefined,
        },
        isFirst
          ? isOfServer
            ? el("span", { class: "avatar of-server", "aria-hidden": "true" }, icon("everyone"))
            : avatar(name)
          : el("time", { class: "entry-aside", "aria-hidden": "true" }, clock.format(one.time)),
        el("div", { class: "entry-body" }, head, ...text(conversation, one), isPending && state(conversation, one)),
      );
    });
  }

  function text(conversation, one) {
    const whole = one.text ?? "";
    const isLong = !expanded.has(one) && (whole.length > MAX_CHARACTERS || linesExceed(whole, MAX_LINES));
    if (!isLong) return [el("p", { class: "entry-text", dir: "auto" }, ...linked(whole))];
    const show = () => {
      onExpand();
      expanded.add(one);
      chat.dispatchEvent(new Event("change"));
    };
    const characters = whole.length.toLocaleString();
    return [
      el("p", { class: "entry-text cut", dir: "auto" }, ...linked(beginning(whole), { isCut: true }), "…"),
      el(
        "button",
        { class: "button small", type: "button", "data-testid": "show-all", onclick: show },
        `Show all (${characters} characters)`,
      ),
    ];
  }

  function state(conversation, one) {
    if (one.state === "sending") return el("p", { class: "entry-state muted" }, "Sending…");
    return el(
      "p",
      { class: "entry-state" },
      el(
        "span",
        { class: "problem" },
        `${one.unsureSince === undefined ? "Not sent." : "May have been sent."} ${one.problem ?? ""}`,
      ),
      el(
        "button",
        { class: "button small", type: "button", "data-testid": "retry", onclick: () => chat.retry(conversation, one) },
        "Try again",
      ),
      el(
        "button",
        {
          class: "button small quiet",
          type: "button",
          "data-testid": "discard",
          onclick: () => chat.discard(conversation, one),
        },
        "Discard",
      ),
    );
  }

  function presence(one) {
    const signature = [one.joined, one.left].map((list) => list.map(({ name }) => name).join("\n")).join("\n\n");
    return cached(one, signature, () => {
      const parts = [
        one.joined.length > 0 && `${names(one.joined)} joined`,
        one.left.length > 0 && `${names(one.left)} left`,
      ];
      return line("presence", parts.filter(Boolean).join(" · "));
    });
  }

  function gap(conversation, one) {
    const count = one.last - one.first + 1;
    return cached(one, `${one.first}\n${one.state}\n${one.problem}`, () => {
      const missed = `You missed ${count === 1 ? "1 message" : `${count.toLocaleString()} messages`}.`;
      const them = count === 1 ? "it" : "them";
      const row = el("li", { class: "entry gap notice warn", "data-type": "gap" });
      if (one.state === "gone") {
        row.append(el("span", {}, `${missed} The server no longer has ${them}.`));
        return row;
      }
      const isFetching = one.state === "fetching";
      row.append(
        el("span", {}, one.problem && !isFetching ? `${missed} Could not load ${them}: ${one.problem}` : missed),
        el(
          "button",
          {
            class: "button small",
            type: "button",
            "data-testid": "fetch-gap",
            disabled: isFetching,
            onclick: () => chat.fillGap(conversation, one),
          },
          isFetching ? "Loading…" : `Load ${them}`,
        ),
      );
      return row;
    });
  }

  function earlier(conversation) {
    if (conversation.isFull) return fullRow;
    const isLoading = conversation.isLoadingEarlier;
    if (earlierRow?.conversation === conversation && earlierRow.isLoading === isLoading) return earlierRow.row;
    const button = el(
      "button",
      {
        class: "button small",
        type: "button",
        "data-testid": "load-earlier",
        disabled: isLoading,
        onclick: () => {
          onExpand();
          chat.loadEarlier(conversation);
        },
      },
      isLoading ? "Loading…" : "Load earlier messages",
    );
    const row = el("li", { class: "entry line", "data-type": "earlier" }, button);
    earlierRow = { conversation, isLoading, row };
    return row;
  }

  function empty(conversation) {
    if (conversation.kind === "room") return emptyRoom(conversation);
    const words =
      conversation.kind === "direct"
        ? `Only you and ${chat.nameOf(conversation)} see this conversation.`
        : "Everyone on this server sees this, whatever room they are in.";
    return el("li", { class: "entry empty", "data-type": "empty" }, el("p", {}, words));
  }

  /** What to do in an empty room: write, or invite someone. Cached, so that its buttons keep the focus. */
  function emptyRoom(conversation) {
    const isAlone = chat.rosterOf(conversation)?.total === 1;
    const mayWrite = chat.closedBecause(conversation) === "";
    return cached(conversation, `${isAlone}\n${mayWrite}`, () =>
      el(
        "li",
        { class: "entry empty", "data-type": "empty" },
        el("p", { class: "empty-title" }, "No messages yet."),
        mayWrite && el("p", {}, isAlone ? "Write the first one, or invite someone:" : "Say hello!"),
        isAlone &&
          el(
            "p",
            { class: "empty-actions" },
            el(
              "button",
              { class: "button", type: "button", "data-testid": "empty-invite", onclick: onInvite },
              icon("link"),
              "Copy invite link",
            ),
            el(
              "a",
              // `noopener` gives the new tab an empty session storage, so it signs in as another person.
              {
                class: "button",
                href: invitation(conversation.id),
                target: "_blank",
                rel: "noopener",
                "data-testid": "empty-second",
              },
              icon("people"),
              "Join from a second tab",
            ),
          ),
      ),
    );
  }

  function dayRow(date) {
    const key = date.toDateString();
    if (!days.has(key))
      days.set(key, el("li", { class: "entry divider", "data-type": "day" }, el("span", {}, day.format(date))));
    return days.get(key);
  }

  const unreadRows = new WeakMap();
  function unreadRow(one) {
    if (!unreadRows.has(one)) {
      unreadRows.set(one, el("li", { class: "entry divider new", "data-type": "new" }, el("span", {}, "New messages")));
    }
    return unreadRows.get(one);
  }

  return { entry, earlier, empty };
}

/** The address that others use to join a room. */
export function invitation(room) {
  const link = new URL(location.href);
  link.hash = new URLSearchParams({ room }).toString();
  return link.href;
}

function line(type, words) {
  return el("li", { class: "entry line", "data-type": type }, el("span", {}, words));
}

/** Up to three names for a sentence, and the number of others. Each is isolated, as it may be right-to-left. */
function names(list) {
  const isolated = list.slice(0, MAX_NAMES).map(({ name }) => `\u2068${name}\u2069`);
  const rest = list.length - isolated.length;
  if (rest > 0) return `${isolated.join(", ")} and ${rest.toLocaleString()} more`;
  return isolated.length < 2 ? isolated.join("") : `${isolated.slice(0, -1).join(", ")} and ${isolated.at(-1)}`;
}

function linesExceed(text, most) {
  let at = -1;
  for (let lines = 0; lines < most; lines += 1) {
    at = text.indexOf("\n", at + 1);
    if (at < 0) return false;
  }
  return true;
}

/** The part of a long text that is shown at first. Never cut within a character. */
function beginning(text) {
  const cut = text.slice(0, MAX_CHARACTERS).split("\n", MAX_LINES).join("\n");
  return /[\ud800-\udbff]$/.test(cut) ? cut.slice(0, -1) : cut;
}
