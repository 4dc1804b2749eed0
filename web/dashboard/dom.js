// Writing to the page: text by textContent alone, and only where it changed, so that selections and screen readers are left in
// peace; and rows that are kept by key.

/** An element with attributes and children; children that are strings become text. */
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

/** Shows `text` in `element`, or hides it where that is "". */
export function setMessage(element, text) {
  setText(element, text);
  element.hidden = text === "";
}

/** A number for people, and as it is for tests: in data-value, "" where there is none. */
export function setNumber(element, value, format) {
  setText(element, format(value));
  setAttribute(element, "data-value", value ?? "");
}

/** The body of a table, whose rows stand for items and outlive each drawing. */
export class Rows {
  #body;
  #columns;
  #key;
  #prepare;
  #rows = new Map();
  #empty;

  /**
   * `columns` are `{heading, number, make(cell), fill(cell, item)}`: `make` is called once for a cell, `fill` at each drawing.
   * `key(item)` tells items apart; `prepare(row, item)` sets what a row itself carries. `empty` is said where there are none.
   */
  constructor(body, { columns, key, prepare, empty }) {
    this.#body = body;
    this.#columns = columns;
    this.#key = key;
    this.#prepare = prepare;
    this.#empty = make("tr", { class: "empty" }, make("td", { colspan: columns.length }, empty));
  }

  /** Shows `items` in this order; `empty` replaces what is said where there are none. */
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
    // A row that is moved loses the focus in it.
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
