// One other person in the call: the peer connection, how it is negotiated, and what comes over it. Knows nothing of the
// page, and of the server only that it can hand a signal over.
//
// Both sides may offer at any time (the "perfect negotiation" of the WebRTC specification, section 10.7): where two offers
// cross, the polite side takes its own back and answers the other's. That is kept rare, as Chromium loses tracks that were
// added in an offer which is taken back: the first offer is the impolite side's alone, and has a place for sound and one for
// a picture, so that turning a camera on needs no other. What is left to negotiate are new paths. Each RTCPeerConnection has a random tag, the link, which
// stands in every signal together with the last one that came from the other side: so what was meant for a connection that
// is no more is told apart, and a side that had to begin anew finds the other doing the same.

const CHANNEL = { negotiated: true, id: 0 };
// How long a connection may be interrupted before another path is looked for, and between two tries.
const INTERRUPTED_MS = 4000;
const RETRY_MS = 8000;
// The polite side leaves the first try to the other.
const POLITE_LATER_MS = 2000;
const LONGEST_TEXT = 16_000;
const LONGEST_KEY = 64;
const MOST_BUFFERED = 1024 * 1024;

/**
 * Dispatches "change", "text" (detail: what was said), and "gone" when the other side has hung up.
 */
export class Peer extends EventTarget {
  /** What the other has turned on. */
  media = { audio: false, video: false };
  /** @type {MediaStream | null} */
  stream = null;
  /** How often two offers crossed. */
  collisions = 0;
  /** Over which path it goes. @type {null | {local: string, remote: string, protocol: string, rttMs: number | null}} */
  path = null;
  /** By which we show the other side that it is us, under whatever id. Told over the connection alone. */
  key = crypto.randomUUID();
  /** The other's, once it was told. @type {string | null} */
  theirKey = null;
  #pc;
  #channel;
  #link;
  #remoteLink = null;
  #senders = new Map();
  #isMakingOffer = false;
  #isSettingRemoteAnswer = false;
  #isIgnoringOffer = false;
  #hasUnsent = false;
  #isClosed = false;
  #timer = 0;
  #send;
  #iceServers;
  #local;

  /**
   * @param {object} options
   * @param {string} options.tag of the other's call
   * @param {string} options.clientId where signals go now; another one once it came back under that
   * @param {boolean} options.isPolite
   * @param {(peer: Peer, signal: object) => Promise<void>} options.send hands a signal to the other side
   * @param {{current: RTCIceServer[], renew: () => Promise<RTCIceServer[]>}} options.iceServers
   * @param {import("./media.js").LocalMedia} options.local
   */
  constructor({ tag, clientId, isPolite, send, iceServers, local }) {
    super();
    this.tag = tag;
    this.clientId = clientId;
    this.isPolite = isPolite;
    this.#send = send;
    this.#iceServers = iceServers;
    this.#local = local;
    this.#begin();
  }

  /** "new", "connecting", "connected", "disconnected", "failed" or "closed". */
  get state() {
    return this.#isClosed ? "closed" : this.#pc.connectionState;
  }

  get isChannelOpen() {
    return this.#channel.readyState === "open";
  }

  /** Whether the other side has ended its connection, as far as this one can see. */
  get isOver() {
    return this.#isClosed || ["closing", "closed"].includes(this.#channel.readyState);
  }

