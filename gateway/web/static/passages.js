// What an answer over documents rests on: the passages, and which of them it cites.

import { askJson } from "./api.js";
import { make } from "./dom.js";
import { counted } from "./words.js";

const NOT_YET =
  "The documents are not in the store yet. They are read in the background; ask again in a while.";

const letter = (number) => String.fromCharCode(65 + (number % 26));

/** What x-glassgate-context says; null where no document was asked. */
export function contextOf(headers) {
  const said = headers.get("x-glassgate-context");
  if (!said) return null;
  const parts = Object.fromEntries(said.split(/;\s*/).map((it) => it.split("=", 2)));
  const request = headers.get("x-request-id") ?? "";
  const store = (parts.store ?? "").replace(/@\d+$/, "");
  const dropped = Number(parts["dropped-threshold"] ?? 0) + Number(parts["dropped-budget"] ?? 0);
  return {
    store,
    given: Number(parts.passages),
    found: Number(parts.passages) + dropped,
    tokens: Number(parts.tokens),
    isMissing: parts.search === "missing",
    /** Marks for the text, a letter for each file. */
    cites: (notes) => {
      const files = filesOf(notes);
      return notes.map((it) => {
        const mark = letter(files.findIndex((file) => file.id === it.file_id));
        return { at: it.index, mark, title: it.filename, href: `#${request}-${it.file_id}` };
      });
    },
    idOf: (file) => `${request}-${file}`,
  };
}

function filesOf(notes) {
  const names = new Map(notes.map((it) => [it.file_id, it.filename]));
  return [...names].map(([id, name]) => ({ id, name }));
}

/** Into `place`: the cited files, and on demand what the store says to the question. */
export function addPassages(place, headers, notes, question) {
  const context = contextOf(headers);
  if (!context) return;
  if (context.isMissing)
    return place.append(make("h2", {}, "Sources"), make("p.note", {}, NOT_YET));
  const files = filesOf(notes);
  const cited = files.length
    ? make("ol.sources", {}, ...files.map((file, number) => sourceOf(file, number, context)))
    : make("p.note", {}, "No sentence of the answer could be traced to a passage.");
  const heard = `The model read ${counted(context.given, "passage")}, ${counted(context.tokens, "token")}.`;
  place.append(make("h2", {}, "Sources"), make("p.note", {}, heard), cited);
  if (context.found) place.append(readButton(place, context, files, question));
}

function sourceOf(file, number, context) {
  return make(
    "li",
    { id: context.idOf(file.id), tabindex: "-1" },
    make("b", {}, letter(number)),
    ` ${file.name}`,
  );
}

function readButton(place, context, files, question) {
  const button = make("button.quiet", { type: "button" }, "Read what was found");
  button.onclick = async () => {
    button.disabled = true;
    const path = `/v1/vector_stores/${encodeURIComponent(context.store)}/search`;
    try {
      const body = { query: question, max_num_results: context.found };
      button.replaceWith(passageList((await askJson(path, { body })).data, files));
    } catch (error) {
      button.replaceWith(make("p.note", {}, `The passages cannot be read: ${error.message}`));
    }
  };
  return button;
}

function passageList(found, files) {
  const items = found.map((it) => {
    const number = files.findIndex((file) => file.id === it.file_id);
    const mark = number < 0 ? "" : `, cited as ${letter(number)}`;
    const title = make(
      "summary",
      {},
      it.filename,
      make("span.note", {}, ` score ${it.score.toFixed(2)}${mark}`),
    );
    return make(
      "details.passage",
      { open: number >= 0 },
      title,
      make("blockquote", {}, it.content.map((part) => part.text).join("\n")),
    );
  });
  return make("div.passages", {}, ...items);
}
