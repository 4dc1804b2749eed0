// A WebTransport for Node: one control lane with frames, over the WebSocket of a scripted or real server. Messages that
// the server sends together arrive as one chunk, as they may in a browser.

import { setTimeout as sleep } from "node:timers/promises";

import WebSocket from "ws";

/**
 * Puts it in place for as long as a test runs; there is no other way to connect to `url` than by what this gives.
 *
 * @param {import("node:test").TestContext} t
 * @param {string} url a server's
 */
export function fakeQuic(t, url) {
  const quic = { isBlocked: false, sessions: 0, all: [] };
  globalThis.WebTransport = class {
    ready;
    closed;
    incomingUnidirectionalStreams = new ReadableStream({});
    datagrams = { readable: new ReadableStream({}) };
    #socket;

    constructor() {
      quic.sessions += 1;
      quic.all.push(this);
      if (quic.isBlocked) {
        this.closed = new Promise(() => {});
        this.ready = Promise.reject(new Error("no QUIC"));
        this.ready.catch(() => {});
        return;
      }
      const socket = (this.#socket = new WebSocket(`${url.replace("http", "ws")}/ws`, ["qws.v1"]));
      this.ready = new Promise((resolve, reject) => {
        socket.on("open", resolve);
        socket.on("error", reject);
      });
      this.ready.catch(() => {});
      this.closed = new Promise((resolve) => {
        // What was received before is read first.
        socket.on("close", (code) =>
          sleep(20).then(() => resolve({ closeCode: code === 1005 || code === 1006 ? 0 : code, reason: "" })),
        );
      });
    }

    async createBidirectionalStream() {
      const socket = this.#socket;
      let pieces = [];
      const readable = new ReadableStream({
        start(controller) {
          const flush = () => {
            try {
              controller.enqueue(new Uint8Array(Buffer.concat(pieces.splice(0))));
            } catch {
              // The reader has gone.
            }
          };
          socket.on("message", (data) => {
            const length = Buffer.alloc(4);
            length.writeUInt32BE(data.length);
            if (pieces.push(length, data) === 2) setImmediate(flush);
          });
        },
      });
      let held = Buffer.alloc(0);
      const writable = new WritableStream({
        write(chunk) {
          held = Buffer.concat([held, chunk]);
          while (held.length >= 4 && held.length >= 4 + held.readUInt32BE(0)) {
            const body = held.subarray(4, 4 + held.readUInt32BE(0));
            held = held.subarray(4 + body.length);
            socket.send(body[0] === 1 ? body : body.toString());
          }
        },
      });
      return { readable, writable };
    }

    close() {
      this.#socket?.close(1000);
    }
  };
  t.after(() => delete globalThis.WebTransport);
  return quic;
}
