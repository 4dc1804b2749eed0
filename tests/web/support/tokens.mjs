// A server that asks for tokens, and tokens that it takes.

import { createHmac } from "node:crypto";

const SECRET = "0123456789abcdef0123456789abcdef";

/** Settings by which every token allows to chat. @param {string} [more] lines of `[auth]` */
export function asksForTokens(more = "") {
  const may = ["publish", "subscribe", "presence", "history"].map((what) => `${what} = ["chat.>"]`).join("\n");
  return `[auth]\n${more}\n[auth.token]\n${may}\nlist_clients = true\n[[auth.keys]]\nalgorithm = "HS256"\nsecret = "${SECRET}"`;
}

/** A token of a user, for so many seconds. */
export function tokenOf(sub, seconds = 600) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub, exp: Math.floor(Date.now() / 1000) + seconds })}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}
