// The single numbers of the page, as declared in dashboard.html: data-metric is the path in the server's response,
// data-format names a function of format.js, and data-copy repeats a number shown elsewhere.

import { setAttribute, setNumber } from "./dom.js";
import * as format from "./format.js";
import { at } from "./samples.js";

// The tiles shorten long numbers; the exact value is in their title.
const EXACT = {
  bytes: (value) => `${format.count(value)} bytes`,
  duration: (value) => `${format.count(value)} ms`,
  clock: format.moment,
};

export class Numbers {
  #shown;
  #copies;

  constructor(root) {
    this.#shown = [...root.querySelectorAll("[data-metric][data-format]")];
    this.#copies = [...root.querySelectorAll("[data-copy]")].map((element) => [
      element,
      root.querySelector(`[data-metric="${element.dataset.copy}"]`),
    ]);
  }

  show(view) {
    for (const element of this.#shown) {
      const { metric, format: name } = element.dataset;
      const value = at(view, metric);
      setNumber(element, value, format[name]);
      if (Object.hasOwn(EXACT, name))
        setAttribute(element, "title", value === undefined || value === null ? null : EXACT[name](value));
    }
    for (const [element, { dataset }] of this.#copies)
      setNumber(element, at(view, dataset.metric), format[dataset.format]);
  }
}
