// A WebTransport session as a carrier: lanes, datagrams, and the certificate's hash.
// Looks only into the first body of a topic lane; knows no link. Opened by `dial.js`, through the race.

import { CLOSE_FOLLOWS_MS, MAX_FIRST_BYTES, MAX_UNSENT_BYTES } from "./carrier.js";
import { QwsError } from "./errors.js";
import { frameOf, FrameReader, laneOf } from "./frames.js";
import { bytesOfBase64 } from "./text.js";

/** @import { Attempt, CarrierName, End, Handlers, Source, Transport } from "./carrier.js" */
/** @import { Body } from "./frames.js" */
/** @import { Settings } from "./settings.js" */

/** Longer bodies use a lane of their own. */
const BULK_BYTES = 64 * 1024;
/** Most datagrams that the browser buffers for the client. */
const MAX_DATAGRAMS = 256;

/**
 * A WebTransport session: a control lane, topic lanes that the server opens, datagrams, and a lane for large bodies.
 *
 * @implements {Transport}
 */
class SessionTransport {
  /** @type {CarrierName} */
  carrier = "webtransport";
  streams = 1;
  maxBytes = MAX_FIRST_BYTES;
  hasRequestLanes = false;
  #session;
  #control;
  #writer;
  /**
   * The lane for large bodies, opened by the first of them.
   *
   * @type {Promise<WritableStreamDefaultWriter<Uint8Array>> | null}
   */
  #bulk = null;
  #unsent = 0;
  #isOver = false;
  #takesDatagrams = false;
  /** @type {(() => void)[]} */
  #awaitingRoom = [];
  /** @type {Handlers} */
  #handlers = { body() {}, end() {}, fail() {}, isBound: () => false };

  /**
   * @param {WebTransport} session a ready one
   * @param {WebTransportBidirectionalStream} control
   */
  constructor(session, control) {
    this.#session = session;
    this.#control = control;
    this.#writer = control.writable.getWriter();
    this.#writer.closed.catch(() => {});
  }

