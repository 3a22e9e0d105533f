// The chat page: pick who answers, ask, watch the answer come, see what the stack did.

import { Answer } from "./answer.js";
import { askJson, key, Refused } from "./api.js";
import { find, make, notice } from "./dom.js";
import { askForKey, setUpFrame } from "./frame.js";

const SAMPLES = {
  plain: [
    "What is the capital of France?",
    "Explain what a cache is, in two sentences.",
    "Write a haiku about glass.",
  ],
  documents: [
    "What does the with statement do?",
    "How do I raise an exception?",
    "What is a lambda expression?",
  ],
};

let families = [];
let talk = []; // the messages so far
let running = null; // what stops the answer that comes just now

const family = () => families.find((it) => it.id === find("family").value);
const release = () => {
  const pinned = find("release").value.split("@")[1] ?? family()?.production;
  return family()?.releases.find((it) => it.id === pinned);
};

async function load() {
  notice("");
  try {
    families = (await askJson("/web/families")).data;
  } catch (error) {
    families = [];
    sayWhyNot(error);
  }
  find("send").disabled = !families.length;
  find("welcome").hidden = !families.length || talk.length > 0;
  const chosen = find("family").value;
  const options = families.map(({ id }) =>
    make("option", { value: id, selected: id === chosen }, id),
  );
  find("family").replaceChildren(...options);
  showReleases();
}

function sayWhyNot(error) {
  if (error.status === 401) {
    askForKey(key.get() ? error.message : "This gateway wants a key before it answers.");
    notice(
      "No key, no answer. ",
      make("button.quiet", { type: "button", onclick: () => askForKey("") }, "Enter a key"),
    );
  } else {
    notice(
      `${error.message} `,
      make("button.quiet", { type: "button", onclick: load }, "Try again"),
    );
  }
}

function showReleases() {
  const it = family();
  const pinned = (it?.releases ?? []).map(({ id, labels }) => {
    const note = labels.length ? ` (${labels.join(", ")})` : "";
    return make("option", { value: `${it.id}@${id}` }, `${id}${note}`);
  });
  const usual = it ? [make("option", { value: it.id }, "automatic")] : [];
  find("release").replaceChildren(...usual, ...pinned);
  showDefaults();
}

function showDefaults() {
  const it = release();
  find("temperature").placeholder = it?.temperature ?? "model's";
  find("max-tokens").placeholder = it?.max_tokens ?? "";
  find("welcome-text").textContent = it?.index
    ? "This family answers from documents, with citations. Below each answer you see what the stack did."
    : "Below each answer you see what the stack did to give it.";
  const samples = SAMPLES[it?.index ? "documents" : "plain"];
  find("samples").replaceChildren(
    ...samples.map((text) =>
      make("li", {}, make("button", { type: "button", onclick: () => send(text) }, text)),
    ),
  );
}

function body() {
  const number = (id) => (find(id).value === "" ? undefined : Number(find(id).value));
  return {
    model: find("release").value,
    messages: talk,
    stream: true,
    stream_options: { include_usage: true },
    temperature: number("temperature"),
    seed: number("seed"),
    max_tokens: number("max-tokens"),
  };
}

function send(text) {
  if (running || !text.trim() || !find("settings").reportValidity()) return;
  if (talk.at(-1)?.role === "user") talk.pop(); // it was never answered
  talk.push({ role: "user", content: text });
  find("welcome").hidden = true;
  for (const old of find("talk").querySelectorAll(".did > details")) old.open = false;
  find("talk").append(make("article.question", { "aria-label": "You" }, text));
  answer();
}

async function answer() {
  const mine = talk; // "New chat" begins another
  const view = new Answer(mine.at(-1).content, follow);
  running = new AbortController();
  showRunning();
  find("talk").append(view.element);
  document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
  try {
    mine.push({ role: "assistant", content: await view.fill(body(), running.signal) });
  } catch (error) {
    if (error.name === "AbortError") stopped(view, mine);
    else if (error instanceof Refused) failed(view, error);
    else throw error;
  } finally {
    running = null;
    showRunning();
  }
}

function stopped(view, mine) {
  if (view.said) mine.push({ role: "assistant", content: view.said });
  view.fail("You stopped it.", againButton(view));
}

function failed(view, error) {
  view.fail(error.message, againButton(view, error.retryAfter), error.request);
  if (error.status === 401) askForKey(error.message);
}

/** Asks the same again; not before `seconds` have passed, where the gateway says so. */
function againButton(view, seconds = null) {
  const button = make("button.quiet", { type: "button" }, "Try again");
  button.onclick = () => {
    if (running) return;
    if (talk.at(-1)?.role === "assistant") talk.pop();
    view.element.remove();
    answer();
  };
  const end = performance.now() + 1000 * (seconds ?? 0);
  const wait = () => {
    const left = Math.ceil((end - performance.now()) / 1000);
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left > 0) setTimeout(wait, 250);
  };
  wait();
  return button;
}

function showRunning() {
  find("send").hidden = running !== null;
  find("stop").hidden = running === null;
}

/** Stay at the end while an answer grows, unless the reader has gone up; what comes below it when it
 * is over must not push its begin out of sight. */
function follow(isOver = false) {
  const page = document.scrollingElement;
  const end = page.scrollHeight - page.clientHeight;
  const asked = [...find("talk").querySelectorAll(".question")].at(-1);
  if (!asked) return;
  const begin = page.scrollTop + asked.getBoundingClientRect().top - 16;
  if (isOver) page.scrollTop = Math.max(page.scrollTop, Math.min(end, begin));
  else if (end - page.scrollTop < 160) page.scrollTop = end;
}

function fit() {
  const box = find("question");
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight + 2, innerHeight / 3)}px`;
}

function submit() {
  const box = find("question");
  if (running || !families.length || !box.value.trim()) return;
  const text = box.value;
  box.value = "";
  fit();
  send(text);
}

find("family").onchange = showReleases;
find("release").onchange = showDefaults;
find("settings").onsubmit = (event) => event.preventDefault();
find("composer").onsubmit = (event) => {
  event.preventDefault();
  submit();
};
find("question").oninput = fit;
find("question").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
};
find("stop").onclick = () => running?.abort();
find("clear").onclick = () => {
  running?.abort();
  talk = [];
  find("talk").replaceChildren();
  find("welcome").hidden = !families.length;
  find("question").focus();
};
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !find("key-dialog").open) running?.abort();
});

setUpFrame({ onKey: load });
load();
find("question").focus();
