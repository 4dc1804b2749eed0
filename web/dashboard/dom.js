// Updates the page: text only through textContent, and only if it has changed, so that selections and screen readers
// are not disturbed; and table rows kept by key.

/** Creates an element with attributes and children; strings become text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Shows `text` in `element`; "" hides it. */
export function setMessage(element, text) {
  setText(element, text);
  element.hidden = text === "";
}

/** Shows a formatted number, and keeps the raw value for tests in data-value ("" if there is none). */
export function setNumber(element, value, format) {
  setText(element, format(value));
  setAttribute(element, "data-value", value ?? "");
}

/** The rows of a table body: one per item, reused when the items are shown again. */
export class Rows {
  #body;
  #columns;
  #key;
  #prepare;
  #rows = new Map();
  #empty;

  /**
   * `columns` are `{heading, number, make(cell), fill(cell, item)}`: `make` runs once per cell, `fill` at each update.
   * `key(item)` identifies items; `prepare(row, item)` sets a row's attributes. `empty` is shown if there are no items.
   */
  constructor(body, { columns, key, prepare, empty }) {
    this.#body = body;
    this.#columns = columns;
    this.#key = key;
    this.#prepare = prepare;
    this.#empty = make("tr", { class: "empty" }, make("td", { colspan: columns.length }, empty));
  }

  /** Shows `items` in this order; `empty` replaces the text for no items. */
  show(items, empty) {
    if (empty !== undefined) setText(this.#empty.firstChild, empty);
    const wanted = new Map(items.map((item) => [String(this.#key(item)), item]));
    for (const [key, row] of this.#rows) {
      if (wanted.has(key)) continue;
      row.remove();
      this.#rows.delete(key);
    }
    if (wanted.size === 0) this.#body.append(this.#empty);
    else this.#empty.remove();
    const focused = document.activeElement;
    let place = this.#body.firstChild;
    for (const [key, item] of wanted) {
      const row = this.#rows.get(key) ?? this.#make(key);
      this.#prepare(row, item);
      this.#columns.forEach((column, index) => column.fill(row.children[index], item));
      if (row === place) place = place.nextSibling;
      else this.#body.insertBefore(row, place);
    }
    // Moving a row drops the focus within it.
    if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  }

  #make(key) {
    const row = make("tr");
    for (const column of this.#columns) {
      const cell = column.heading ? make("th", { scope: "row" }) : make("td");
      if (column.number) cell.className = "number";
      column.make?.(cell);
      row.append(cell);
    }
    this.#rows.set(key, row);
    return row;
  }
}
