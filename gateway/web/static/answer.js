// One answer: its text as it comes, and below it what the stack did to give it.

import { ask, events, Refused } from "./api.js";
import { make } from "./dom.js";
import { addPassages, citesOf } from "./passages.js";
import { prose } from "./prose.js";
import { newTrace, readTrace, seenFromHere } from "./trace.js";
import { waterfall } from "./waterfall.js";
import { milliseconds, money } from "./words.js";

const CACHE = {
  hit: "hit",
  semantic: "hit, by meaning",
  miss: "miss",
  bypass: "not asked",
};

export class Answer {
  /** `onPaint(isOver)` is called after the answer has grown. */
  constructor(question, onPaint) {
    this.question = question;
    this.said = "";
    this.notes = []; // citations, as OpenAI annotates them
    this.usage = null;
    this.finish = "";
    this.headers = new Headers();
    this.times = { begun: performance.now(), headers: 0, first: 0, last: 0, end: 0 };
    this.onPaint = onPaint;
    this.text = make("div.prose", { "aria-label": "Answer" }, make("span.waiting", {}, "…"));
    this.facts = make("div.did");
    this.element = make("article.answer", { "aria-busy": "true" }, this.text, this.facts);
  }

  /** Ask, show what comes, and give the whole text. Throws Refused, AbortError. */
  async fill(body, signal) {
    try {
      await this.#listen(body, signal);
    } finally {
      this.times.end = performance.now();
      this.#show();
      this.element.setAttribute("aria-busy", "false");
    }
    await this.#account();
    return this.said;
  }

  async #listen(body, signal) {
    const reply = await ask("/v1/chat/completions", { body, signal, traceparent: newTrace() });
    this.times.headers = performance.now();
    this.headers = reply.headers;
    const request = reply.headers.get("x-request-id") ?? "";
    for await (const data of events(reply)) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Refused(reply.status, event.error.message, { request });
      this.#take(event);
    }
    throw new Refused(0, "The answer was cut off before its end.", { request });
  }

  #take({ choices = [], usage }) {
    this.usage = usage ?? this.usage;
    for (const { delta = {}, finish_reason } of choices) {
      this.notes.push(...(delta.annotations ?? []));
      this.finish = finish_reason ?? this.finish;
      if (!delta.content) continue;
      this.said += delta.content;
      this.times.last = performance.now();
      this.times.first ||= this.times.last;
      this.#paintSoon();
    }
  }

  #paintSoon() {
    this.painting ??= requestAnimationFrame(() => {
      this.painting = null;
      this.#show();
    });
  }

  #show() {
    if (this.said) this.text.replaceChildren(prose(this.said, citesOf(this.headers, this.notes)));
    else if (this.times.end) this.text.replaceChildren(make("p.note", {}, "Nothing was said."));
    this.onPaint();
  }

  /** What the request was, once it is over: the facts, the trace, the passages. */
  async #account() {
    const trace = await readTrace(this.headers.get("x-request-id") ?? "");
    const details = make("details", { open: true }, make("summary", {}, "What the stack did"));
    details.append(timesOf(trace, this.times));
    addPassages(details, this.headers, this.notes, this.question);
    details.append(listOf(this.#more(trace)));
    this.facts.replaceChildren(listOf(this.#facts(trace), "dl.facts"), details);
    this.onPaint(true);
  }

  #facts(trace) {
    const { headers, usage, times } = this;
    const cache = headers.get("x-cache");
    const isKept = cache === "hit" || cache === "semantic";
    const cached = usage?.prompt_tokens_details?.cached_tokens;
    const seconds = (times.last - times.first) / 1000;
    const speed = usage?.completion_tokens > 1 && !isKept && seconds > 0;
    return [
      ["Release", headers.get("x-glassgate-release")],
      ["Cache", cache && (CACHE[cache] ?? cache)],
      ["First token", times.first && milliseconds(times.first - times.begun)],
      ["Speed", speed && `${((usage.completion_tokens - 1) / seconds).toFixed(0)} tokens/s`],
      ["Tokens in", usage && `${usage.prompt_tokens}${cached ? ` (${cached} cached)` : ""}`],
      ["Tokens out", usage && `${usage.completion_tokens}`],
      ["Cost", isKept ? "nothing" : trace?.cost && money(Number(trace.cost))],
    ];
  }

  #more(trace) {
    const { headers } = this;
    const age = headers.get("age");
    const left = ["requests", "tokens"]
      .filter((it) => headers.has(`x-ratelimit-remaining-${it}`))
      .map(
        (it) =>
          `${headers.get(`x-ratelimit-remaining-${it}`)} of ${headers.get(`x-ratelimit-limit-${it}`)} ${it}`,
      );
    return [
      ["Picked by", headers.get("x-glassgate-picked-by")],
      ["Prompt", headers.get("x-glassgate-prompt")],
      ["Ended by", this.finish],
      ["Kept for", age && `${age} s`],
      ["Limits left", left.join(", ")],
      ["Budget", headers.get("x-glassgate-budget")],
      ["Ignored", headers.get("x-ignored-params")],
      ["Trace", trace?.id, "code"],
      ["Request", headers.get("x-request-id"), "code"],
    ];
  }

  /** Say what went wrong, and offer what can be done about it; of a failure, where the time went. */
  async fail(message, button, request = "") {
    if (!this.said) this.text.replaceChildren();
    this.facts.replaceChildren(
      make("div.failure", { role: "alert" }, make("p", {}, message), button),
    );
    this.onPaint();
    const trace = await readTrace(request);
    if (trace) this.facts.append(timesOf(trace, this.times));
    this.onPaint(true);
  }
}

const timesOf = (trace, times) =>
  trace
    ? waterfall(trace.spans, "Where the time went")
    : waterfall(seenFromHere(times), "Where the time went, seen from this page");

function listOf(pairs, name = "dl.more") {
  const shown = pairs.filter(([, value]) => value);
  const items = shown.map(([term, value, kind]) =>
    make("div", { class: kind ?? null }, make("dt", {}, term), make("dd", {}, value)),
  );
  return make(name, {}, ...items);
}
