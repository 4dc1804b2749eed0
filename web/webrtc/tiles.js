// The tiles of a call: one for the user and one for each peer, with an avatar if there is no video.

import { roundTrip } from "../ui/connection.js";
import { byId, el, icon, reconcile } from "../ui/dom.js";
import { avatar } from "../ui/people.js";

const STATES = {
  new: "Waiting…",
  connecting: "Connecting…",
  connected: "Connected",
  disconnected: "Interrupted…",
  failed: "Trying another path…",
  closed: "Left",
};

export class Tiles {
  #call;
  #people;
  #local;
  #client;
  #list = byId("tiles");
  #own;
  #tiles = new Map();

  /**
   * @param {import("./call.js").Call} call
   * @param {object} parts
   */
  constructor(call, { client, people, local }) {
    this.#call = call;
    this.#client = client;
    this.#people = people;
    this.#local = local;
    this.#own = new Tile(true);
    this.#list.replaceChildren();
  }

  render() {
    const peers = [...this.#call.peers.values()];
    const known = new Set(peers);
    for (const peer of this.#tiles.keys()) if (!known.has(peer)) this.#tiles.delete(peer);
    const own = this.#own;
    own.show({ name: this.#client.name, stream: this.#local.stream, media: this.#local.state });
    const tiles = peers.map((peer) => {
      if (!this.#tiles.has(peer)) this.#tiles.set(peer, new Tile(false));
      const tile = this.#tiles.get(peer);
      tile.show({
        name: this.#people.name(peer.clientId),
        mark: this.#call.markOf(peer.clientId),
        stream: peer.stream,
        media: peer.media,
        peer,
      });
      return tile.element;
    });
    this.#list.dataset.count = String(tiles.length + 1);
    reconcile(this.#list, [...tiles, own.element]);
  }
}

class Tile {
  #isOwn;
  #name = "";
  #video = el("video", { autoplay: true, playsinline: true });
  #placeholder = el("div", { class: "tile-placeholder" });
  #label = el("bdi", { class: "tile-name truncate" });
  #mark = el("bdi", { class: "tile-mark truncate" });
  #muted = el(
    "span",
    { class: "tile-muted", hidden: true },
    icon("microphone-off"),
    el("span", { class: "visually-hidden" }, "Microphone off"),
  );
  #state = el("span", { class: "tile-state" });
  #stats = el("span", { class: "tile-stats" });
  #play = el("button", { class: "button primary small tile-play", type: "button", hidden: true }, "Play audio");

  constructor(isOwn) {
    this.#isOwn = isOwn;
    // Users should not hear themselves.
    this.#video.muted = isOwn;
    this.element = el(
      "li",
      { class: `tile${isOwn ? " own" : ""}`, "data-testid": "tile", "data-own": isOwn ? "true" : undefined },
      this.#video,
      this.#placeholder,
      this.#play,
      el("div", { class: "tile-bar" }, this.#muted, this.#label, this.#mark, this.#state),
      this.#stats,
    );
    this.#play.addEventListener("click", () => this.#start());
  }

  show({ name, mark, stream, media, peer }) {
    if (name !== this.#name) {
      this.#name = name;
      this.#label.textContent = name;
      this.#placeholder.replaceChildren(avatar(name));
      this.#video.setAttribute("aria-label", this.#isOwn ? "Your video" : `Video of ${name}`);
    }
    if (this.#video.srcObject !== stream) {
      this.#video.srcObject = stream;
      if (stream) this.#start();
    }
    const hasPicture = media.video && Boolean(stream?.getVideoTracks().length);
    this.#video.classList.toggle("off", !hasPicture);
    this.#placeholder.hidden = hasPicture;
    this.#muted.hidden = media.audio;
    this.element.dataset.video = String(hasPicture);
    this.element.dataset.audio = String(media.audio);

    if (this.#isOwn) {
      set(this.#state, "You");
      this.#stats.hidden = true;
      return;
    }
    set(this.#mark, mark);
    this.element.dataset.client = peer.clientId;
    this.element.dataset.state = peer.state;
    this.element.dataset.channel = peer.isChannelOpen ? "open" : "closed";
    this.element.dataset.collisions = String(peer.collisions);
    set(this.#state, peer.state === "connected" ? "" : (STATES[peer.state] ?? ""));
    const { path } = peer;
    this.#stats.hidden = path === null;
    if (path)
      set(
        this.#stats,
        `${roundTrip(path.rttMs)} · ${path.local} ↔ ${path.remote} · ${path.protocol?.toUpperCase() ?? ""}`,
      );
  }

  async #start() {
    try {
      await this.#video.play();
      this.#play.hidden = true;
    } catch (error) {
      // Browsers play no sound before the user has interacted with the page.
      if (error.name === "NotAllowedError") this.#play.hidden = this.#isOwn;
    }
  }
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
