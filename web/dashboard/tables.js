// The tables of topics and of close codes.

import { meaning } from "./codes.js";
import { Rows, byId, make, setAttribute, setNumber, setText } from "./dom.js";
import * as format from "./format.js";

const number = (metric, value, form) => ({
  number: true,
  make: (cell) => setAttribute(cell, "data-metric", metric),
  fill: (cell, item) => setNumber(cell, value(item), form),
});

/** The topics with the most messages recently. `openTopic(name)` is called by their names. */
export function topicsTable(openTopic) {
  const rows = new Rows(byId("topics").tBodies[0], {
    key: (topic) => topic.topic,
    empty: "Nothing published yet.",
    prepare: (row, topic) => {
      setAttribute(row, "data-testid", "topic-row");
      setAttribute(row, "data-topic", topic.topic);
    },
    columns: [
      {
        heading: true,
        make: (cell) => {
          cell.classList.add("topic-name", "mono");
          const button = make("button", { type: "button", class: "link", "data-testid": "open-topic" });
          button.addEventListener("click", () => openTopic(button.textContent));
          cell.append(button);
        },
        fill: (cell, topic) => setText(cell.firstChild, topic.topic),
      },
      number("topics.top.subscribers", (topic) => topic.subscribers, format.count),
      number("topics.top.pattern_subscribers", (topic) => topic.pattern_subscribers, format.count),
      number("topics.top.per_second", (topic) => topic.per_second, format.rate),
      number("topics.top.published", (topic) => topic.published, format.count),
      number("topics.top.offset", (topic) => topic.offset, format.count),
    ],
  });
  return (topics) => rows.show(topics?.top ?? []);
}

/** Closed connections by code, the most frequent first. The server counts unknown codes together as "other". */
export function closesTable() {
  const rows = new Rows(byId("closes").tBodies[0], {
    key: (close) => close.code,
    empty: "No connections closed yet.",
    prepare: (row, close) => {
      setAttribute(row, "data-testid", "close-row");
      setAttribute(row, "data-code", close.code);
    },
    columns: [
      { heading: true, fill: (cell, close) => setText(cell, close.code) },
      {
        fill: (cell, close) =>
          setText(cell, close.code === "other" ? "Other codes" : meaning(close.code) || "Application code"),
      },
      {
        number: true,
        fill: (cell, close) => {
          setAttribute(cell, "data-metric", `totals.closed.${close.code}`);
          setNumber(cell, close.times, format.count);
        },
      },
    ],
  });
  return (closed) => {
    const closes = Object.entries(closed ?? {}).map(([code, times]) => ({ code, times }));
    closes.sort((a, b) => b.times - a.times || (a.code < b.code ? -1 : 1));
    rows.show(closes.filter(({ times }) => times > 0));
  };
}
