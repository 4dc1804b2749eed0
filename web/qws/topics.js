// Topics, patterns and offsets, as docs/PROTOCOL.md, section 8 defines them.
// Pure; knows no message and no subscription. Called by frames, options, history, entries and routes.

/** Whether this can be an offset or another count. @param {unknown} value */
export function isOffset(value) {
  return Number.isSafeInteger(value) && /** @type {number} */ (value) >= 0;
}

/** @param {string} topic */
export function isPattern(topic) {
  return topic.includes("*") || topic.endsWith(">");
}

/**
 * Whether a pattern matches a topic.
 *
 * @param {string} pattern
 * @param {string} topic
 */
export function matches(pattern, topic) {
  const [wanted, levels] = [pattern.split("."), topic.split(".")];
  const rest = wanted.at(-1) === ">";
  if (rest ? levels.length < wanted.length : levels.length !== wanted.length) return false;
  return wanted.every((level, at) => level === levels[at] || level === "*" || (rest && at === wanted.length - 1));
}