  /** @param {Handlers} handlers */
  start(handlers) {
    this.#handlers = handlers;
    this.#session.closed.then(
      (info) => this.#end({ code: info?.closeCode || 1006, reason: info?.reason ?? "" }),
      (error) => this.#end({ code: 1006, reason: String(error?.message ?? error) }),
    );
    void this.#read(this.#control.readable, "control").then(() => this.#endSoon("the control lane ended"));
    void this.#takeLanes();
  }

  get writable() {
    return this.#unsent < MAX_UNSENT_BYTES;
  }

  drained() {
    if (this.writable || this.#isOver) return Promise.resolve();
    return /** @type {Promise<void>} */ (new Promise((resolve) => this.#awaitingRoom.push(resolve)));
  }

  /** @param {Body} body */
  send(body) {
    const frame = frameOf(body);
    if (frame.length <= BULK_BYTES || !this.hasRequestLanes) return this.#write(this.#writer, frame);
    this.#bulk ??= this.#openBulk();
    // Counted from here on, so that nothing piles up while the lane opens.
    this.#unsent += frame.length;
    this.#bulk.then(
      (writer) => {
        this.#unsent -= frame.length;
        this.#write(writer, frame);
      },
      () => this.#endSoon("a request lane could not be opened"),
    );
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  close(code, reason) {
    this.#isOver = true;
    this.#wake();
    try {
      this.#session.close({ closeCode: code, reason });
    } catch {
      // It is closed already.
    }
  }

  /**
   * @param {WritableStreamDefaultWriter<Uint8Array>} writer
   * @param {Uint8Array} frame
   */
  #write(writer, frame) {
    this.#unsent += frame.length;
    writer.write(frame).then(
      () => {
        this.#unsent -= frame.length;
        if (this.writable) this.#wake();
      },
      () => this.#endSoon("a lane no longer accepts data"),
    );
  }

  #wake() {
    for (const resolve of this.#awaitingRoom.splice(0)) resolve();
  }

  async #openBulk() {
    const stream = await this.#session.createBidirectionalStream();
    this.streams += 1;
    void this.#read(stream.readable, "request").then(() => this.#endSoon("a request lane ended"));
    const writer = stream.writable.getWriter();
    writer.closed.catch(() => {});
    return writer;
  }

  async #takeLanes() {
    try {
      const lanes = this.#session.incomingUnidirectionalStreams.getReader();
      for (let lane = await lanes.read(); !lane.done; lane = await lanes.read()) {
        this.streams += 1;
        void this.#readLane(/** @type {ReadableStream<Uint8Array>} */ (lane.value));
      }
    } catch {
      // The session's end is seen elsewhere.
    }
  }

  /** @param {ReadableStream<Uint8Array>} stream */
  async #readLane(stream) {
    const lane = await this.#read(stream, null);
    // A lane without subscriptions may end. Otherwise the end of the subscription or of the session follows.
    if (typeof lane === "number" && this.#handlers.isBound(lane)) {
      this.#endSoon(`topic lane ${lane} ended`, () => this.#handlers.isBound(lane));
    }
  }

  takeDatagrams() {
    if (!this.#takesDatagrams) void this.#readDatagrams();
    this.#takesDatagrams = true;
  }

  async #readDatagrams() {
    try {
      const datagrams = /** @type {WebTransportDatagramDuplexStream & { incomingMaxBufferedDatagrams?: number }} */ (
        this.#session.datagrams
      );
      // The newest win, but a burst is kept. The first name is that of older browsers.
      datagrams.incomingHighWaterMark = MAX_DATAGRAMS;
      datagrams.incomingMaxBufferedDatagrams = MAX_DATAGRAMS;
      const reader = datagrams.readable.getReader();
      for (let got = await reader.read(); !got.done; got = await reader.read()) {
        if (this.#isOver) return;
        if (got.value.length <= this.maxBytes) this.#handlers.body(got.value, "datagram")?.catch(this.#handlers.fail);
      }
    } catch {
      // The session's end is seen elsewhere.
    }
  }

  /**
   * Reads a lane to its end.
   *
   * @param {ReadableStream<Uint8Array>} stream
   * @param {Source | null} source `null` for a topic lane, which begins with its number
   * @returns {Promise<Source | null>} the source, as far as it is known
   */
  async #read(stream, source) {
    const frames = new FrameReader(this.maxBytes);
    try {
      const reader = stream.getReader();
      for (let got = await reader.read(); !got.done; got = await reader.read()) {
        frames.maxBytes = this.maxBytes;
        for (const body of frames.push(got.value)) {
          if (this.#isOver) return source;
          if (source === null) source = laneOf(body);
          // The application handles each body before the next.
          else await this.#handlers.body(body, source);
          frames.maxBytes = this.maxBytes;
        }
      }
    } catch (error) {
      // Otherwise the stream has failed: its end is all there is to report.
      if (error instanceof QwsError && !this.#isOver) this.#handlers.fail(error);
    }
    return source;
  }

  /**
   * Ends the session shortly, unless it ends by itself, which has the close code.
   *
   * @param {string} reason
   * @param {() => boolean} [still]
   */
  #endSoon(reason, still = () => true) {
    if (this.#isOver) return;
    setTimeout(() => !this.#isOver && still() && this.#end({ code: 1006, reason }), CLOSE_FOLLOWS_MS);
  }

  /** @param {End} end */
  #end(end) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#wake();
    this.#handlers.end(end);
  }
}

/**
 * Opens a WebTransport session.
 *
 * @param {Pick<Settings, "quicUrl" | "origin" | "hash" | "asksHash" | "hasQuicUrl">} settings
 * @returns {Attempt}
 */
export function openQuic({ quicUrl, origin, hash, asksHash, hasQuicUrl }) {
  const asking = new AbortController();
  /** @type {WebTransport | null} */
  let session = null;
  const open = async () => {
    let [url, value] = [quicUrl, hash?.value ?? null];
    if (asksHash) {
      const shown = await askForHash(origin, asking.signal);
      if (shown) value = shown.value;
      // Browsers resolve "localhost" to [::1] alone here, and servers listen on 127.0.0.1. With a hash no name is
      // checked.
      const host = /(^|\.)localhost$/.test(origin.hostname) ? "127.0.0.1" : origin.hostname;
      if (shown && !hasQuicUrl) url = `https://${host}:${shown.port}/wt`;
    }
    asking.signal.throwIfAborted();
    if (url === null) {
      throw new QwsError("transport", "the server has no WebTransport certificate that this page can trust");
    }
    const serverCertificateHashes = value === null ? [] : [{ algorithm: "sha-256", value: bytesOfBase64(value) }];
    const made = (session = new WebTransport(url, value === null ? {} : { serverCertificateHashes }));
    made.closed.catch(() => {});
    try {
      await made.ready;
      const control = await made.createBidirectionalStream();
      asking.signal.throwIfAborted();
      return new SessionTransport(made, control);
    } catch (cause) {
      throw new QwsError("transport", `no WebTransport session with ${url}`, { cause });
    }
  };
  /** @type {Promise<Transport>} */
  const opened = open();
  opened.catch(() => {});
  const abandon = () => {
    asking.abort();
    try {
      session?.close();
    } catch {
      // It was never created, or is closed already.
    }
  };
  return { opened, abandon };
}

/**
 * Asks a server on this machine for the hash of its WebTransport certificate: a development certificate is trusted by
 * its hash alone.
 *
 * @param {URL} origin
 * @param {AbortSignal} signal
 */
async function askForHash(origin, signal) {
  try {
    const response = await fetch(new URL("/certificate-hash", origin), { signal, cache: "no-store" });
    if (!response.ok) return null;
    const { value, webtransport_port: port } = await response.json();
    return typeof value === "string" && Number.isInteger(port) ? { value, port: /** @type {number} */ (port) } : null;
  } catch {
    return null;
  }
}
