// Plays the server of docs/transcripts against this client. docs/transcripts/README.md has the rules, and
// defines the calls and events, which this file maps to the client's API.

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { test } from "node:test";
import { isDeepStrictEqual } from "node:util";

import { connect } from "../qws.js";
import { quick, scripted } from "./support/scripted.js";

const FOLDER = new URL("../../docs/transcripts/", import.meta.url);
/** The optional features that this client has. */
const CAN = new Set(["durable"]);
/** Fields in which everything is their sender's, and literal. */
const OPAQUE = new Set(["data", "meta", "state", "info"]);

/** The client's carrier in Node, with one lane. */
const CARRIER = "websocket";

async function readTranscript(file) {
  const lines = (await readFile(new URL(file, FOLDER), "utf8")).trimEnd().split("\n");
  const [head, ...steps] = lines.map((line) => JSON.parse(line));
  return { file, head, steps: steps.map((step, at) => ({ ...step, line: at + 2 })) };
}

/** What a field's value stands for; `null` for the value itself. */
function kindOf(field, isTop, value) {
  if (field === "re" || (field === "id" && isTop)) return "request";
  if (["id", "client_id", "from", "to", "after", "next", "was"].includes(field)) return "client";
  if (["session", "resume", "attach"].includes(field)) return "session";
  if (field === "request") return "call";
  if (field === "epoch") return "epoch";
  if (["offset", "first", "last"].includes(field)) return "offset";
  if (["timestamp", "since_time", "server_time", "connected_at", "expires_at"].includes(field)) return "time";
  if (field === "lane" && typeof value === "number") return "lane";
  if (field === "token") return "token";
  if (field === "message" || field === "reason") return "text";
  if (field === "retry_after_ms" || field === "reconnect_after_ms") return "wait";
  return null;
}

const same = (expected, got) =>
  isDeepStrictEqual(expected, got) ? null : `${JSON.stringify(got)}, not ${JSON.stringify(expected)}`;

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** The values that the examples stand for in one run. */
class Run {
  #bound = new Map();

  #bind(kind, example, actual, again) {
    const key = `${kind} ${JSON.stringify(example)}`;
    if (!again && this.#bound.has(key)) return this.#bound.get(key) === actual;
    this.#bound.set(key, actual);
    return true;
  }

  /** An example with the values of this run. */
  fill(example, isTop = true) {
    if (Array.isArray(example)) return example.map((value) => this.fill(value, false));
    if (!isObject(example)) return example;
    const filled = {};
    for (const [field, value] of Object.entries(example)) {
      const key = `${kindOf(field, isTop, value)} ${JSON.stringify(value)}`;
      const actual = this.#bound.get(key);
      if (actual !== undefined) filled[field] = actual;
      // The client chose no id.
      else if (field === "re" && this.#bound.has(key)) continue;
      else filled[field] = OPAQUE.has(field) ? value : this.fill(value, false);
    }
    return filled;
  }

  /** How a value differs from its example; `null` if it does not. Further fields are no difference. */
  difference(example, actual, { may = [], isPartial = false }, isTop = true) {
    if (Array.isArray(example)) {
      if (!Array.isArray(actual) || actual.length !== example.length) return "not a list of this length";
      for (const [at, value] of example.entries()) {
        const why = this.difference(value, actual[at], { may, isPartial }, false);
        if (why) return why;
      }
      return null;
    }
    if (!isObject(example)) return same(example, actual);
    for (const [field, value] of Object.entries(example)) {
      const [kind, got] = [kindOf(field, isTop, value), actual?.[field]];
      let isSame = true;
      if (kind === "request" && !isPartial) this.#bind(kind, value, got, field === "id");
      else if (got === undefined) isSame = isPartial || may.includes(field);
      else if (kind === "text") isSame = typeof got === "string" && got !== "";
      else if (kind !== null) isSame = typeof got === typeof value && this.#bind(kind, value, got);
      else {
        const isOpaque = OPAQUE.has(field);
        const why = isOpaque ? same(value, got) : this.difference(value, got, { may, isPartial }, false);
        if (why) return `${field}: ${why}`;
      }
      if (!isSame) return `${field}: ${JSON.stringify(got)} for ${JSON.stringify(value)}`;
    }
    return null;
  }
}

const bytesOf = (hex) => (hex === undefined ? undefined : new Uint8Array(Buffer.from(hex.replaceAll(" ", ""), "hex")));
const base64 = (data) => Buffer.from(data).toString("base64");

/** A body with a message and its attachment. */
function bodyOf(message, attachment) {
  const json = JSON.stringify(message);
  if (!attachment) return json;
  const length = Buffer.alloc(5, 1);
  length.writeUInt32BE(Buffer.byteLength(json), 1);
  return Buffer.concat([length, Buffer.from(json), attachment]);
}

/** A queue with one reader that waits. */
class Queue {
  #items = [];
  #wake = () => {};

