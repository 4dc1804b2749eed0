// The charts: their series, how they are drawn (uPlot), and the same values as tables for readers who cannot see a
// canvas. Each is a figure with a plot, a legend with the newest, lowest and highest values, and 15-second averages.

import uPlot from "../vendor/uPlot.esm.js";
import { make, setAttribute, setNumber, setText } from "./dom.js";
import * as format from "./format.js";
import { extent, means, windowOf } from "./samples.js";

const HEIGHT = 130;
const SPAN_SECONDS = 15;

const CHARTS = [
  {
    id: "clients",
    quiet: "No clients connected.",
    title: "Clients",
    unit: "count",
    series: [
      ["clients.quic", "Native QUIC"],
      ["clients.webtransport", "WebTransport"],
      ["clients.websocket", "WebSocket"],
    ],
  },
  {
    id: "messages",
    quiet: "No messages.",
    title: "Messages per second",
    unit: "rate",
    series: [
      ["rates.messages_in", "In"],
      ["rates.messages_out", "Out"],
    ],
  },
  {
    id: "bytes",
    quiet: "No messages.",
    title: "Bytes per second",
    unit: "bytes",
    series: [
      ["rates.bytes_in", "In"],
      ["rates.bytes_out", "Out"],
    ],
  },
  {
    id: "waiting",
    title: "Waiting in queues",
    quiet: "Nothing queued.",
    unit: "bytes",
    series: [
      ["queues.bytes", "All clients"],
      ["queues.max_client_bytes", "Fullest client"],
    ],
  },
  {
    id: "rtt",
    quiet: "No clients measured.",
    title: "Round trip",
    unit: "ms",
    series: [
      ["rtt_ms.p50", "Median"],
      ["rtt_ms.p90", "p90"],
      ["rtt_ms.p99", "p99"],
    ],
  },
  {
    id: "refusals",
    quiet: "Nothing dropped or refused.",
    title: "Dropped and refused per second",
    unit: "rate",
    series: [
      ["rates.dropped", "Dropped"],
      ["rates.refused", "Refused"],
    ],
  },
];

/** The paths of all values that the charts show. */
export const CHARTED = CHARTS.flatMap((chart) => chart.series.map(([path]) => path));

// The possible steps of an axis. Bytes use powers of two, so that labels are round; counts use whole numbers.
const powers = (base, factors, from, to) => {
  const steps = [];
  for (let power = from; power <= to; power += 1) steps.push(...factors.map((factor) => factor * base ** power));
  return steps;
};
const UNITS = {
  count: { format: format.count, steps: powers(10, [1, 2, 5], 0, 12), least: 4 },
  rate: { format: format.rate, steps: powers(10, [1, 2, 5], -1, 12), least: 1 },
  bytes: { format: format.bytes, steps: powers(1024, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512], 0, 5), least: 1024 },
  ms: { format: format.ms, steps: powers(10, [1, 2, 5], -2, 6), least: 0.1 },
};

// Lines differ by their dashes as well as by colour.
const DASHES = [[], [7, 4], [2, 3]];

export class Charts {
  #charts;

