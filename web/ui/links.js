// Finds web addresses in messages. Pure, except for `linked`, which creates the elements. Only http and https addresses
// become links, and only if they show plainly where they lead.

import { el } from "./dom.js";

// The characters of an address: no spaces or quotes, no "<", ">" or "\", and nothing invisible or that changes the
// direction of the text around it (zero widths, bidi controls, tags, fillers).
const ADDRESS = /\bhttps?:\/\/[^\s<>"'`\\^{|}\p{C}\p{Z}\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0]+/giu;
// Characters that belong to the sentence if they come last.
const TRAILING = new Set([...".,:;!?*_~…。、，！？’”»"]);
const BRACKETS = { ")": "(", "]": "[" };
const MAX_ADDRESS_LENGTH = 2048;
const MAX_LINKS = 200;

/**
 * Splits a text into strings and addresses.
 * @param {string} text
 * @param {{ isCut?: boolean }} [how] `isCut` if the text was cut: an address at its end is incomplete
 * @returns {(string | { href: string, shown: string })[]}
 */
export function partsOf(text, { isCut = false } = {}) {
  const parts = [];
  let from = 0;
  let links = 0;
  for (const match of text.matchAll(ADDRESS)) {
    const [found] = match;
    if (links === MAX_LINKS) break;
    if (isCut && match.index + found.length === text.length) break;
    if (found.length > MAX_ADDRESS_LENGTH) continue;
    const typed = trimmed(found);
    const href = addressOf(typed);
    if (href === null) continue;
    if (match.index > from) parts.push(text.slice(from, match.index));
    parts.push({ href, shown: shownAs(typed, href) });
    from = match.index + typed.length;
    links += 1;
  }
  if (from < text.length) parts.push(text.slice(from));
  return parts;
}

/** The parts as content of an element. Links open in a new tab and send no referrer. */
export function linked(text, how) {
  return partsOf(text, how).map((part) =>
    typeof part === "string"
      ? part
      : el("a", { href: part.href, target: "_blank", rel: "noopener noreferrer nofollow", dir: "ltr" }, part.shown),
  );
}

/** The target of a typed address, or `null` if its text could be misleading. */
function addressOf(typed) {
  let url;
  try {
    url = new URL(typed);
  } catch {
    return null;
  }
  const isWeb = url.protocol === "http:" || url.protocol === "https:";
  // "https://bank.example@evil.example" leads to evil.example.
  const hasUser = url.username !== "" || url.password !== "" || /^https?:\/\/[^/?#]*@/i.test(typed);
  return isWeb && !hasUser && url.hostname !== "" ? url.href : null;
}

/** The address as typed, or as the browser writes it if the host has letters that may be confused with others. */
function shownAs(typed, href) {
  const host = /^https?:\/\/([^/?#]*)/i.exec(typed)?.[1] ?? "";
  return /^[\x21-\x7e]+$/.test(host) ? typed : href;
}

function trimmed(found) {
  let end = found.length;
  const unopened = { ")": 0, "]": 0 };
  for (const letter of found) {
    if (letter in BRACKETS) unopened[letter] += 1;
    for (const [close, open] of Object.entries(BRACKETS)) if (letter === open) unopened[close] -= 1;
  }
  for (; end > 0; end -= 1) {
    const last = found[end - 1];
    if (last in BRACKETS && unopened[last] > 0) unopened[last] -= 1;
    else if (!TRAILING.has(last)) break;
  }
  return found.slice(0, end);
}
