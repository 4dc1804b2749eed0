// The badge with the state of the connection, and its details: carrier, round trip, reconnects.

import { byId, coalesced } from "./dom.js";

const CARRIERS = { webtransport: "WebTransport", websocket: "WebSocket" };
// For narrow screens: the state without the carrier.
const SHORT = { connecting: "Connecting", open: "Online", reconnecting: "Retrying", closed: "Offline" };
const STATES = {
  connecting: ["Connecting", "warn"],
  open: ["Connected", "good"],
  reconnecting: ["Reconnecting", "warn"],
  closed: ["Not connected", "bad"],
};

/** Formats a round trip: more digits if it is short, and never many characters. */
export function roundTrip(ms) {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return "–";
  if (ms >= 999.5) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** Shows the state of a client in #connection-badge and #connection-details. */
export class ConnectionBadge {
  #badge = byId("connection-badge");
  #client = null;
  #update = coalesced(() => this.#render());

  watch(client) {
    this.#client = client;
    for (const type of ["state", "open", "close", "rtt"]) client.addEventListener(type, this.#update);
    this.#badge.hidden = false;
    this.#render();
  }

  forget() {
    this.#client = null;
    this.#badge.hidden = true;
  }

  #render() {
    const client = this.#client;
    if (client === null) return;
    const [words, tone] = STATES[client.state];
    const carrier = CARRIERS[client.carrier] ?? "none";
    const rtt = roundTrip(client.rttMs);

    this.#badge.className = `badge ${tone}`;
    this.#badge.dataset.state = client.state;
    this.#badge.dataset.carrier = client.carrier ?? "";
    byId("connection-dot").classList.toggle("pulse", client.state === "reconnecting" || client.state === "connecting");
    byId("connection-carrier").textContent = client.state === "open" ? carrier : words;
    byId("connection-carrier-short").textContent = SHORT[client.state];
    byId("connection-rtt").textContent = client.state === "open" && client.rttMs !== null ? rtt : "";

    byId("connection-detail-state").textContent = words;
    byId("connection-detail-carrier").textContent = carrier;
    byId("connection-detail-rtt").textContent = rtt;
    byId("connection-detail-reconnects").textContent = String(client.reconnects);
    byId("connection-detail-streams").textContent = String(client.streams);
    byId("connection-detail-server").textContent = client.serverName ?? "–";
    byId("connection-detail-user").textContent = client.user ?? "not signed in";
    byId("connection-detail-id").textContent = client.id ?? "–";
  }
}
