// Which clients are listed, and in which order. Pure.

import { carrier } from "./format.js";

// Text goes from A, numbers from the largest: that is what one looks for first.
const byText = (value) => ({ value, first: "ascending" });
const byNumber = (value) => ({ value, first: "descending" });

/** What clients can be sorted by. */
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

/** The clients in order of `field`. Those who have nothing there come last either way; equals go by id. */
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

/** The clients in which every word of `filter` is found. */
export function matching(clients, filter) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return clients;
  return clients.filter((client) => {
    const told = [client.name, client.user, client.id, client.address, carrier(client.transport)].join("\n").toLowerCase();
    return words.every((word) => told.includes(word));
  });
}

/**
 * `clients` in the order in which they stood before, so that no row moves away under the pointer: who is new comes last, and who
 * is not among them any more (gone, or behind the others) keeps its place and is marked `unlisted`.
 */
export function held(before, clients) {
  const present = new Map(clients.map((client) => [client.id, client]));
  const kept = before.map((client) => present.get(client.id) ?? { ...client, unlisted: true });
  const known = new Set(before.map((client) => client.id));
  return [...kept, ...clients.filter((client) => !known.has(client.id))];
}