  /** Sends a text; tells whether it could be sent. */
  say(text) {
    if (text.length > LONGEST_TEXT || this.#channel.bufferedAmount > MOST_BUFFERED) return false;
    return this.#tell({ type: "text", text });
  }

  /** The own track of a kind is another one, or none. */
  async setTrack(kind, track) {
    // Where there is no place for it yet, it is put there with the place.
    await this.#senders.get(kind)?.replaceTrack(track).catch((error) => this.#report(error));
    this.#tellMedia();
  }

  /** The other side is there again, or we are: what could not be said is said now. */
  resume() {
    if (this.#hasUnsent && this.#pc.signalingState === "have-local-offer") this.#describe();
    else if (this.#hasUnsent || ["disconnected", "failed"].includes(this.state)) this.#restartIce();
    this.#hasUnsent = false;
  }

  /** Whether a signal makes us begin anew, as the other side has: nothing of this connection fits its new one. */
  beginsAnew(signal) {
    return this.#isForThis(signal) && this.#remoteLink !== null && signal.link !== this.#remoteLink;
  }

  /** Takes a signal from the other side. */
  async receive(signal) {
    if (!this.#isForThis(signal)) return;
    const { link, description, candidate } = signal;
    try {
      if (this.beginsAnew(signal)) this.#begin();
      this.#remoteLink = link;
      if (description) await this.#takeDescription(description);
      else if (candidate) await this.#takeCandidate(candidate);
    } catch (error) {
      this.#report(error);
    }
  }

  /** Ends it, and says so to the other side. */
  close() {
    if (this.#isClosed) return;
    this.#tell({ type: "bye" });
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#pc.close();
  }

  /** Finds out over which path it goes. */
  async measure() {
    const pc = this.#pc;
    if (this.state !== "connected") {
      this.path = null;
      return;
    }
    const report = await pc.getStats();
    if (pc !== this.#pc) return;
    const all = [...report.values()];
    const chosen = all.find((one) => one.type === "transport" && one.selectedCandidatePairId)?.selectedCandidatePairId;
    // Firefox marks the pair itself.
    const pair = chosen ? report.get(chosen) : all.find((one) => one.type === "candidate-pair" && one.selected);
    const local = report.get(pair?.localCandidateId);
    const remote = report.get(pair?.remoteCandidateId);
    if (!local || !remote) return;
    const rtt = pair.currentRoundTripTime;
    this.path = {
      local: local.candidateType,
      remote: remote.candidateType,
      // Over a relay, this is how the relay is reached.
      protocol: local.relayProtocol ?? local.protocol,
      rttMs: rtt === undefined ? null : rtt * 1000,
    };
  }

  /** Not for a connection that is no more. */
  #isForThis({ link, toLink }) {
    return !this.#isClosed && typeof link === "string" && (!toLink || toLink === this.#link);
  }

  #begin() {
    // Where the browser has none to give, all stays as it was.
    const pc = new RTCPeerConnection({ iceServers: this.#iceServers.current });
    this.#pc?.close();
    clearTimeout(this.#timer);
    this.#pc = pc;
    this.#link = crypto.randomUUID();
    this.#remoteLink = null;
    this.#isMakingOffer = this.#isSettingRemoteAnswer = this.#isIgnoringOffer = this.#hasUnsent = false;
    this.stream = null;
    this.path = null;
    this.#senders.clear();

    pc.addEventListener("negotiationneeded", () => this.#offer(pc));
    pc.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate && pc === this.#pc) this.#signal({ candidate: candidate.toJSON() });
    });
    pc.addEventListener("connectionstatechange", () => pc === this.#pc && this.#stateChanged());
    pc.addEventListener("track", ({ track, streams }) => {
      if (pc !== this.#pc) return;
      this.stream = streams[0] ?? new MediaStream([...(this.stream?.getTracks() ?? []), track]);
      this.#changed();
    });

    const channel = pc.createDataChannel("call", CHANNEL);
    this.#channel = channel;
    channel.addEventListener("open", () => {
      this.#tell({ type: "key", key: this.key });
      this.#tellMedia();
      this.#changed();
    });
    channel.addEventListener("close", () => channel === this.#channel && this.#changed());
    channel.addEventListener("message", ({ data }) => channel === this.#channel && this.#heard(data));

    if (this.isPolite) return;
    const streams = [this.#local.stream];
    for (const kind of ["audio", "video"]) {
      const transceiver = pc.addTransceiver(this.#local.track(kind) ?? kind, { direction: "sendrecv", streams });
      this.#senders.set(kind, transceiver.sender);
    }
  }

  /** Puts the own tracks to the places that the other's first offer has for them. */
  async #takePlaces(pc) {
    if (this.#senders.size > 0) return;
    for (const transceiver of pc.getTransceivers()) {
      const { kind } = transceiver.receiver.track;
      if (this.#senders.has(kind)) continue;
      this.#senders.set(kind, transceiver.sender);
      transceiver.direction = "sendrecv";
      transceiver.sender.setStreams?.(this.#local.stream);
      await transceiver.sender.replaceTrack(this.#local.track(kind));
    }
  }

  async #offer(pc) {
    // See above; Chromium gathers no candidates either once it took back its first offer.
    if (this.isPolite && pc.remoteDescription === null) return;
    try {
      this.#isMakingOffer = true;
      await pc.setLocalDescription();
      if (pc === this.#pc) this.#describe();
    } catch (error) {
      if (pc === this.#pc) this.#report(error);
    } finally {
      if (pc === this.#pc) this.#isMakingOffer = false;
    }
  }

  async #takeDescription(description) {
    const pc = this.#pc;
    const isOffer = description.type === "offer";
    // An answer that is being applied makes the state stable in a moment.
    const isReady =
      !this.#isMakingOffer && (pc.signalingState === "stable" || this.#isSettingRemoteAnswer);
    const isCollision = isOffer && !isReady;
    if (isCollision) this.collisions += 1;
    this.#isIgnoringOffer = isCollision && !this.isPolite;
    if (this.#isIgnoringOffer) return;
    this.#isSettingRemoteAnswer = !isOffer;
    try {
      // Takes our own offer back where there is one.
      await pc.setRemoteDescription(description);
    } finally {
      if (pc === this.#pc) this.#isSettingRemoteAnswer = false;
    }
    if (!isOffer || pc !== this.#pc) return;
    await this.#takePlaces(pc);
    if (pc !== this.#pc) return;
    await pc.setLocalDescription();
    if (pc === this.#pc) this.#describe();
  }

  async #takeCandidate(candidate) {
    try {
      await this.#pc.addIceCandidate(candidate);
    } catch (error) {
      // It belongs to the offer that was not taken.
      if (!this.#isIgnoringOffer) throw error;
    }
  }

  #describe() {
    const description = this.#pc.localDescription;
    if (description) this.#signal({ description: description.toJSON() });
  }

  async #signal(content) {
    const link = this.#link;
    try {
      await this.#send(this, { link, toLink: this.#remoteLink, ...content });
    } catch {
      // The server or the other side is away; once both are there again, resume() goes on from here.
      if (link === this.#link) this.#hasUnsent = true;
    }
  }

  #stateChanged() {
    clearTimeout(this.#timer);
    const { state } = this;
    const later = this.isPolite ? POLITE_LATER_MS : 0;
    if (state === "disconnected") this.#timer = setTimeout(() => this.#restartIce(), INTERRUPTED_MS + later);
    if (state === "failed") this.#timer = setTimeout(() => this.#restartIce(), later);
    this.#changed();
  }

  /** Looks for another path, with relays whose credentials still hold. */
  async #restartIce() {
    const pc = this.#pc;
    clearTimeout(this.#timer);
    const iceServers = await this.#iceServers.renew();
    if (this.#isClosed || pc !== this.#pc || pc.connectionState === "connected") return;
    try {
      pc.setConfiguration({ iceServers });
    } catch (error) {
      this.#report(error);
    }
    pc.restartIce();
    this.#timer = setTimeout(() => this.#restartIce(), RETRY_MS);
  }

  #tellMedia() {
    this.#tell({ type: "media", ...this.#local.state });
  }

  #tell(message) {
    if (this.#channel.readyState !== "open") return false;
    try {
      this.#channel.send(JSON.stringify(message));
      return true;
    } catch (error) {
      this.#report(error);
      return false;
    }
  }

  #heard(data) {
    const message = parsed(data);
    if (message?.type === "bye") {
      this.dispatchEvent(new Event("gone"));
    } else if (message?.type === "key" && typeof message.key === "string" && message.key.length <= LONGEST_KEY) {
      this.theirKey = message.key;
    } else if (message?.type === "media") {
      this.media = { audio: message.audio === true, video: message.video === true };
      this.#changed();
    } else if (message?.type === "text" && typeof message.text === "string" && message.text.length <= LONGEST_TEXT) {
      this.dispatchEvent(new CustomEvent("text", { detail: message.text }));
    }
  }

  #report(error) {
    if (!this.#isClosed) this.dispatchEvent(new CustomEvent("problem", { detail: error }));
  }

  #changed() {
    if (!this.#isClosed) this.dispatchEvent(new Event("change"));
  }
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}
