// Settings of a server that requires tokens, and tokens that it accepts.

import { createHmac } from "node:crypto";

const SECRET = "0123456789abcdef0123456789abcdef";

/** Settings with which every token allows chatting. @param {string} [more] lines of `[auth]` */
export function asksForTokens(more = "") {
  const may = ["publish", "subscribe", "presence", "history"].map((what) => `${what} = ["chat.>"]`).join("\n");
  const key = `[[auth.keys]]\nalgorithm = "HS256"\nsecret = "${SECRET}"`;
  return `[auth]\n${more}\n[auth.token]\n${may}\nlist_clients = true\n${key}`;
}

/** A token of a user that expires in this many seconds. @param {object} [claims] additional claims */
export function tokenOf(sub, seconds = 600, claims = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub, exp, ...claims })}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}
