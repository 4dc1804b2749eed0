// The last five minutes of a server's numbers, and the rates between two of its answers. Pure: it is given the answers and the
// times at which they were asked for and came (milliseconds of one clock that never goes back), and draws nothing.

export const WINDOW_SECONDS = 300;

/** What is shown of the time at first. */
const SHORTEST_SECONDS = 60;

/** With no answer for longer than this, lines are not drawn through: nobody knows what was between. */
const GAP_SECONDS = 3.5;

/** Two answers closer than this give no rate: one message more or less would be hundreds a second. */
const SHORTEST_MS = 100;

/** How much slower than ours the server's clock may run before it looks as if the server had begun anew. */
const CLOCK_SLACK_MS = 1000;

/** Counters of `totals` that have a rate. */
const RATED = ["messages_in", "bytes_in", "messages_out", "bytes_out", "published", "broadcasts", "fanned_out", "dropped", "refused"];

/** What stands at `path` ("clients.total") in `tree`; undefined where there is nothing. */
export function at(tree, path) {
  let value = tree;
  for (const step of path.split(".")) {
    if (value === null || typeof value !== "object" || !Object.hasOwn(value, step)) return undefined;
    value = value[step];
  }
  return value;
}

/**
 * Whether another life of the server gave `next`: a counter went back, or the server has been up for less time than passed here.
 * `waited` is the time between the arrival of the earlier answer and the request for the later one.
 */
export function isAnotherLife(before, next, waited) {
  if (next.uptime_ms - before.uptime_ms < waited - CLOCK_SLACK_MS) return true;
  return RATED.some((name) => (next.totals?.[name] ?? 0) < (before.totals?.[name] ?? 0));
}

/** Each second, between two answers of one life of the server; null where they are too close. */
export function ratesBetween(before, next) {
  const elapsed = next.uptime_ms - before.uptime_ms;
  if (!(elapsed >= SHORTEST_MS)) return null;
  const grown = (name) => (next.totals?.[name] ?? 0) - (before.totals?.[name] ?? 0);
  const rates = {};
  for (const name of RATED) rates[name] = (grown(name) * 1000) / elapsed;
  // To how many one message went. With none there is no such number.
  const spread = grown("published") + grown("broadcasts");
  rates.fan_out = spread > 0 ? grown("fanned_out") / spread : null;
  return rates;
}

// Percentiles of nobody are no numbers, whatever the server writes there.
const measured = (percentiles) => (percentiles?.clients > 0 ? percentiles : { clients: percentiles?.clients ?? 0 });

export class Samples {
  #paths;
  #points = [];
  #latest = null;
  #rates = {};

  /** Keeps the values at `paths` of each answer. */
  constructor(paths) {
    this.#paths = paths;
  }

  /**
   * Takes one answer; gives what the page shows: the answer with `rates` in it. `asked` and `received` are times in ms, and
   * `epoch` is what makes a Unix time of them.
   */
  add(stats, { asked, received, epoch }) {
    const before = this.#latest;
    const sameLife = before !== null && !isAnotherLife(before.stats, stats, asked - before.received);
    const rates = sameLife ? ratesBetween(before.stats, stats) : {};
    if (rates !== null) {
      this.#rates = rates;
      this.#latest = { stats, received };
    }
    const view = { ...stats, rtt_ms: measured(stats.rtt_ms), loss_percent: measured(stats.loss_percent), rates: this.#rates };
    this.#keep((epoch + received) / 1000, view, before !== null && !sameLife);
    return view;
  }

  #keep(time, view, begunAnew) {
    const last = this.#points.at(-1);
    if (last !== undefined && (begunAnew || time - last.time > GAP_SECONDS)) {
      this.#points.push({ time: last.time + 0.001, values: this.#paths.map(() => null) });
    }
    this.#points.push({ time, values: this.#paths.map((path) => at(view, path) ?? null) });
    const oldest = time - WINDOW_SECONDS;
    // One point before the window stays, so that lines reach its edge.
    while (this.#points.length > 1 && this.#points[1].time < oldest) this.#points.shift();
  }

  /** The kept times, and for each of `paths` the values: [[times], [values], ...]. */
  columns(paths) {
    const columns = [this.#points.map((point) => point.time)];
    for (const path of paths) {
      const index = this.#paths.indexOf(path);
      columns.push(this.#points.map((point) => point.values[index]));
    }
    return columns;
  }
}

/** Which time is shown: as much as is known, but not less than a minute, nor more than the whole window. */
export function windowOf(times, now) {
  const newest = times.at(-1) ?? now;
  const known = newest - (times[0] ?? newest);
  return [newest - Math.min(WINDOW_SECONDS, Math.max(SHORTEST_SECONDS, known)), newest];
}

/** The newest, lowest and highest of `values`; each null where there is none. */
export function extent(values) {
  const numbers = values.filter((value) => value !== null);
  if (numbers.length === 0) return { now: values.at(-1) ?? null, lowest: null, highest: null };
  return { now: values.at(-1), lowest: Math.min(...numbers), highest: Math.max(...numbers) };
}

/** Means over spans of `seconds`, the newest first: [{ from, values: [mean or null, ...] }]. */
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
