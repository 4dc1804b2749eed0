// The server's admin API, and its token. The token is kept only in sessionStorage, so it is gone with the tab, and is
// sent only in a header, because addresses end up in logs and histories.

import { parseExactly } from "./message.js";

const STORED = "qws.admin-token";

// The characters that a header can carry; fetch would throw at others.
const VISIBLE_ASCII = /^[\x21-\x7e]+$/;

/** Whether a text can be a token. */
export const isToken = (text) => VISIBLE_ASCII.test(text);

/** The server answered with an error. */
export class Refused extends Error {
  /** `waitSeconds` is the time to wait before the next request, 0 if the server named none. */
  constructor(status, message, waitSeconds = 0) {
    super(waitSeconds > 0 ? `${message} (retry in ${waitSeconds} s)` : message);
    this.name = "Refused";
    this.status = status;
    this.waitSeconds = waitSeconds;
  }

  /** Whether the token is missing or wrong. */
  get isAboutToken() {
    return this.status === 401;
  }
}

/** Shown for a wrong token. */
export const INVALID_TOKEN = "That is not a valid admin token.";

/** Explains to the user why a token was not accepted. */
export function tokenProblem(error) {
  if (error.status === undefined) return "The server cannot be reached. Try again later.";
  if (error.status === 401) return INVALID_TOKEN;
  if (error.status === 403) return "The dashboard is not available at this address.";
  if (error.status === 429) {
    const when = error.waitSeconds > 0 ? `in ${error.waitSeconds} seconds` : "later";
    return `Too many wrong tokens from your address. Try again ${when}.`;
  }
  return `The server could not check the token (status ${error.status}).`;
}

/**
 * The token in an address such as "/dashboard#token=...", as the server prints it, or `null`. It is removed from the
 * address at once: it would stay in the history and be copied with the link.
 */
export function tokenFromAddress({ location, history }) {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (!asked.has("token")) return null;
  history.replaceState(history.state, "", location.pathname + location.search);
  return asked.get("token").trim();
}

export class Api {
  #token = null;

  constructor() {
    // Storage may be blocked; the token then lasts as long as the page.
    try {
      this.#token = sessionStorage.getItem(STORED);
    } catch {
      this.#token = null;
    }
  }

  get hasToken() {
    return this.#token !== null;
  }

  keepToken(token) {
    this.#token = token;
    try {
      sessionStorage.setItem(STORED, token);
    } catch {
      // As above.
    }
  }

  forgetToken() {
    this.#token = null;
    try {
      sessionStorage.removeItem(STORED);
    } catch {
      // As above.
    }
  }

  /** GET /api/stats, listing at most `clients` clients; `token` replaces the stored one. */
  stats({ clients, signal, token }) {
    return this.#ask(`api/stats?clients=${clients}`, { signal, token });
  }

  /** POST /api/publish; resolves to {topic, epoch, offset}. */
  publish(topic, content) {
    return this.#ask("api/publish", { body: { topic, content } });
  }

  /** POST /api/disconnect of a target, `{client}` or `{user}`; resolves to {clients}, as the next two. */
  disconnect(target, code, reason) {
    return this.#ask("api/disconnect", { body: { ...target, code, ...(reason === "" ? {} : { reason }) } });
  }

  /** POST /api/subscribe. */
  subscribe(target, topic) {
    return this.#ask("api/subscribe", { body: { ...target, topic } });
  }

  /** POST /api/unsubscribe. */
  unsubscribe(target, topic) {
    return this.#ask("api/unsubscribe", { body: { ...target, topic } });
  }

  /** POST /api/revoke of all tokens of a user; resolves to {kept}. */
  revoke(user) {
    return this.#ask("api/revoke", { body: { user } });
  }

  /** POST /api/unrevoke. */
  unrevoke(user) {
    return this.#ask("api/unrevoke", { body: { user } });
  }

  /** GET /api/clients of a user; resolves to {clients, total}. */
  clientsOf(user) {
    return this.#ask(`api/clients?${query({ user })}`);
  }

  /** GET /api/topics, by name; resolves to {topics, total, next}. */
  topics({ contains, limit, after, signal }) {
    return this.#ask(`api/topics?${query({ contains, limit, after })}`, { signal });
  }

  /** GET /api/history: a page, as of the protocol. With `waitMs`, once there is something behind the position. */
  history({ topic, limit, reverse, epoch, offset, waitMs, signal }) {
    const asked = query({ topic, limit, reverse, epoch, offset, wait_ms: waitMs });
    return this.#ask(`api/history?${asked}`, { signal, parse: parseExactly });
  }

  /** GET /api/members: a page, as of the protocol. */
  members({ topic, limit, after, signal }) {
    return this.#ask(`api/members?${query({ topic, limit, after })}`, { signal });
  }

  async #ask(path, { signal, body, token = this.#token, parse = JSON.parse } = {}) {
    const headers = { accept: "application/json" };
    if (token !== null) headers.authorization = `Bearer ${token}`;
    const request = { headers, signal, cache: "no-store", redirect: "error" };
    if (body !== undefined) {
      headers["content-type"] = "application/json";
      Object.assign(request, { method: "POST", body: JSON.stringify(body) });
    }
    const response = await fetch(new URL(path, document.baseURI), request);
    const answer = await json(response, parse);
    if (!response.ok) throw refusal(response, answer);
    if (answer === null || typeof answer !== "object") {
      throw new Refused(response.status, "the response is not what the dashboard expects");
    }
    return answer;
  }
}

/** A query with the values that are set. */
function query(values) {
  return new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined));
}

function refusal(response, answer) {
  const why = answer?.error ?? `HTTP status ${response.status}`;
  return new Refused(response.status, why, Number(response.headers.get("retry-after")) || 0);
}

/** The JSON body of a response, or `null`: a proxy may answer in the server's place with an HTML page. */
async function json(response, parse) {
  const text = await response.text();
  try {
    return parse(text);
  } catch {
    return null;
  }
}
