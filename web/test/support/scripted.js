// A server that follows a test's script, for cases that a real one does not produce on demand; and a client of it.

import { once } from "node:events";

import WebSocket, { WebSocketServer } from "ws";

import { connect } from "../../qws.js";

/** Options of a client that reconnects at once. */
export const quick = { WebSocket, maxBackoffMs: 20 };

/**
 * Starts a server. `answer(message, peer, connection)` returns the answer to a message of a client, where `connection`
 * counts from 1; without an answer a `handshake` is accepted, and a `ping` gets its `pong`.
 *
 * @param {(message: any, peer: Peer, connection: number) => any} answer
 */
export async function scripted(answer) {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "qws.v1" });
  await once(server, "listening");
  const heard = [];
  const peers = [];
  const attachments = [];
  server.on("connection", (socket) => {
    const peer = new Peer(socket);
    const connection = peers.push(peer);
    socket.on("error", () => {});
    socket.on("close", (code) => peer.ended(code));
    socket.on("message", (data, isBinary) => {
      const text = isBinary ? data.subarray(5, 5 + data.readUInt32BE(1)).toString() : data.toString();
      const message = JSON.parse(text);
      heard.push(message);
      if (isBinary) attachments.push(data.subarray(5 + data.readUInt32BE(1)));
      const reply = answer(message, peer, connection) ?? usual(message, connection);
      if (reply) peer.send(reply);
      if (message.type === "close") peer.beforeClose();
      if (message.type === "close") peer.close(message.code, message.reason);
    });
  });
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** Every message of every client, in order. */
    heard,
    /** Those of one type. */
    of: (type) => heard.filter((message) => message.type === type),
    peers,
    /** Attachments of messages, in order. */
    attachments,
    async stop() {
      for (const socket of server.clients) socket.terminate();
      server.close();
      await once(server, "close");
    },
  };
}

function usual({ type, id, timestamp }, connection) {
  if (type === "ping") return { type: "pong", re: id, timestamp, server_time: Date.now() };
  if (type !== "handshake") return null;
  const limits = { max_message_bytes: 1000, ping_interval_ms: 25_000, ping_timeout_ms: 10_000, max_request_lanes: 0 };
  return {
    type: "handshake_response",
    re: id,
    accepted: true,
    client_id: `client-${connection}`,
    server_name: "S",
    limits,
  };
}

class Peer {
  /** Resolves with the code when the connection has ended. */
  closed;
  /** Called before a client's `close` is answered. */
  beforeClose = () => {};
  #socket;

  constructor(socket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => (this.ended = resolve));
  }

  send(message) {
    const isBody = typeof message === "string" || message instanceof Uint8Array;
    this.#socket.send(isBody ? message : JSON.stringify(message));
  }

  /** Sends several messages in one piece: the other side reads them together. */
  together(...messages) {
    const { _socket: stream } = this.#socket;
    stream.cork();
    for (const message of messages) this.send(message);
    stream.uncork();
  }

  close(code, reason) {
    this.#socket.close(code, reason);
  }

  /** Neither reads nor sends any longer. */
  freeze() {
    this.#socket.pause();
  }

  /** Ends the connection without a close. */
  drop() {
    this.#socket.terminate();
  }
}

/** Resolves with the detail of an event. */
export const next = (target, type) =>
  new Promise((resolve) => target.addEventListener(type, ({ detail }) => resolve(detail), { once: true }));

/** A client of a scripted server, both ended with the test. */
export async function client(t, answer, options = {}) {
  const server = await scripted(answer);
  const made = connect(server.url, { ...quick, ...options });
  t.after(async () => {
    await made.close();
    await server.stop();
  });
  return { client: made, server };
}

/** The answer to a `subscribe`. */
export const subscribed = ({ id, topic }, offset, more = {}) => ({
  type: "subscribed",
  re: id,
  topic,
  epoch: "e",
  offset,
  ...more,
});

/** The answer to a `handshake`, by a server that knows values and requests. */
export const accepted = ({ id }, connection, more = {}) => ({
  type: "handshake_response",
  re: id,
  accepted: true,
  client_id: `client-${connection}`,
  server_name: "S",
  limits: { max_message_bytes: 100_000, max_request_lanes: 0, max_meta_bytes: 1024, max_open_requests: 4 },
  ...more,
});
