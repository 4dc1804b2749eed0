// Filters and sorts the list of clients. Pure.

import { carrier } from "./format.js";

// Texts start with A, numbers with the largest: usually the most interesting ones.
const byText = (value) => ({ value, first: "ascending" });
const byNumber = (value) => ({ value, first: "descending" });

/** The fields by which clients can be sorted. */
export const FIELDS = {
  name: byText((client) => client.name),
  transport: byText((client) => carrier(client.transport)),
  address: byText((client) => client.address),
  connected_at: byNumber((client) => client.connected_at),
  rtt_ms: byNumber((client) => client.rtt_ms),
  loss_percent: byNumber((client) => client.loss_percent),
  queued_messages: byNumber((client) => client.queued_messages),
  queued_bytes: byNumber((client) => client.queued_bytes),
  subscriptions: byNumber((client) => client.subscriptions),
};

const letters = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Sorts clients by `field`. Clients without a value come last in either direction; equal ones are sorted by ID. */
export function sorted(clients, { field, direction }) {
  const { value } = FIELDS[field];
  const sign = direction === "descending" ? -1 : 1;
  return [...clients].sort((a, b) => {
    const [left, right] = [value(a) ?? null, value(b) ?? null];
    if (left === null || right === null) return (left === null) - (right === null) || idOrder(a, b);
    const order = typeof left === "string" ? letters.compare(left, right) : left - right;
    return order * sign || idOrder(a, b);
  });
}

const idOrder = (a, b) => (a.id < b.id ? -1 : Number(a.id > b.id));

/** The clients that contain every word of `filter`. */
export function matching(clients, filter) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return clients;
  return clients.filter((client) => {
    const searched = [client.name, client.user, client.id, client.address, carrier(client.transport)]
      .join("\n")
      .toLowerCase();
    return words.every((word) => searched.includes(word));
  });
}

/**
 * `clients` in their previous order, so that no row moves away under the pointer: new clients come last, and clients
 * that are no longer listed (disconnected, or beyond the limit) keep their place and are marked `unlisted`.
 */
export function held(before, clients) {
  const present = new Map(clients.map((client) => [client.id, client]));
  const kept = before.map((client) => present.get(client.id) ?? { ...client, unlisted: true });
  const known = new Set(before.map((client) => client.id));
  return [...kept, ...clients.filter((client) => !known.has(client.id))];
}
