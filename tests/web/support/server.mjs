// A real server on its own ports, and a relay between it and its clients.

import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const binary = process.env.QWS_SERVER;

/** For `test(name, needsServer, ...)`. */
export const needsServer = { skip: !binary && "set QWS_SERVER to the server's binary", timeout: 90_000 };

/** The token for the dashboard and its requests. */
export const ADMIN_TOKEN = "the-admin-token-of-these-tests";

/** The environment without QWS_ variables, which the server reads as settings. */
const environment = {
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("QWS_"))),
  QWS_HTTP__ADMIN_TOKEN: ADMIN_TOKEN,
};

/** Starts a server with its own certificates; resolves once it listens. @param {{ settings?: string }} [how] */
export async function startServer({ settings = "" } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "qws-web-"));
  writeFileSync(join(folder, "server.toml"), settings);
  const server = new Server(folder);
  await server.start();
  return server;
}

class Server {
  /** The port for UDP, and for TCP with TLS. */
  port = 0;
  /** The port for plain HTTP, only on loopback. */
  plainPort = 0;
  log = "";
  #folder;
  #child = null;
  #exited = null;

  constructor(folder) {
    this.#folder = folder;
  }

  /** The address of the pages. */
  get url() {
    return `http://127.0.0.1:${this.plainPort}`;
  }

  /** The path of the dashboard, with the token as the server prints it. */
  get dashboard() {
    return `/dashboard#token=${ADMIN_TOKEN}`;
  }

  /** Requests a route of the admin API; posts `body` if there is one. */
  admin(path, body) {
    const headers = { authorization: `Bearer ${ADMIN_TOKEN}` };
    if (body === undefined) return fetch(this.url + path, { headers });
    headers["content-type"] = "application/json";
    return fetch(this.url + path, { method: "POST", headers, body: JSON.stringify(body) });
  }

  /** Its working directory, which contains `certs/ca.pem`. */
  get folder() {
    return this.#folder;
  }

  /** Starts it, or restarts it on the same ports. */
  async start() {
    const flags = [
      "--config",
      "server.toml",
      "--addr",
      `127.0.0.1:${this.port}`,
      "--http",
      `127.0.0.1:${this.plainPort}`,
    ];
    const child = spawn(binary, flags, { cwd: this.#folder, env: environment, stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    this.#exited = new Promise((resolve) => child.once("exit", resolve));
    let log = "";
    await new Promise((resolve, reject) => {
      const look = (chunk) => {
        log += chunk;
        this.log += chunk;
        const udp = /Listening on: \S+:(\d+)/.exec(log);
        const plain = /http:\/\/127\.0\.0\.1:(\d+)/.exec(log);
        if (!udp || !plain) return;
        [this.port, this.plainPort] = [Number(udp[1]), Number(plain[1])];
        resolve();
      };
      child.stdout.on("data", look);
      child.stderr.on("data", look);
      this.#exited.then((code) => reject(new Error(`the server ended with ${code}:\n${log}`)));
    });
  }

  /** Stops it, by default without notifying its clients. */
  async kill(signal = "SIGKILL") {
    this.#child?.kill(signal);
    await this.#exited;
  }

  async stop() {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A UDP relay to a port. It drops packets until it is opened. @param {number} port */
export async function startUdpRelay(port) {
  const near = createSocket("udp4");
  const far = new Map();
  let isOpen = false;
  near.on("message", (packet, from) => {
    if (!isOpen) return;
    const key = `${from.address}:${from.port}`;
    let socket = far.get(key);
    if (!socket) {
      socket = createSocket("udp4");
      socket.on("message", (back) => isOpen && near.send(back, from.port, from.address));
      socket.on("error", () => {});
      far.set(key, socket);
    }
    socket.send(packet, port, "127.0.0.1");
  });
  near.on("error", () => {});
  await new Promise((resolve) => near.bind(0, "127.0.0.1", resolve));
  return {
    port: near.address().port,
    /** Sets whether packets get through. */
    open(value) {
      isOpen = value;
    },
    stop() {
      near.close();
      for (const socket of far.values()) socket.close();
    },
  };
}
