// The server's admin API, and the token for it. The token is kept in sessionStorage alone, so it ends with the tab, and
// travels in a header alone: addresses end up in logs and histories.

const STORED = "qws.admin-token";

// What a header can carry; fetch would throw at anything else.
const VISIBLE_ASCII = /^[\x21-\x7e]+$/;

/** Whether this can be a token at all. */
export const isToken = (text) => VISIBLE_ASCII.test(text);

/** The server answered, and not with what was asked for. */
export class Refused extends Error {
  /** `waitSeconds` is how long to wait before asking again, 0 where the server did not say. */
  constructor(status, message, waitSeconds = 0) {
    super(waitSeconds > 0 ? `${message} (in ${waitSeconds} s)` : message);
    this.name = "Refused";
    this.status = status;
    this.waitSeconds = waitSeconds;
  }

  /** Whether it takes a token, or another one. */
  get isAboutToken() {
    return this.status === 401;
  }
}

/** Why a token was of no use, in words for people. */
export function tokenProblem(error) {
  if (error.status === undefined) return "The server cannot be reached. Try again when it is back.";
  if (error.status === 401) return "That is not a valid access token.";
  if (error.status === 403) return "The server does not serve the dashboard at this address.";
  if (error.status === 429) {
    const when = error.waitSeconds > 0 ? `in ${error.waitSeconds} seconds` : "later";
    return `Too many wrong tokens were tried from this address. Try again ${when}.`;
  }
  return `The server could not check the token (status ${error.status}).`;
}

/**
 * The token in an address like "/dashboard#token=...", as the server prints it, taken out of the address at once: there it
 * would stay in the history and be copied with a link. `null` where there is none.
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
    // Storage can be forbidden; the token then lasts as long as the page.
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

  /** GET /api/stats with at most `clients` in its list; `token` in place of the kept one. */
  stats({ clients, signal, token }) {
    return this.#ask(`api/stats?clients=${clients}`, { signal, token });
  }

  /** POST /api/publish: {topic, epoch, offset}. */
  publish(topic, content) {
    return this.#ask("api/publish", { body: { topic, content } });
  }

  /** POST /api/disconnect. */
  disconnect(client, code, reason) {
    return this.#ask("api/disconnect", { body: reason === "" ? { client, code } : { client, code, reason } });
  }

  async #ask(path, { signal, body, token = this.#token }) {
    const headers = { accept: "application/json" };
    if (token !== null) headers.authorization = `Bearer ${token}`;
    const request = { headers, signal, cache: "no-store", redirect: "error" };
    if (body !== undefined) {
      headers["content-type"] = "application/json";
      Object.assign(request, { method: "POST", body: JSON.stringify(body) });
    }
    const response = await fetch(new URL(path, document.baseURI), request);
    const answer = await json(response);
    if (!response.ok) throw refusal(response, answer);
    if (answer === null || typeof answer !== "object") throw new Refused(response.status, "the answer is not what the dashboard expects");
    return answer;
  }
}

function refusal(response, answer) {
  const why = answer?.error ?? `the answer has status ${response.status}`;
  return new Refused(response.status, why, Number(response.headers.get("retry-after")) || 0);
}

// Something between here and the server may answer in its place, with a page.
async function json(response) {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
