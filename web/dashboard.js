// The dashboard: asks the server once a second what it does, and shows it. This file puts the parts together and decides what state the
// page is in; each part is in dashboard/.

import { Api, isToken, tokenFromAddress } from "./dashboard/api.js";
import { CHARTED, Charts } from "./dashboard/charts.js";
import { ClientsTable } from "./dashboard/clients.js";
import { DisconnectDialog } from "./dashboard/disconnect.js";
import { byId, setText } from "./dashboard/dom.js";
import { clock, sentence } from "./dashboard/format.js";
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
const showTopics = topicsTable();
const showCloses = closesTable();
const publishForm = new PublishForm(api);

const disconnectDialog = new DisconnectDialog({
  api,
  done(client, code) {
    status.say(`${client.name ?? client.id} was disconnected with ${code}.`);
    clients.remove(client);
    poll.now();
  },
});

const clients = new ClientsTable({
  disconnect: (client) => disconnectDialog.open(client),
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

const NEEDED = "The dashboard needs the admin token of this server.";
const WRONG = "That is not a valid access token.";
const OUTDATED = "The token is no longer valid. A server that makes its own makes a new one at each start.";

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
  document.title = `${stats.server_name} · Dashboard`;
  document.body.dataset.polls = Number(document.body.dataset.polls) + 1;
  showToken();
  status.is("live");
}

function failed(error, next) {
  if (error.isAboutToken) {
    poll.stop();
    const problem = !api.hasToken ? "" : lastAnswer === null ? WRONG : OUTDATED;
    deny(problem || NEEDED);
    tokenDialog.open(problem);
    return;
  }
  const since = lastAnswer === null ? "" : ` The numbers are from ${clock(lastAnswer)}.`;
  const again = `Trying again every ${next / 1000} s.`;
  const action = ["Try now", () => poll.now()];
  if (error.status !== undefined) status.is("failing", { notice: `The server answered with an error: ${sentence(error.message)}${since} ${again}`, action });
  else status.is("away", { notice: `The server does not answer.${since} ${again}`, action });
}

// Without a token that the server accepts nothing is asked: guesses are not the page's affair.
function deny(why) {
  api.forgetToken();
  showToken();
  status.is("denied", { notice: why, action: ["Enter token", () => tokenDialog.open()] });
}

/** Takes a token from the address, where there is one. */
function takeToken() {
  const token = tokenFromAddress(window);
  if (token === null) return false;
  if (isToken(token)) api.keepToken(token);
  return isToken(token);
}

function resume() {
  setText(byId("pause"), "Pause");
  status.is("connecting");
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
  status.is("paused");
});

byId("forget-token").addEventListener("click", () => {
  poll.stop();
  deny("The token was forgotten.");
});

// A printed address that is opened in a tab with the dashboard in it.
addEventListener("hashchange", () => {
  if (!takeToken()) return;
  tokenDialog.close();
  resume();
});

takeToken();
poll.start();