  push(item) {
    this.#items.push(item);
    this.#wake();
  }

  async next() {
    while (this.#items.length === 0) await new Promise((resolve) => (this.#wake = resolve));
    return this.#items.shift();
  }
}

/** A transcript being played for one of its clients. */
class Scene {
  run = new Run();
  heard = new Queue();
  events = new Queue();
  calls = new Map();
  subscriptions = new Map();
  /** Pings that calls asked for; the client sends others to measure the round trip. */
  pings = 0;
  /** @type {import("../qws.js").Client} */
  client;
  peer;
  server;

  async start() {
    let attachments = 0;
    this.server = await scripted((message, peer) => {
      const attachment = this.server.attachments[attachments];
      if (attachment) attachments += 1;
      this.peer = peer;
      if (message.type === "ping" && this.pings === 0) return this.pong(message);
      if (message.type === "ping") this.pings -= 1;
      this.heard.push({ message, attachment });
      return "";
    });
  }

  async stop() {
    await this.client?.close();
    await this.server.stop();
  }

  async step(step) {
    if (step.call) this.calls.set(step.as ?? step.call, settled(this.call(step)));
    else if (step.connected) await this.connected(step.connected);
    else if (step.sends) await this.hear(step);
    else if (step.receives) this.say(step);
    else if (step.closed) this.peer.close(step.closed, "as the transcript says");
    else if (step.returns) {
      const { value, error } = await this.calls.get(step.of);
      if (error) throw error;
      this.compare(step.returns, value?.value ?? {});
      assert.deepEqual(value?.attachment && new Uint8Array(value.attachment), bytesOf(step.attachment));
    } else if (step.fails) {
      const { error } = await this.calls.get(step.of);
      assert.equal(error?.code, step.fails.code, String(error));
    } else if (step.event) await this.event(step);
  }

  connect({ client_name: name, token }) {
    const client = connect(this.server.url, { ...quick, name, token });
    this.client = client;
    const tell = (name, value, attachment) => this.events.push({ name, value, attachment });
    for (const type of ["broadcast", "direct", "signal"]) {
      client.addEventListener(type, ({ detail: { bytes, ...value } }) => tell(type, value, bytes));
    }
    client.addEventListener("expiring", ({ detail }) => tell("expiring", detail));
    client.addEventListener("close", ({ detail: { code, willReconnect } }) => {
      tell(willReconnect ? "disconnected" : "closed", { code });
    });
    client.addEventListener("open", ({ detail: { resumed } }) => resumed && tell("reconnected", {}));
    return client.ready.then(() => {
      const { id, serverName, user, permissions } = client;
      const value = { client_id: id, server_name: serverName };
      return { value: { ...value, user: user ?? undefined, permissions: permissions ?? undefined } };
    });
  }

  /** Connects the client and accepts its handshake. */
  async connected({ client_id, client_name }) {
    const ready = this.connect({ client_name });
    const { message } = await this.heard.next();
    assert.equal(message.type, "handshake");
    assert.equal(message.client_name, client_name);
    this.peer.send({ type: "handshake_response", re: message.id, accepted: true, client_id, server_name: "S" });
    await ready;
  }

  async hear({ sends: example, may, attachment: hex }) {
    const heard = await this.heard.next();
    const why = this.run.difference(example, heard.message, { may });
    assert.equal(why, null, `${JSON.stringify(heard.message)} for ${JSON.stringify(example)}`);
    assert.deepEqual(heard.attachment && new Uint8Array(heard.attachment), bytesOf(hex));
  }

  pong({ id, timestamp }) {
    return { type: "pong", re: id, timestamp, server_time: Date.now() };
  }

  say({ receives: example, attachment }) {
    if (example.type === "lane") return;
    const message = this.run.fill(example);
    if (message.type === "subscribed") delete message.lane;
    this.peer.send(bodyOf(message, bytesOf(attachment)));
  }

