// A real server, and a relay to it that can be cut.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect as dial, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const BUILT = fileURLToPath(new URL("../../../target/debug/quic-websocket", import.meta.url));

/** The server to test with: QWS_SERVER, else the debug build. */
export const binary = process.env.QWS_SERVER ?? (existsSync(BUILT) ? BUILT : null);

/** For `test(name, needsServer, ...)`. */
export const needsServer = { skip: binary === null && "no server: build it, or set QWS_SERVER", timeout: 30_000 };

/**
 * Starts a server; resolves with its plain address once it listens.
 *
 * @param {{ settings?: string, port?: number }} [how]
 */
export async function startServer({ settings = "", port = 0 } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "qws-test-"));
  writeFileSync(join(folder, "server.toml"), settings);
  const flags = ["--addr", "127.0.0.1:0", "--http", `127.0.0.1:${port}`, "--config", "server.toml"];
  // Variables that begin with QWS_ would be settings.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("QWS_")));
  const child = spawn(binary, flags, { cwd: folder, env, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  const exited = new Promise((resolve) => child.once("exit", resolve));
  const url = await new Promise((resolve, reject) => {
    const look = (chunk) => {
      log += chunk;
      const found = /http:\/\/127\.0\.0\.1:\d+/.exec(log);
      if (found) resolve(found[0]);
    };
    child.stdout.on("data", look);
    child.stderr.on("data", look);
    exited.then((code) => reject(new Error(`the server ended with ${code}:\n${log}`)));
  });
  return {
    url,
    port: Number(new URL(url).port),
    log: () => log,
    /** @param {NodeJS.Signals} [signal] */
    async stop(signal = "SIGKILL") {
      child.kill(signal);
      await exited;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A TCP relay to a port that can cut its connections. */
export async function startRelay(port) {
  const pairs = new Set();
  let isOpen = true;
  const server = createServer((near) => {
    if (!isOpen) return near.destroy();
    const far = dial(port, "127.0.0.1");
    const pair = [near, far];
    pairs.add(pair);
    near.pipe(far).pipe(near);
    for (const end of pair) {
      end.on("error", () => {});
      end.on("close", () => {
        pairs.delete(pair);
        for (const other of pair) other.destroy();
      });
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** Number of connections. */
    connections: () => pairs.size,
    /** Cuts all connections; new ones are accepted. */
    cut() {
      for (const pair of [...pairs]) for (const end of pair) end.destroy();
    },
    /** Cuts the connection that was made last. */
    cutNewest() {
      for (const end of [...pairs].at(-1) ?? []) end.destroy();
    },
    /** Stops forwarding, without closing anything. */
    freeze() {
      for (const pair of pairs) for (const end of pair) end.unpipe().pause();
    },
    /** Whether new connections are accepted. */
    open(value) {
      isOpen = value;
    },
    stop() {
      this.cut();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
