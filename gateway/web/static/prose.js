// An answer's text as people read it: paragraphs, lists, code, marks of citations.
// A model's text becomes text nodes and nothing else, whatever it says.

import { make } from "./dom.js";

const FENCE = /^```([^\n]*)\n([\s\S]*?)(?:^```[ \t]*$\n?|$(?![\s\S]))/gm;
const BULLET = /^\s*[-*•]\s+/;
const NUMBER = /^\s*\d{1,3}[.)]\s+/;
const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\uE000(\d+)\uE001/g;

/** `cites`: [{at, mark, title, href}], `at` counted in characters of the text. */
export function prose(text, cites = []) {
  const page = document.createDocumentFragment();
  const marked = withMarks(text, cites);
  let end = 0;
  for (const fence of marked.matchAll(FENCE)) {
    addBlocks(page, marked.slice(end, fence.index), cites);
    const code = make("code", {}, fence[2].replace(/[\uE000-\uE001]/g, "").replace(/\n$/, ""));
    page.append(make("pre", { tabindex: "0", "aria-label": `Code ${fence[1]}`.trim() }, code));
    end = fence.index + fence[0].length;
  }
  addBlocks(page, marked.slice(end), cites);
  return page;
}

function withMarks(text, cites) {
  const characters = [...text.replace(/[\uE000\uE001]/g, "")];
  for (const [number, { at }] of [...cites.entries()].sort(([, a], [, b]) => b.at - a.at))
    characters.splice(at, 0, `\uE000${number}\uE001`);
  return characters.join("");
}

function addBlocks(page, text, cites) {
  for (const block of text.split(/\n\s*\n/)) {
    if (!block.trim()) continue;
    let list = null;
    let lines = [];
    const flush = () => {
      if (lines.length) page.append(make("p", {}, ...inline(lines.join("\n"), cites)));
      lines = [];
    };
    for (const line of block.replace(/^\n+|\s+$/g, "").split("\n")) {
      const tag = BULLET.test(line) ? "ul" : NUMBER.test(line) ? "ol" : "";
      if (!tag) {
        list = null;
        lines.push(line.replace(/^#{1,6}\s+(.*)$/, "**$1**"));
        continue;
      }
      flush();
      if (list?.localName !== tag) {
        list = make(tag, tag === "ol" ? { start: parseInt(line.trim(), 10) } : {});
        page.append(list);
      }
      list.append(
        make("li", {}, ...inline(line.replace(tag === "ul" ? BULLET : NUMBER, ""), cites)),
      );
    }
    flush();
  }
}

function* inline(text, cites) {
  let end = 0;
  for (const found of text.matchAll(INLINE)) {
    if (found.index > end) yield text.slice(end, found.index);
    const [all, code, strong, cite] = found;
    if (code !== undefined) yield make("code", {}, code);
    else if (strong !== undefined) yield make("strong", {}, strong);
    else yield citation(cites[Number(cite)]);
    end = found.index + all.length;
  }
  if (end < text.length) yield text.slice(end);
}

function citation({ mark, title, href }) {
  return make(
    "sup.cite",
    {},
    make("a", { href, title, "aria-label": `Source ${mark}: ${title}` }, mark),
  );
}