  async call({ call, with: example = {}, attachment, of, as = call }) {
    const { topic, to, user, content: text, data, ...fields } = this.run.fill(example);
    const options = inCamelCase(fields);
    const content = bytesOf(attachment) ?? text ?? data;
    const whom = user === undefined ? to : { user };
    const { client } = this;
    switch (call) {
      case "connect":
        return this.connect(fields);
      case "echo": {
        const echo = await client.echo(content);
        return typeof echo === "string" ? { value: { content: echo } } : { attachment: echo };
      }
      case "ping":
        this.pings += 1;
        await client.ping();
        return {};
      case "broadcast":
        return { value: { delivered: await client.broadcast(content) } };
      case "direct":
        return { value: { delivered: await client.direct(whom, content, options) } };
      case "signal":
        return { value: { delivered: await client.signal(whom, data) } };
      case "request":
        return { value: { ...(await client.request(topic ?? whom, content, options)) } };
      case "list_clients":
        return { value: await client.listClients(options) };
      case "subscribe": {
        const subscription = this.subscribe(as, topic, options);
        return { value: await subscription.ready };
      }
      case "unsubscribe":
        if (options.forget) await this.subscriptions.get(of).subscription.forget();
        else await this.subscriptions.get(of).subscription.unsubscribe();
        return {};
      case "ack": {
        const { durable, offset, offsets, ...how } = options;
        return { value: { acked: await client.ack(topic, durable, offsets ?? offset, how) } };
      }
      case "publish":
        return { value: await client.publish(topic, content, options) };
      case "history": {
        const { messages, ...page } = await client.history(topic, options);
        const shown = messages.map(({ bytes, ...message }) => (bytes ? { ...message, data: base64(bytes) } : message));
        return { value: { ...page, messages: shown } };
      }
      case "presence":
        return { value: await client.presence(topic) };
      case "refresh":
        return { value: await client.refresh(options.token) };
      case "close":
        await client.close(options.code, options.reason);
        return {};
      default:
        throw new Error(`${call} is no call of docs/transcripts/README.md`);
    }
  }

  subscribe(label, topic, options) {
    const subscription = this.client.subscribe(topic, options);
    const events = new Queue();
    this.subscriptions.set(label, { subscription, events });
    const tell = (name) => ({ detail: { bytes, ...value } }) => events.push({ name, value, attachment: bytes });
    for (const type of ["message", "gap", "join", "leave", "state", "return", "lost"]) {
      subscription.addEventListener(type, tell(type));
    }
    subscription.addEventListener("end", ({ detail }) => {
      if (detail) events.push({ name: "ended", value: { code: detail.code } });
    });
    return subscription;
  }

  async event({ event, of, with: example = {}, attachment: hex }) {
    const { name, value, attachment } = await (of ? this.subscriptions.get(of).events : this.events).next();
    assert.equal(name, event);
    this.compare(example, value);
    assert.deepEqual(attachment && new Uint8Array(attachment), bytesOf(hex));
  }

  /** Compares the fields that the API hands out. */
  compare(example, value) {
    const why = this.run.difference(example, value, { isPartial: true });
    assert.equal(why, null, `${JSON.stringify(value)} for ${JSON.stringify(example)}`);
  }
}

/** The names of options, as this client has them. */
const inCamelCase = (fields) =>
  Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [name.replace(/_(.)/g, (_, letter) => letter.toUpperCase()), value]),
  );

const settled = (promise) => promise.then((value) => ({ value }), (error) => ({ error }));

const files = (await readdir(FOLDER)).filter((file) => file.endsWith(".jsonl")).sort();
const transcripts = (await Promise.all(files.map(readTranscript))).filter(
  ({ head: { for: whom = ["clients"], carriers = [CARRIER], needs = [] } }) =>
    whom.includes("clients") && carriers.includes(CARRIER) && needs.every((need) => CAN.has(need)),
);

test("there are transcripts", () => assert.ok(transcripts.length > 10, `${transcripts.length} of them`));

for (const { file, head, steps } of transcripts) {
  const subjects = new Set(steps.filter(({ call, event }) => call || event).map(({ client }) => client));
  for (const subject of subjects) {
    test(`${head.transcript} (${file}, ${subject})`, { timeout: 20_000 }, async (t) => {
      const scene = new Scene();
      await scene.start();
      t.after(() => scene.stop());
      for (const step of steps.filter(({ client }) => client === subject)) {
        await scene.step(step).catch((error) => {
          error.message = `line ${step.line}: ${error.message}`;
          throw error;
        });
      }
    });
  }
}
