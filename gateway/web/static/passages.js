// What an answer over documents rests on: the passages, and which of them it cites.

import { askJson } from "./api.js";
import { make } from "./dom.js";
import { counted } from "./words.js";

const NOTHING =
  "The model read no passage: none in the store is near enough to the question. " +
  "After the first start the documents are read in the background for a minute or two.";

const letter = (number) => String.fromCharCode(65 + (number % 26));
const placeOf = (headers, file) => `${headers.get("x-request-id")}-${file}`;

/** Marks for an answer's text, a letter for each cited file. */
export function citesOf(headers, notes) {
  const files = filesOf(notes);
  return notes.map((it) => {
    const mark = letter(files.findIndex((file) => file.id === it.file_id));
    return { at: it.index, mark, title: it.filename, href: `#${placeOf(headers, it.file_id)}` };
  });
}

function filesOf(notes) {
  const names = new Map(notes.map((it) => [it.file_id, it.filename]));
  return [...names].map(([id, name]) => ({ id, name }));
}

/** Into `place`: the cited files, and on demand what the store says to the question. */
export function addPassages(place, headers, notes, question) {
  const context = contextOf(headers);
  const files = filesOf(notes);
  if (!context && !files.length) return;
  place.append(make("h2", {}, "Sources"));
  if (context) place.append(make("p.note", {}, heardOf(context)));
  const items = files.map(({ id, name }, number) => {
    const place = { id: placeOf(headers, id), tabindex: "-1" };
    return make("li", place, make("b", {}, letter(number)), ` ${name}`);
  });
  if (files.length) place.append(make("ol.sources", {}, ...items));
  if (context?.found) place.append(readButton(context, files, question));
}

/** What x-glassgate-context says; null where no document was asked, as for a kept answer. */
function contextOf(headers) {
  const said = headers.get("x-glassgate-context");
  if (!said) return null;
  const parts = Object.fromEntries(said.split(/;\s*/).map((it) => it.split("=", 2)));
  const [given, ...dropped] = ["passages", "dropped-threshold", "dropped-budget"].map((it) =>
    Number(parts[it] ?? 0),
  );
  return {
    store: (parts.store ?? "").replace(/@\d+$/, ""),
    given,
    found: given + dropped[0] + dropped[1],
    tokens: Number(parts.tokens),
  };
}

function heardOf({ given, found, tokens }) {
  if (!given) return NOTHING;
  const read = `The model read ${counted(given, "passage")}, ${counted(tokens, "token")}`;
  return found > given ? `${read}, of ${found} that were found.` : `${read}.`;
}

function readButton(context, files, question) {
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
