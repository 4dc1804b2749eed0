// The last five minutes of a server's statistics, and the rates between two responses. Pure: it gets the responses, and
// the times of the requests and responses in milliseconds of one monotonic clock.

export const WINDOW_SECONDS = 300;

/** The time range shown at first. */
const MIN_WINDOW_SECONDS = 60;

/** Lines are interrupted if there was no response for longer than this. */
const GAP_SECONDS = 3.5;

/** Two responses closer than this give no rate: a single message more or less would be a large rate. */
const MIN_INTERVAL_MS = 100;

/** How far the server's uptime may fall behind the local clock before that counts as a restart. */
const CLOCK_SLACK_MS = 1000;

/** The counters of `totals` for which rates are computed. */
const RATED = [
  "messages_in",
  "bytes_in",
  "messages_out",
  "bytes_out",
  "published",
  "broadcasts",
  "fanned_out",
  "dropped",
  "refused",
];

/** The value at `path` ("clients.total") in `tree`, or undefined. */
export function at(tree, path) {
  let value = tree;
  for (const step of path.split(".")) {
    if (value === null || typeof value !== "object" || !Object.hasOwn(value, step)) return undefined;
    value = value[step];
  }
  return value;
}

/**
 * Whether the server has restarted between two responses: a counter went back, or its uptime grew by less than the time
 * that passed here. `waited` is the time between the first response and the request for the second one.
 */
export function hasRestarted(before, next, waited) {
  if (next.uptime_ms - before.uptime_ms < waited - CLOCK_SLACK_MS) return true;
  return RATED.some((name) => (next.totals?.[name] ?? 0) < (before.totals?.[name] ?? 0));
}

/** The rates per second between two responses without a restart in between; null if they are too close. */
export function ratesBetween(before, next) {
  const elapsed = next.uptime_ms - before.uptime_ms;
  if (!(elapsed >= MIN_INTERVAL_MS)) return null;
  const grown = (name) => (next.totals?.[name] ?? 0) - (before.totals?.[name] ?? 0);
  const rates = {};
  for (const name of RATED) rates[name] = (grown(name) * 1000) / elapsed;
  // Deliveries per message; there is no such number without messages.
  const spread = grown("published") + grown("broadcasts");
  rates.fan_out = spread > 0 ? grown("fanned_out") / spread : null;
  return rates;
}

// Without measured clients there are no percentiles, whatever the server sends.
const measured = (percentiles) => (percentiles?.clients > 0 ? percentiles : { clients: percentiles?.clients ?? 0 });

export class Samples {
  #paths;
  #points = [];
  #latest = null;
  #rates = {};

  /** Keeps the values at `paths` of each response. */
  constructor(paths) {
    this.#paths = paths;
  }

  /**
   * Adds a response, and returns it with `rates` for the page to show. `asked` and `received` are times in ms; adding
   * `epoch` makes them Unix times.
   */
  add(stats, { asked, received, epoch }) {
    const before = this.#latest;
    const sameLife = before !== null && !hasRestarted(before.stats, stats, asked - before.received);
    const rates = sameLife ? ratesBetween(before.stats, stats) : {};
    if (rates !== null) {
      this.#rates = rates;
      this.#latest = { stats, received };
    }
    const view = {
      ...stats,
      rtt_ms: measured(stats.rtt_ms),
      loss_percent: measured(stats.loss_percent),
      rates: this.#rates,
    };
    this.#keep((epoch + received) / 1000, view, before !== null && !sameLife);
    return view;
  }

  #keep(time, view, restarted) {
    const last = this.#points.at(-1);
    if (last !== undefined && (restarted || time - last.time > GAP_SECONDS)) {
      this.#points.push({ time: last.time + 0.001, values: this.#paths.map(() => null) });
    }
    this.#points.push({ time, values: this.#paths.map((path) => at(view, path) ?? null) });
    const oldest = time - WINDOW_SECONDS;
    // One point before the window is kept, so that lines reach its edge.
    while (this.#points.length > 1 && this.#points[1].time < oldest) this.#points.shift();
  }

  /** The times, and the values for each of `paths`: [[times], [values], ...]. */
  columns(paths) {
    const columns = [this.#points.map((point) => point.time)];
    for (const path of paths) {
      const index = this.#paths.indexOf(path);
      columns.push(this.#points.map((point) => point.values[index]));
    }
    return columns;
  }
}

/** The time range to show: all known times, but at least a minute and at most the whole window. */
export function windowOf(times, now) {
  const newest = times.at(-1) ?? now;
  const known = newest - (times[0] ?? newest);
  return [newest - Math.min(WINDOW_SECONDS, Math.max(MIN_WINDOW_SECONDS, known)), newest];
}

/** The newest, lowest and highest of `values`; null if there is none. */
export function extent(values) {
  const numbers = values.filter((value) => value !== null);
  if (numbers.length === 0) return { now: values.at(-1) ?? null, lowest: null, highest: null };
  return { now: values.at(-1), lowest: Math.min(...numbers), highest: Math.max(...numbers) };
}

/** Averages over spans of `seconds`, newest first: [{ from, values: [mean or null, ...] }]. */
export function means([times, ...series], seconds) {
  const spans = new Map();
  times.forEach((time, index) => {
    const from = Math.floor(time / seconds) * seconds;
    const span = spans.get(from) ?? series.map(() => []);
    spans.set(from, span);
    series.forEach((values, which) => {
      if (values[index] !== null) span[which].push(values[index]);
    });
  });
  const mean = (values) => (values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length);
  return [...spans].map(([from, span]) => ({ from, values: span.map(mean) })).reverse();
}
