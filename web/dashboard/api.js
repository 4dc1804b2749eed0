// The server's admin API, and the token for it. The token is kept in sessionStorage alone, so it ends with the tab, and
// travels in a header alone: addresses end up in logs and histories.

const STORED = "qws.admin-token";

/** The server answered, and not with what was asked for. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.name = "Refused";
    this.status = status;
  }

  /** Whether another token might change the answer. */
  get isAboutToken() {
    return this.status === 401 || this.status === 403;
  }
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
    if (!response.ok) throw new Refused(response.status, refusal(response, answer));
    if (answer === null || typeof answer !== "object") throw new Refused(response.status, "the answer is not what the dashboard expects");
    return answer;
  }
}

function refusal(response, answer) {
  const why = answer?.error ?? `the answer has status ${response.status}`;
  const wait = Number(response.headers.get("retry-after"));
  return wait > 0 ? `${why} (in ${wait} s)` : why;
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
