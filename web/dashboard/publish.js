// The form that publishes to a topic and shows the result.

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
    this.#topic.addEventListener("input", () => this.#showTopicProblem(""));
    this.#content.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#form.requestSubmit();
    });
  }

  /** Suggests these topics while typing. */
  offer(topics) {
    const names = topics.map(({ topic }) => topic).sort();
    const wanted = names.join("\n");
    // Rebuilding the list would close it while it is in use.
    if (wanted === this.#offered) return;
    this.#offered = wanted;
    byId("publish-topics").replaceChildren(...names.map((name) => make("option", { value: name })));
  }

  #showTopicProblem(text) {
    setMessage(this.#problem, text);
    if (text === "") this.#topic.removeAttribute("aria-invalid");
    else this.#topic.setAttribute("aria-invalid", "true");
  }

  async #submit() {
    if (this.#submitButton.disabled) return;
    const topic = this.#topic.value.trim();
    this.#showResult("", "");
    if (!TOPIC.test(topic)) {
      this.#showTopicProblem("Use A-Z, a-z, 0-9, _ and -, with dots between levels, such as market.fx.eurusd");
      this.#topic.focus();
      return;
    }
    this.#submitButton.disabled = true;
    try {
      const published = await this.#api.publish(topic, this.#content.value);
      this.#showResult("good", `Published at offset ${count(published.offset)}.`, published);
    } catch (error) {
      const unknown = "The server cannot be reached. The message may have been published.";
      this.#showResult("bad", error.status === undefined ? unknown : sentence(error.message));
    } finally {
      this.#submitButton.disabled = false;
    }
  }

  #showResult(kind, text, published = {}) {
    this.#result.className = kind;
    for (const name of ["topic", "epoch", "offset"]) {
      if (Object.hasOwn(published, name)) this.#result.dataset[name] = published[name];
      else delete this.#result.dataset[name];
    }
    setText(this.#result, text);
  }
}
