// Links in what people write: which parts of a text are web addresses. Pure but for `linked`, which makes the elements. Only
// http and https become links, and only such that say plainly where they lead.

import { el } from "./dom.js";

// What may be in an address: no spaces or quotes, no "<", ">" or "\", nothing that does not show or that turns the text
// around it (zero widths, bidi controls, tags, fillers).
const ADDRESS = /\bhttps?:\/\/[^\s<>"'`\\^{|}\p{C}\p{Z}\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0]+/giu;
// What belongs to the sentence where it comes last.
const TRAILING = new Set([...".,:;!?*_~…。、，！？’”»"]);
const BRACKETS = { ")": "(", "]": "[" };
const LONGEST = 2048;
const MOST_LINKS = 200;

/**
 * A text in parts: strings, and addresses with what stands for them.
 * @param {string} text
 * @param {{ isCut?: boolean }} [how] `isCut` where the text goes on behind its end: an address there is not whole
 * @returns {(string | { href: string, shown: string })[]}
 */
export function partsOf(text, { isCut = false } = {}) {
  const parts = [];
  let from = 0;
  let links = 0;
  for (const match of text.matchAll(ADDRESS)) {
    const [found] = match;
    if (links === MOST_LINKS) break;
    if (isCut && match.index + found.length === text.length) break;
    if (found.length > LONGEST) continue;
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

/** The same as what an element is filled with: text, and links that open beside the page and tell the other side nothing. */
export function linked(text, how) {
  return partsOf(text, how).map((part) =>
    typeof part === "string"
      ? part
      : el("a", { href: part.href, target: "_blank", rel: "noopener noreferrer nofollow", dir: "ltr" }, part.shown),
  );
}

/** Where it leads, or `null` where it is no address that can be trusted to mean what it says. */
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

/** As it was typed, but where its host is written in letters that may look like others: then as the browser has it. */
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
