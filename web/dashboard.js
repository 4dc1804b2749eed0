// The dashboard: requests the server's statistics once a second and shows them. This file wires the parts together and
// decides the page's state; the parts are in dashboard/.

import { Api, INVALID_TOKEN, isToken, tokenFromAddress } from "./dashboard/api.js";
import { CHARTED, Charts } from "./dashboard/charts.js";
import { ClientsTable } from "./dashboard/clients.js";
import { DisconnectDialog } from "./dashboard/disconnect.js";
import { TopicBrowser } from "./dashboard/browser.js";
import { byId, setMessage, setText } from "./dashboard/dom.js";
import { clock, nameOf, sentence } from "./dashboard/format.js";
import { ManageDialog } from "./dashboard/manage.js";
import { Numbers } from "./dashboard/numbers.js";
import { Poll } from "./dashboard/poll.js";
import { PublishForm } from "./dashboard/publish.js";
import { Samples } from "./dashboard/samples.js";
import { Status } from "./dashboard/status.js";
import { closesTable, topicsTable } from "./dashboard/tables.js";
import { TokenDialog } from "./dashboard/token.js";

const api = new Api();
const status = new Status();
const samples = new Samples(CHARTED);
const numbers = new Numbers(document);
const charts = new Charts(byId("charts"));
const browser = new TopicBrowser(api);
const showTopics = topicsTable((topic) => {
  browser.open(topic);
  byId("browser-title").scrollIntoView({ block: "nearest" });
  byId("browser-title").focus({ preventScroll: true });
});
const showCloses = closesTable();
const publishForm = new PublishForm(api);

const disconnectDialog = new DisconnectDialog({
  api,
  done(target, what) {
    status.say(what);
    clients.remove(target);
    poll.now();
  },
});

const manageDialog = new ManageDialog({
  api,
  disconnect: (target, name) => disconnectDialog.open(target, name),
  done: () => poll.now(),
});

const clients = new ClientsTable({
  disconnect: (client) => disconnectDialog.open({ client: client.id }, nameOf(client)),
  manage: (client) => manageDialog.openClient(client),
  openUser: (user) => manageDialog.openUser(user),
  limitChanged: () => poll.now(),
});

const tokenDialog = new TokenDialog({
  async tryToken(token) {
    await api.stats({ clients: 1, token });
    api.keepToken(token);
    resume();
  },
});

const poll = new Poll({ ask: (signal) => api.stats({ clients: clients.limit, signal }), answered, failed });

const REQUIRED = "The dashboard requires the admin token of this server.";
const OUTDATED = "The admin token is no longer valid. If none is configured, the server makes a new one at each start.";

let lastAnswer = null;

function answered(stats, { asked, received }) {
  lastAnswer = Date.now();
  const view = samples.add(stats, { asked, received, epoch: performance.timeOrigin });
  numbers.show(view);
  showCarriers(view.clients);
  byId("tile-dropped").classList.toggle("hot", view.rates.dropped > 0);
  byId("tile-refused").classList.toggle("hot", view.rates.refused > 0);
  showTopics(view.topics);
  showCloses(view.totals?.closed);
  publishForm.offer(view.topics?.top ?? []);
  clients.show(view);
  charts.show(samples);
  browser.polled();
  document.title = `${stats.server_name} · Dashboard`;
  document.body.dataset.polls = Number(document.body.dataset.polls) + 1;
  showToken();
  status.set("live");
}

function failed(error, next) {
  if (error.isAboutToken) {
    poll.stop();
    const problem = !api.hasToken ? "" : lastAnswer === null ? INVALID_TOKEN : OUTDATED;
    deny(problem || REQUIRED);
    tokenDialog.open(problem);
    return;
  }
  const since = lastAnswer === null ? "" : ` Last update: ${clock(lastAnswer)}.`;
  const again = `Retrying every ${next / 1000} s.`;
  const action = ["Retry now", () => poll.now()];
  if (error.status !== undefined) {
    const notice = `The server returned an error: ${sentence(error.message)}${since} ${again}`;
    status.set("failing", { notice, action });
  } else {
    status.set("away", { notice: `The server is not responding.${since} ${again}`, action });
  }
}

/** Forgets the token and waits for another one: the page does not keep polling with one that the server refuses. */
function deny(why) {
  browser.pause();
  api.forgetToken();
  showToken();
  status.set("denied", { notice: why, action: ["Enter token", () => tokenDialog.open()] });
}

/** Takes a token from the address. Returns whether there was one. */
function takeToken() {
  const token = tokenFromAddress(window);
  if (token === null) return false;
  if (isToken(token)) api.keepToken(token);
  return isToken(token);
}

function resume() {
  setText(byId("pause"), "Pause");
  status.set("connecting");
  poll.start();
}

function showToken() {
  byId("forget-token").hidden = !api.hasToken;
}

function showCarriers(counts) {
  const bar = byId("carriers-bar");
  ["quic", "webtransport", "websocket"].forEach((name, index) => {
    bar.children[index].style.flexGrow = counts?.[name] ?? 0;
  });
}

byId("pause").addEventListener("click", () => {
  if (status.state === "paused") return resume();
  poll.stop();
  setText(byId("pause"), "Resume");
  status.set("paused");
});

byId("user-find").addEventListener("submit", (event) => {
  event.preventDefault();
  const user = byId("user-name").value.trim();
  const isUser = user !== "" && new TextEncoder().encode(user).length <= 128;
  setMessage(byId("user-problem"), isUser ? "" : "Enter the name of a user, as in the tokens (sub).");
  if (isUser) manageDialog.openUser(user);
});

byId("forget-token").addEventListener("click", () => {
  poll.stop();
  deny("The token was forgotten.");
});

// The address that the server prints, opened in a tab that already shows the dashboard.
addEventListener("hashchange", () => {
  if (!takeToken()) return;
  tokenDialog.close();
  resume();
});

takeToken();
poll.start();
