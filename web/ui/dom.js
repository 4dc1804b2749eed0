// Creates elements. Text is only ever set as text and never parsed, so messages cannot become markup.

/**
 * Creates an element with attributes, listeners ("on" before the event's name) and children. `undefined`, `null` and
 * `false` are left out, as attribute values and as children.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The element with this id. Throws if the page has none. */
export const byId = (id) => {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element;
};

/** Sets a text only if it differs, so that selections and screen readers are not disturbed. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const SVG = "http://www.w3.org/2000/svg";
/** @type {Promise<void> | null} */
let symbols = null;

/** An icon of icons.svg, hidden from screen readers. */
export function icon(name) {
  symbols ??= loadSymbols();
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Copies the symbols of icons.svg into the page, so that icons created while the server is away can be shown. */
async function loadSymbols() {
  try {
    const response = await fetch(new URL("../icons.svg", import.meta.url));
    if (!response.ok) throw new Error(`status ${response.status}`);
    const sheet = new DOMParser().parseFromString(await response.text(), "image/svg+xml").documentElement;
    for (const symbol of sheet.querySelectorAll("symbol")) symbol.id = `icon-${symbol.id}`;
    sheet.style.display = "none";
    document.body.append(document.importNode(sheet, true));
  } catch {
    // The next icon tries again.
    symbols = null;
  }
}

/**
 * Makes `wanted` the children of a list, in that order. Touches only what differs, so focus and scroll position are
 * kept.
 * @param {Element} list
 * @param {Element[]} wanted
 */
export function reconcile(list, wanted) {
  const keep = new Set(wanted);
  for (const child of [...list.children]) if (!keep.has(child)) child.remove();
  let at = list.firstElementChild;
  for (const child of wanted) {
    if (child === at) at = at.nextElementSibling;
    else list.insertBefore(child, at);
  }
}

/**
 * Coalesces any number of calls into one call of `work`: before the next paint, or within a quarter of a second if the
 * page is hidden and nothing is painted.
 * @param {() => void} work
 */
export function coalesced(work) {
  let frame = 0;
  let timer = 0;
  const run = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    frame = timer = 0;
    work();
  };
  return () => {
    if (frame || timer) return;
    // Whichever comes first: a page that is hidden while it waits for a frame would wait long.
    frame = requestAnimationFrame(run);
    timer = setTimeout(run, 250);
  };
}
