// The declarations, as a program that has to pass the type check. It is never run.
import { connect, QwsError } from "../qws.js";
import type { Client, ConnectOptions, Message, MessageIterator, Position, Subscription } from "../qws.js";

const options: ConnectOptions = {
  name: "Ada",
  token: async () => "t",
  carriers: ["websocket"],
  certificateHash: false,
};

export async function use(): Promise<void> {
  const client: Client = connect("https://localhost:4433", options);
  await client.ready;
  client.addEventListener("open", ({ detail }) => console.log(detail.carrier === "webtransport", detail.resumed));
  client.addEventListener("close", ({ detail }) => console.log(detail.code + 1, detail.willReconnect));
  // They are the platform's events and targets.
  const target: EventTarget = client;
  const hear = (event: CustomEvent<Message>) => take(event.detail);
  client
    .subscribe(new URL("https://a.b").host)
    .addEventListener("message", hear, { signal: new AbortController().signal });
  target.addEventListener("open", (event) => event.preventDefault());
  const state: "connecting" | "open" | "reconnecting" | "closed" = client.state;
  const text: string = await client.echo("hi");
  const bytes: Uint8Array = await client.echo(new Uint8Array(3));
  const delivered: number = await client.broadcast(bytes);
  for await (const { id, transport } of client.clients()) console.log(id, transport, state, text, delivered);

  const subscription: Subscription = client.subscribe("a.b", { recent: 10, presence: true });
  const { epoch, recovered } = await subscription.ready;
  subscription.addEventListener("gap", ({ detail }) => console.log(detail.first - detail.last, epoch, recovered));
  for await (const message of subscription) take(message);
  const iterator: MessageIterator = subscription[Symbol.asyncIterator]();
  const first = await iterator.next();
  if (!first.done) take(first.value);
  for await (const message of iterator) take(message);
  const over: true = (await iterator.return()).done;
  await iterator.throw(new Error(String(over))).catch(() => {});
  const position: Position | null = subscription.position;
  await subscription.unsubscribe();

  const durable: string = client.inbox ?? "w";
  const orders: Subscription = client.subscribe("orders", { durable, maxInFlight: 5, ack: "upto" });
  const waiting: number | undefined = (await orders.ready).pending;
  for await (const order of orders) {
    const acked: number = (order.tries ?? 1) > waiting! ? await orders.reject(order) : await orders.ack([order, 7]);
    await orders.retry(order.offset, acked);
  }
  await client.ack("orders", orders.durable ?? "w", 7, { outcome: "retry", delayMs: 100 });
  await orders.forget();
  await client.history("orders", { sinceTime: Date.now() - 1000 });

  const newest = await client.history("a.b", { recent: 5 });
  console.log(newest.epoch, newest.offset + 1, newest.recovered);
  const { offset, duplicate, stored } = await client.publish("a.b", "x", { key: "k" });
  const page = await client.history("a.b", { since: position ?? undefined, reverse: !duplicate, limit: offset });
  page.messages.map(take);
  console.log(stored === "fsync");
  await client.close(4000, "done");

  await client.publish("a.b", { any: "value" }, { meta: { event: "made" }, ttlMs: 1000, bytes });
  const receivers: number = await client.direct({ user: "ada" }, [1], { meta: {} });
  const answer = await client.request("sum", [1, 2], { timeoutMs: 500, signal: new AbortController().signal });
  console.log(receivers, answer.user, answer.text?.length, answer.json?.length);
  console.log(answer.data.total, answer.bytes?.length);
  const service: Subscription = client.serve("sum", async ({ data, signal, respond }) => {
    signal.addEventListener("abort", () => respond(null));
    return data[0] + data[1];
  });
  await service.setState({ load: 1 });
  const members = client.subscribe("a.b", { members: true, maxRate: 2, echo: false, filter: { n: { prefix: "x" } } });
  members.addEventListener("members", ({ detail }) => console.log(detail.members[0]?.state, detail.error?.code));
  client.addEventListener("subscription", ({ detail }) => console.log(detail.topic, members.members?.length));
  // @ts-expect-error meta is an object
  await client.publish("a.b", 1, { meta: 1 });
  // @ts-expect-error there is no such carrier
  connect(undefined, { carriers: ["carrier pigeon"] });
  // @ts-expect-error a position has two parts
  client.subscribe("a.b", { since: { offset: 1 } });
  // @ts-expect-error it is read only
  client.state = "open";
}

function take({ topic, offset, content, data, from }: Message): string {
  return `${topic} ${offset} ${content ?? data?.length} ${from ?? "nobody"}`;
}

export function explain(error: unknown): string {
  if (!(error instanceof QwsError)) return "no error of this client";
  return error.kind === "request" && error.code === 429 ? `in ${error.retryAfterMs} ms` : error.message;
}
