// Makes elements. Text is only ever set as text, never parsed: what others say cannot become markup.

/**
 * An element with attributes, listeners ("on" before the event's name) and children. `undefined`, `null` and `false` as
 * the value of an attribute, or as a child, are left out.
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

/** The element with this id, which the page is known to have. */
export const byId = (id) => {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element;
};

/** Sets a text only where it is another one: selections and screen readers are left in peace. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** An icon of icons.svg, which says nothing to a screen reader. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `./icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/**
 * Makes the children of a list those of `wanted`, in that order, and touches only what differs: focus and scrolling survive.
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
 * Calls `work` once for any number of calls, before the next paint, or a quarter of a second later where the page is hidden
 * and nothing is painted.
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
    // Whichever comes first: a page that gets hidden while it waits for a frame would wait long.
    frame = requestAnimationFrame(run);
    timer = setTimeout(run, 250);
  };
}
