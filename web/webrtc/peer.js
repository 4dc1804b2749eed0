// One other person in the call: the peer connection, its negotiation, and its messages. Independent of the page, and of
// how signals are delivered.
//
// Both sides may send offers at any time (the "perfect negotiation" of the WebRTC specification, section 10.7): if two
// offers collide, the polite side rolls its own back and answers the other's. Collisions are kept rare, because
// Chromium loses tracks that were added in an offer that is rolled back: only the impolite side sends the first offer,
// and it has a transceiver for audio and one for video, so turning on a camera needs no further offer. Only new paths
// are negotiated later.
//
// Each RTCPeerConnection has a random tag, the link. Every signal carries the sender's link and the last link received
// from the other side. That identifies signals for a connection that no longer exists, and makes both sides restart if
// one does.

const CHANNEL = { negotiated: true, id: 0 };
// How long a connection may be interrupted before another path is tried, and the time between two attempts.
const INTERRUPTED_MS = 4000;
const RETRY_MS = 8000;
// The polite side leaves the first attempt to the other.
const POLITE_LATER_MS = 2000;
const MAX_TEXT_LENGTH = 16_000;
const MAX_KEY_LENGTH = 64;
const MAX_BUFFERED = 1024 * 1024;

/** Dispatches "change", "text" (detail: the text), "problem" (detail: the error), and "gone" if the other hangs up. */
export class Peer extends EventTarget {
  /** Which devices the other has turned on. */
  media = { audio: false, video: false };
  /** @type {MediaStream | null} */
  stream = null;
  /** The number of offers that collided. */
  collisions = 0;
  /** The selected path. @type {null | {local: string, remote: string, protocol: string, rttMs: number | null}} */
  path = null;
  /** Proves our identity to the other side after our client ID changed. Sent only over the peer connection. */
  key = crypto.randomUUID();
  /** The other's key, once received. @type {string | null} */
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
   * @param {string} options.clientId the receiver of signals; it changes if the other reconnects
   * @param {boolean} options.isPolite
   * @param {(peer: Peer, signal: object) => Promise<void>} options.send sends a signal to the other side
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
    this.#start();
  }

  /** "new", "connecting", "connected", "disconnected", "failed" or "closed". */
  get state() {
    return this.#isClosed ? "closed" : this.#pc.connectionState;
  }

  get isChannelOpen() {
    return this.#channel.readyState === "open";
  }

  /** Whether the connection is closed, as far as this side knows. */
  get isOver() {
    return this.#isClosed || ["closing", "closed"].includes(this.#channel.readyState);
  }

  /** Sends a text. Returns whether it could be sent. */
  say(text) {
    if (text.length > MAX_TEXT_LENGTH || this.#channel.bufferedAmount > MAX_BUFFERED) return false;
    return this.#transmit({ type: "text", text });
  }

  /** Replaces the user's track of a kind; `null` removes it. */
  async setTrack(kind, track) {
    // Without a sender for it yet, the track is added along with the sender.
    await this.#senders
      .get(kind)
      ?.replaceTrack(track)
      .catch((error) => this.#report(error));
    this.#sendMedia();
  }

  /** Resumes after a reconnect of either side: sends what could not be sent. */
  resume() {
    if (this.#hasUnsent && this.#pc.signalingState === "have-local-offer") this.#describe();
    else if (this.#hasUnsent || ["disconnected", "failed"].includes(this.state)) this.#restartIce();
    this.#hasUnsent = false;
  }

  /** Whether a signal shows that the other side has restarted: then this side has to restart as well. */
  isRestart(signal) {
    return this.#isForThis(signal) && this.#remoteLink !== null && signal.link !== this.#remoteLink;
  }

  /** Handles a signal from the other side. */
  async receive(signal) {
    if (!this.#isForThis(signal)) return;
    const { link, description, candidate } = signal;
    try {
      if (this.isRestart(signal)) this.#start();
      this.#remoteLink = link;
      if (description) await this.#handleDescription(description);
      else if (candidate) await this.#handleCandidate(candidate);
    } catch (error) {
      this.#report(error);
    }
  }

  /** Closes the connection and tells the other side. */
  close() {
    if (this.#isClosed) return;
    this.#transmit({ type: "bye" });
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#pc.close();
  }

  /** Updates the selected path. */
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
    // Firefox marks the selected pair itself.
    const pair = chosen ? report.get(chosen) : all.find((one) => one.type === "candidate-pair" && one.selected);
    const local = report.get(pair?.localCandidateId);
    const remote = report.get(pair?.remoteCandidateId);
    if (!local || !remote) return;
    const rtt = pair.currentRoundTripTime;
    this.path = {
      local: local.candidateType,
      remote: remote.candidateType,
      // With a relay, this is the protocol to the relay.
      protocol: local.relayProtocol ?? local.protocol,
      rttMs: rtt === undefined ? null : rtt * 1000,
    };
  }

  /** Whether a signal is meant for the current connection. */
  #isForThis({ link, toLink }) {
    return !this.#isClosed && typeof link === "string" && (!toLink || toLink === this.#link);
  }

  #start() {
    // If the browser cannot create another connection, this throws and everything stays as it was.
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
      this.#transmit({ type: "key", key: this.key });
      this.#sendMedia();
      this.#changed();
    });
    channel.addEventListener("close", () => channel === this.#channel && this.#changed());
    channel.addEventListener("message", ({ data }) => channel === this.#channel && this.#received(data));

    if (this.isPolite) return;
    const streams = [this.#local.stream];
    for (const kind of ["audio", "video"]) {
      const transceiver = pc.addTransceiver(this.#local.track(kind) ?? kind, { direction: "sendrecv", streams });
      this.#senders.set(kind, transceiver.sender);
    }
  }

  /** Uses the transceivers of the other's first offer for the user's tracks. */
  async #useTransceivers(pc) {
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
    // See above. In addition, Chromium gathers no candidates after rolling back its first offer.
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

  async #handleDescription(description) {
    const pc = this.#pc;
    const isOffer = description.type === "offer";
    // While an answer is being applied, the state is about to become stable.
    const isReady = !this.#isMakingOffer && (pc.signalingState === "stable" || this.#isSettingRemoteAnswer);
    const isCollision = isOffer && !isReady;
    if (isCollision) this.collisions += 1;
    this.#isIgnoringOffer = isCollision && !this.isPolite;
    if (this.#isIgnoringOffer) return;
    this.#isSettingRemoteAnswer = !isOffer;
    try {
      // Rolls our own offer back if there is one.
      await pc.setRemoteDescription(description);
    } finally {
      if (pc === this.#pc) this.#isSettingRemoteAnswer = false;
    }
    if (!isOffer || pc !== this.#pc) return;
    await this.#useTransceivers(pc);
    if (pc !== this.#pc) return;
    await pc.setLocalDescription();
    if (pc === this.#pc) this.#describe();
  }

  async #handleCandidate(candidate) {
    try {
      await this.#pc.addIceCandidate(candidate);
    } catch (error) {
      // It belongs to the offer that was ignored.
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
      // The server or the other side is away; resume() continues once both are back.
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

  /** Tries another path, with relay credentials that are still valid. */
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

  #sendMedia() {
    this.#transmit({ type: "media", ...this.#local.state });
  }

  #transmit(message) {
    if (this.#channel.readyState !== "open") return false;
    try {
      this.#channel.send(JSON.stringify(message));
      return true;
    } catch (error) {
      this.#report(error);
      return false;
    }
  }

  #received(data) {
    const message = parsed(data);
    if (message?.type === "bye") {
      this.dispatchEvent(new Event("gone"));
    } else if (message?.type === "key" && typeof message.key === "string" && message.key.length <= MAX_KEY_LENGTH) {
      this.theirKey = message.key;
    } else if (message?.type === "media") {
      this.media = { audio: message.audio === true, video: message.video === true };
      this.#changed();
    } else if (message?.type === "text" && typeof message.text === "string" && message.text.length <= MAX_TEXT_LENGTH) {
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