  constructor(parent) {
    this.#charts = CHARTS.map((definition) => new Chart(definition, parent));
    document.addEventListener("themechange", () => this.#charts.forEach((chart) => chart.repaint()));
  }

  /** Draws the values kept by `samples`. */
  show(samples) {
    for (const chart of this.#charts) chart.show(samples);
  }
}

class Chart {
  #definition;
  #unit;
  #swatches = [];
  #cells = [];
  #picture;
  #tip;
  #quiet;
  #values;
  #valuesBody;
  #columns = [[]];
  #colours = [];
  #plot;

  constructor(definition, parent) {
    this.#definition = definition;
    this.#unit = UNITS[definition.unit];
    this.#build(parent);
    this.#readColours();
    this.#plot = new uPlot(this.#options(), this.#noData(), this.#picture);
    new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width > 0 && width !== this.#plot.width) this.#plot.setSize({ width, height: HEIGHT });
    }).observe(this.#picture);
  }

  show(samples) {
    this.#columns = samples.columns(this.#definition.series.map(([path]) => path));
    this.#plot.setData(this.#columns);
    this.#quiet.hidden = !this.#columns.slice(1).every((values) => values.every((value) => !value));
    const spoken = this.#definition.series.map(([, label], index) => {
      const { now, lowest, highest } = extent(this.#columns[index + 1]);
      const values = [now, lowest, highest];
      this.#cells[index].forEach((cell, which) => setNumber(cell, values[which], this.#unit.format));
      const [current, least, most] = values.map(this.#unit.format);
      return `${label} now ${current}, lowest ${least}, highest ${most}`;
    });
    setAttribute(this.#picture, "aria-label", `Line chart of the last 5 minutes. ${spoken.join(". ")}.`);
    if (this.#values.open) this.#showValues();
  }

  /** Draws again in the colours of another theme. */
  repaint() {
    this.#readColours();
    this.#plot.redraw(false, true);
  }

  #build(parent) {
    const { id, title, series } = this.#definition;
    const titleId = `chart-${id}-title`;
    this.#picture = make("div", { class: "plot", role: "img", "aria-label": "No data yet" });
    this.#tip = make("div", { class: "tip", hidden: "", "aria-hidden": "true" });
    this.#quiet = make("p", { class: "plot-quiet", hidden: "" }, this.#definition.quiet);

    const legend = make(
      "table",
      { class: "legend" },
      make("caption", { class: "visually-hidden" }, `${title}, the last 5 minutes`),
      headings(["Series", "Now", "Lowest", "Highest"]),
    );
    const legendBody = legend.createTBody();
    series.forEach(([path, label], index) => {
      const swatch = make("span", { class: `swatch line-${index + 1} series-${index + 1}`, "aria-hidden": "true" });
      this.#swatches.push(swatch);
      const cells = ["now", "lowest", "highest"].map((which) =>
        make("td", { class: "number", "data-metric": `chart.${path}.${which}`, "data-value": "" }, format.NONE),
      );
      this.#cells.push(cells);
      legendBody.append(make("tr", {}, make("th", { scope: "row" }, swatch, label), ...cells));
    });

    const table = make(
      "table",
      { class: "legend" },
      make("caption", { class: "visually-hidden" }, `${title}, ${SPAN_SECONDS}-second averages`),
      headings(["From", ...series.map(([, label]) => label)]),
    );
    this.#valuesBody = table.createTBody();
    this.#values = make(
      "details",
      { class: "values" },
      make("summary", {}, "Values", make("span", { class: "visually-hidden" }, ` of ${title}`)),
      make("div", { class: "values-scroll", role: "region", "aria-label": `Values of ${title}`, tabindex: "0" }, table),
    );
    this.#values.addEventListener("toggle", () => this.#values.open && this.#showValues());

    parent.append(
      make(
        "figure",
        { class: "card chart", "aria-labelledby": titleId, "data-testid": `chart-${id}` },
        make("figcaption", {}, make("h3", { id: titleId }, title)),
        make("div", { class: "plot-frame" }, this.#picture, this.#quiet, this.#tip),
        legend,
        this.#values,
      ),
    );
  }

  #showValues() {
    const rows = means(this.#columns, SPAN_SECONDS);
    while (this.#valuesBody.rows.length > rows.length) this.#valuesBody.deleteRow(-1);
    rows.forEach(({ from, values }, index) => {
      const row = this.#valuesBody.rows[index] ?? this.#valuesRow();
      setText(row.cells[0], format.clock(from * 1000));
      values.forEach((value, which) => setText(row.cells[which + 1], this.#unit.format(value)));
    });
  }

  #valuesRow() {
    const row = make("tr", {}, make("th", { scope: "row" }));
    for (const _ of this.#definition.series) row.append(make("td", { class: "number" }));
    this.#valuesBody.append(row);
    return row;
  }

  #readColours() {
    // The swatches already have the colours of the theme.
    this.#colours = this.#swatches.map((swatch) => getComputedStyle(swatch).color);
  }

  #noData() {
    return [[], ...this.#definition.series.map(() => [])];
  }

  #options() {
    const style = (name) => () => getComputedStyle(this.#picture).getPropertyValue(name).trim();
    const axis = { stroke: style("--muted"), font: `11px ${style("--font")()}`, ticks: { show: false } };
    const grid = { stroke: style("--chart-grid"), width: 1 };
    const { steps, least } = this.#unit;
    return {
      width: Math.max(200, Math.floor(this.#picture.clientWidth)),
      height: HEIGHT,
      padding: [8, 18, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, sync: { key: "dashboard" }, points: { size: 6 } },
      scales: {
        x: { time: true, range: () => this.#window() },
        y: { range: (_plot, _lowest, highest) => [0, Math.max(least, (highest ?? 0) * 1.08)] },
      },
      axes: [
        {
          ...axis,
          grid: { show: false },
          space: 60,
          size: 26,
          values: (_plot, splits) => splits.map(labelled(splits)),
        },
        {
          ...axis,
          grid,
          space: 36,
          size: 62,
          gap: 6,
          incrs: steps,
          values: (_plot, splits) => splits.map(this.#unit.format),
        },
      ],
      series: [
        {},
        ...this.#definition.series.map(([, label], index) => ({
          label,
          stroke: () => this.#colours[index],
          width: 1.75,
          dash: DASHES[index],
          points: { show: false },
        })),
      ],
      hooks: { setCursor: [(plot) => this.#pointAt(plot)] },
    };
  }

  #window() {
    return windowOf(this.#columns[0], Date.now() / 1000);
  }

  /** Shows the values under the pointer in a tip next to it. */
  #pointAt(plot) {
    const { idx, left } = plot.cursor;
    const time = plot.data[0][idx];
    // Only the chart under the pointer shows a tip; the others show the line.
    if (time === undefined || left < 0 || !plot.root.matches(":hover")) {
      this.#tip.hidden = true;
      return;
    }
    const lines = this.#definition.series.map(
      ([, label], index) => `${label}  ${this.#unit.format(plot.data[index + 1][idx])}`,
    );
    setText(this.#tip, [format.clock(time * 1000), ...lines].join("\n"));
    this.#tip.hidden = false;
    const middle = plot.over.offsetLeft + left;
    const room = this.#picture.clientWidth - this.#tip.offsetWidth - 4;
    const beside = left > plot.over.clientWidth / 2 ? middle - this.#tip.offsetWidth - 10 : middle + 10;
    this.#tip.style.left = `${Math.max(4, Math.min(beside, room))}px`;
  }
}

/** Labels of a time axis, with seconds if two labels would be equal without them. */
const labelled =
  ([first, second]) =>
  (time) =>
    format.clock(time * 1000).slice(0, second - first < 60 ? 8 : 5);

function headings(labels) {
  const cells = labels.map((label, index) =>
    make("th", index === 0 ? { scope: "col" } : { scope: "col", class: "number" }, label),
  );
  return make("thead", {}, make("tr", {}, ...cells));
}
