// The declarations with only the ES2022 library, as a program that has to pass the type check. It is never run.
import { connect, QwsError } from "../qws.js";
import type { Client, HistoryPage, Message, Subscription, UrlLike } from "../qws.js";

export async function use(url: UrlLike): Promise<Message[]> {
  const client: Client = connect(url, { name: "Ada", token: async () => undefined });
  const heard: Message[] = [];
  client.addEventListener("close", ({ type, detail }) => void [type, detail.code + 1, detail.willReconnect]);
  const subscription: Subscription = client.subscribe("a.b", { recent: 3 });
  subscription.addEventListener("message", ({ detail }) => heard.push(detail), { once: true });
  subscription.addEventListener("end", { handleEvent: ({ detail }) => void detail?.kind });
  for await (const message of subscription) heard.push(message);
  const page: HistoryPage = await client.history("a.b", { recent: 3 });
  const error = new QwsError("usage", "no");
  // @ts-expect-error there is no DOM here
  document.title = error.message;
  // @ts-expect-error a close has a number
  client.addEventListener("close", ({ detail }) => detail.code.length);
  return [...heard, ...page.messages];
}
