// The table of clients: sortable, filterable, with buttons in each row to disconnect that client, or to do something
// else with it or its user. The order is frozen while the pointer or the keyboard focus is in the rows, so that no row
// moves away just before a click on its button. A pointer that rests there without moving releases the order after a
// while.

import { Rows, byId, make, setAttribute, setNumber, setText } from "./dom.js";
import * as format from "./format.js";
import { FIELDS, held, matching, sorted } from "./listing.js";

const HEADINGS = [
  ["name", "Client"],
  ["transport", "Carrier"],
  ["address", "Address"],
  ["connected_at", "Connected for"],
  ["rtt_ms", "Round trip"],
  ["loss_percent", "Loss"],
  ["queued_messages", "Messages waiting"],
  ["queued_bytes", "Bytes waiting"],
  ["subscriptions", "Subscriptions"],
];
/** The order is frozen for this long after the last pointer movement or key in the rows. */
const HOLD_MS = 15_000;
/** Number of rows drawn at first, and added by "show more": each row costs time every second. */
const ROWS = 100;
const TEXTS = ["name", "transport", "address"];

export class ClientsTable {
  #table = byId("clients");
  #body = this.#table.tBodies[0];
  #filter = byId("client-filter");
  #count = byId("client-count");
  #rows;
  #order = { field: "queued_bytes", direction: "descending" };
  #clients = [];
  #shown = [];
  #total = 0;
  #now = 0;
  #drawn = ROWS;
  #pointed = false;
  #heldUntil = 0;
  #known = false;

