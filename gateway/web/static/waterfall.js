// When each stage of a request began and how long it took, one line each.

import { make } from "./dom.js";
import { milliseconds } from "./words.js";

/** `spans`: [{name, start, length, depth, note}], times in ms from the request's begin. */
export function waterfall(spans, caption) {
  const total = Math.max(...spans.map((it) => it.start + it.length), 0.001);
  const rows = spans.map((it) => {
    const bar = make(`span.bar.depth${Math.min(it.depth ?? 0, 3)}`);
    bar.style.insetInlineStart = `${(100 * it.start) / total}%`; // through the object model: no style attribute
    bar.style.inlineSize = `${Math.max((100 * it.length) / total, 0.4)}%`;
    const name = make("th", { scope: "row", title: it.note ?? null }, it.name);
    name.style.paddingInlineStart = `${0.9 * (it.depth ?? 0)}em`;
    return make(
      "tr",
      {},
      name,
      make("td.track", {}, bar),
      make("td.ms", {}, milliseconds(it.length)),
    );
  });
  return make("table.waterfall", {}, make("caption", {}, caption), make("tbody", {}, ...rows));
}
