// Formats values for display. Pure. Null and undefined become NONE. English and 24 hours whatever the browser's
// language, like the rest of the page.

export const NONE = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", {
  notation: "compact",
  minimumSignificantDigits: 3,
  maximumSignificantDigits: 3,
});
const oneDecimal = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const twoDecimals = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const threeDigits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const timeOfDay = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayAndTime = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

const known = (format) => (value) => (typeof value === "number" && Number.isFinite(value) ? format(value) : NONE);

/** 1,234,567 */
export const count = known((value) => whole.format(value));

/** A rate or ratio: 0.25, 3.5, 1,240, 1.24M */
export const rate = known((value) => {
  if (value >= 1e6) return compact.format(value);
  if (value >= 100) return whole.format(value);
  return (value >= 1 ? oneDecimal : twoDecimals).format(value);
});

/** A factor: × 3.5 */
export const times = known((value) => `× ${rate(value)}`);

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** 512 B, 1.5 KiB, 12.3 MiB */
export const bytes = known((value) => {
  let unit = 0;
  let scaled = value;
  // With three digits, 1023.9 would become 1,020 KiB: from 1000 on, the next unit reads better.
  while (scaled >= 1000 && unit < BYTE_UNITS.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  const figure = unit === 0 ? whole.format(scaled) : threeDigits.format(scaled);
  return `${figure} ${BYTE_UNITS[unit]}`;
});

/** Milliseconds: 0.04 ms, 12.3 ms, 250 ms, 1.2 s */
export const ms = known((value) => {
  if (value >= 1000) return `${threeDigits.format(value / 1000)} s`;
  return `${(value < 1 ? twoDecimals : threeDigits).format(value)} ms`;
});

/** A percentage, as the server sends it: 0 %, 0.05 %, 12.3 % */
export const percent = known((value) => `${(value < 1 ? twoDecimals : threeDigits).format(value)} %`);

/** A duration in its two largest units: 12 s, 5 min 3 s, 2 h 14 min, 3 d 4 h */
export const duration = known((value) => {
  const seconds = Math.max(0, Math.floor(value / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
});

/** The local time of day: 14:05:09 */
export const clock = known((value) => timeOfDay.format(value));

/** The local date and time. */
export const moment = known((value) => dayAndTime.format(value));

export const text = (value) => (typeof value === "string" && value !== "" ? value : NONE);

/** The name of a client; else its verified user, or "Unnamed". */
export const nameOf = ({ name, user }) => name ?? user ?? "Unnamed";

/** Ends a message with a full stop if it has no other end. */
export const sentence = (words) => (/[.!?]$/.test(words) ? words : `${words}.`);

/** A count with its noun: plural(1, "client") is "1 client", plural(2, "client") is "2 clients". */
export const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

const CARRIERS = { quic: "Native QUIC", webtransport: "WebTransport", websocket: "WebSocket" };

/** The display name of a carrier of the protocol; an unknown one stays as it is. */
export const carrier = (name) => (Object.hasOwn(CARRIERS, name) ? CARRIERS[name] : text(name));