  /**
   * `disconnect(client)`, `manage(client)` and `openUser(user)` are called by the buttons in the rows, `limitChanged()`
   * when the limit is changed.
   */
  constructor({ disconnect, manage, openUser, limitChanged }) {
    this.#rows = new Rows(this.#body, {
      key: (client) => client.id,
      empty: "",
      prepare: (row, client) => {
        setAttribute(row, "data-testid", "client-row");
        setAttribute(row, "data-client", client.id);
        setAttribute(row, "data-unlisted", client.unlisted ? "true" : null);
      },
      columns: this.#columns({ disconnect, manage, openUser }),
    });
    this.#makeHeadings();
    this.#filter.addEventListener("input", () => this.#draw({ hold: false }));
    byId("client-limit").addEventListener("change", limitChanged);
    byId("show-more").addEventListener("click", () => {
      this.#drawn += ROWS;
      this.#draw({ hold: false });
    });
    this.#body.addEventListener("pointerenter", () => (this.#pointed = true));
    for (const sign of ["pointerenter", "pointermove", "focusin", "keydown"]) {
      this.#body.addEventListener(sign, () => (this.#heldUntil = performance.now() + HOLD_MS));
    }
    this.#body.addEventListener("pointerleave", () => this.#release());
    this.#body.addEventListener("pointercancel", () => this.#release());
    this.#body.addEventListener("focusout", () => queueMicrotask(() => this.#draw({ hold: this.#isHeld })));
  }

  /** The number of clients to request from the server. */
  get limit() {
    return Number(byId("client-limit").value);
  }

  show({ list, clients, now }) {
    this.#clients = list ?? [];
    this.#total = clients?.total ?? this.#clients.length;
    this.#now = now;
    this.#known = true;
    this.#draw({ hold: this.#isHeld });
  }

  /** Removes what this page has disconnected, frozen or not. The keyboard focus stays close. */
  remove({ client, user }) {
    const isGone = (one) => (user === undefined ? one.id === client : one.user === user);
    const others = (clients) => clients.filter((one) => !isGone(one));
    this.#clients = others(this.#clients);
    this.#shown = others(this.#shown);
    byId("clients-scroll").focus();
    this.#draw({ hold: this.#isHeld });
  }

  get #isHeld() {
    const isUsed = this.#pointed || this.#body.contains(document.activeElement);
    return isUsed && performance.now() < this.#heldUntil;
  }

  #release() {
    this.#pointed = false;
    this.#draw({ hold: this.#isHeld });
  }

  #draw({ hold }) {
    if (!this.#known) return;
    const inOrder = sorted(matching(this.#clients, this.#filter.value), this.#order);
    this.#shown = (hold ? held(this.#shown, inOrder) : inOrder).slice(0, this.#drawn);
    const empty = this.#clients.length === 0 ? "No clients connected." : "No clients match the filter.";
    const hadFocus = this.#body.contains(document.activeElement);
    this.#rows.show(this.#shown, empty);
    // If the focused row is gone, the keyboard continues from the table, not from the top of the page.
    if (hadFocus && !this.#body.contains(document.activeElement)) byId("clients-scroll").focus({ preventScroll: true });
    this.#showCount(inOrder.length, hold);
    const more = inOrder.length - this.#drawn;
    byId("clients-more").hidden = more <= 0;
    setText(byId("show-more"), `Show ${format.count(Math.min(more, ROWS))} more of ${format.count(inOrder.length)}`);
  }

  #showCount(matches, hold) {
    const parts = [];
    if (this.#filter.value.trim() !== "") parts.push(`${format.count(matches)} matching`);
    const listed = this.#clients.length;
    const all = format.count(this.#total);
    if (listed < this.#total) parts.push(`the ${format.count(listed)} of ${all} with the most bytes waiting`);
    else parts.push(format.plural(listed, "client"));
    if (hold && listed > 0) parts.push("order frozen while you are in the rows");
    setText(this.#count, parts.join(" · "));
  }

  #makeHeadings() {
    const row = this.#table.tHead.rows[0];
    for (const [field, label] of HEADINGS) {
      const button = make(
        "button",
        { type: "button", class: "sort", "data-testid": `sort-${field}` },
        make("span", {}, label),
      );
      button.addEventListener("click", () => this.#sortBy(field));
      row.append(
        make("th", { scope: "col", class: TEXTS.includes(field) ? "" : "number", "data-sort": field }, button),
      );
    }
    row.append(make("th", { scope: "col", class: "action" }, make("span", { class: "visually-hidden" }, "Actions")));
    this.#markHeadings();
  }

  #sortBy(field) {
    const { first } = FIELDS[field];
    const other = first === "ascending" ? "descending" : "ascending";
    const again = this.#order.field === field && this.#order.direction === first;
    this.#order = { field, direction: again ? other : first };
    this.#markHeadings();
    this.#draw({ hold: false });
  }

  #markHeadings() {
    for (const heading of this.#table.tHead.querySelectorAll("[data-sort]")) {
      setAttribute(heading, "aria-sort", heading.dataset.sort === this.#order.field ? this.#order.direction : null);
    }
  }

  #columns({ disconnect, manage, openUser }) {
    const field = (name) => (cell) => setAttribute(cell, "data-field", name);
    const number = (name, form, value = (client) => client[name]) => ({
      number: true,
      make: (cell) => setAttribute(cell, "data-metric", `list.${name}`),
      fill: (cell, client) => setNumber(cell, value(client), form),
    });
    return [
      { heading: true, make: (cell) => makeIdentity(cell, openUser), fill: fillIdentity },
      { make: field("transport"), fill: (cell, client) => setText(cell, format.carrier(client.transport)) },
      {
        make: (cell) => {
          setAttribute(cell, "data-field", "address");
          cell.className = "address truncate mono";
        },
        fill: (cell, client) => {
          setText(cell, format.text(client.address));
          setAttribute(cell, "title", client.address ?? null);
        },
      },
      {
        number: true,
        make: (cell) => setAttribute(cell, "data-metric", "list.connected_at"),
        fill: (cell, client) => {
          setText(cell, format.duration(this.#now - client.connected_at));
          setAttribute(cell, "data-value", client.connected_at);
          setAttribute(cell, "title", `since ${format.moment(client.connected_at)}`);
        },
      },
      number("rtt_ms", format.ms),
      number("loss_percent", format.percent),
      number("queued_messages", format.count),
      number("queued_bytes", format.bytes),
      number("subscriptions", format.count),
      this.#action(disconnect, manage),
    ];
  }

  #action(disconnect, manage) {
    return {
      make: (cell) => {
        cell.className = "action";
        const button = make(
          "button",
          { type: "button", class: "button small", "data-testid": "disconnect" },
          "Disconnect",
        );
        const more = make("button", { type: "button", class: "button small", "data-testid": "manage" }, "⋯");
        for (const [element, act] of [
          [button, disconnect],
          [more, manage],
        ]) {
          element.addEventListener("click", () => {
            const { client } = cell.closest("tr").dataset;
            const found = this.#shown.find(({ id, unlisted }) => id === client && !unlisted);
            if (found !== undefined) act(found);
          });
        }
        cell.append(make("div", { class: "row-actions" }, button, more));
      },
      fill: (cell, client) => {
        const [button, more] = cell.firstChild.children;
        more.hidden = Boolean(client.unlisted);
        setAttribute(more, "aria-label", `More about ${format.nameOf(client)}`);
        setText(button, client.unlisted ? "Not listed" : "Disconnect");
        setAttribute(button, "aria-label", client.unlisted ? null : `Disconnect ${format.nameOf(client)}`);
        // Not disabled, because that would drop the keyboard focus.
        setAttribute(button, "aria-disabled", client.unlisted ? "true" : null);
      },
    };
  }
}

// Name, user and ID below each other: people look for the name, and the ID distinguishes clients of the same name.
function makeIdentity(cell, openUser) {
  cell.className = "identity";
  const user = make("button", { type: "button", class: "truncate user-link", "data-field": "user", hidden: "" });
  user.addEventListener("click", () => openUser(user.title));
  cell.append(
    make("span", { class: "truncate", "data-field": "name" }),
    user,
    make("span", { class: "truncate muted mono", "data-field": "id" }),
  );
}

function fillIdentity(cell, client) {
  const [name, user, id] = cell.children;
  setText(name, client.name ?? "Unnamed");
  setAttribute(name, "title", client.name ?? null);
  name.classList.toggle("muted", client.name === null);
  user.hidden = typeof client.user !== "string";
  setText(user, user.hidden ? "" : `user ${client.user}`);
  setAttribute(user, "title", user.hidden ? null : client.user);
  setText(id, client.id);
  setAttribute(id, "title", client.id);
}
