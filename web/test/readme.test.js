// The README's program for Node works, and its links lead somewhere.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { posix } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

import { needsServer, startServer } from "./support/server.js";

const text = (path) => readFile(new URL(`../${path}`, import.meta.url), "utf8");
const readme = await text("README.md");

test("the files that the README links to are in the package", async () => {
  const { files } = JSON.parse(await text("package.json"));
  const links = [...readme.matchAll(/\]\(([^)]*)\)/g)].map(([, link]) => link);
  const local = links.filter((link) => !/^(https:|#)/.test(link)).map((link) => posix.normalize(link));
  assert.deepEqual(
    local.filter((link) => !files.includes(link)),
    [],
  );
});

test("the example for Node runs, and ends", needsServer, async (t) => {
  const server = await startServer();
  t.after(() => server.stop());
  const [, program] = /```js\n(import WebSocket[^]*?)```/.exec(readme) ?? [];
  assert.ok(program, "there is one");
  // The package's own name resolves to it, as after an installation.
  const here = program.replace("http://127.0.0.1:8080", server.url);
  const args = ["--input-type=module", "-e", here];
  const { stdout } = await promisify(execFile)(process.execPath, args, {
    cwd: new URL("..", import.meta.url),
    timeout: 10_000,
  });
  assert.match(stdout, /^1 Uint8Array\(3\) \[ 1, 2, 3 \]/);
});
