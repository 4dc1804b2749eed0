// The form that publishes to a topic, and says what came of it.

import { byId, make, setMessage, setText } from "./dom.js";
import { count, sentence } from "./format.js";

const TOPIC = /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/;

export class PublishForm {
  #form = byId("publish");
  #topic = byId("publish-topic");
  #content = byId("publish-content");
  #problem = byId("publish-topic-problem");
  #result = byId("publish-result");
  #submitButton = byId("publish-submit");
  #offered = "";
  #api;

  constructor(api) {
    this.#api = api;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#topic.addEventListener("input", () => this.#topicProblemIs(""));
    this.#content.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#form.requestSubmit();
    });
  }

  /** Offers these names while one is typed. */
  offer(topics) {
    const names = topics.map(({ topic }) => topic).sort();
    const wanted = names.join("\n");
    // A list that is rebuilt closes under the reader's hand.
    if (wanted === this.#offered) return;
    this.#offered = wanted;
    byId("publish-topics").replaceChildren(...names.map((name) => make("option", { value: name })));
  }

  #topicProblemIs(text) {
    setMessage(this.#problem, text);
    if (text === "") this.#topic.removeAttribute("aria-invalid");
    else this.#topic.setAttribute("aria-invalid", "true");
  }

  async #submit() {
    if (this.#submitButton.disabled) return;
    const topic = this.#topic.value.trim();
    this.#resultIs("", "");
    if (!TOPIC.test(topic)) {
      this.#topicProblemIs("Use letters, digits, _ and -, with dots between levels: market.fx.eurusd");
      this.#topic.focus();
      return;
    }
    this.#submitButton.disabled = true;
    try {
      const published = await this.#api.publish(topic, this.#content.value);
      this.#resultIs("good", `Published at offset ${count(published.offset)}.`, published);
    } catch (error) {
      this.#resultIs("bad", error.status === undefined ? "The server cannot be reached. The message may or may not have been published." : sentence(error.message));
    } finally {
      this.#submitButton.disabled = false;
    }
  }

  #resultIs(kind, text, published = {}) {
    this.#result.className = kind;
    for (const name of ["topic", "epoch", "offset"]) {
      if (Object.hasOwn(published, name)) this.#result.dataset[name] = published[name];
      else delete this.#result.dataset[name];
    }
    setText(this.#result, text);
  }
}
