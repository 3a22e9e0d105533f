// The trace of a request as the gateway kept it; without one, what this page saw itself.

import { askJson } from "./api.js";

/** A new trace that begins here and is to be kept: a header of the request (W3C trace context). */
export function newTrace() {
  const bytes = [...crypto.getRandomValues(new Uint8Array(24))];
  const hex = bytes.map((it) => it.toString(16).padStart(2, "0")).join("");
  return `00-${hex.slice(0, 32)}-${hex.slice(32)}-01`;
}

/** null where the gateway kept no trace of the request, or does not show it to this key. */
export async function readTrace(request) {
  if (!request) return null;
  const trace = await askJson(`/v1/traces/${encodeURIComponent(request)}`).catch(() => null);
  if (!trace?.spans?.length) return null;
  const depths = new Map();
  const spans = trace.spans.map((it) => {
    const depth = depths.has(it.parent) ? depths.get(it.parent) + 1 : 0;
    depths.set(it.id, depth);
    const start = it.start_us / 1000;
    return {
      name: it.name,
      start,
      length: it.end_us / 1000 - start,
      depth,
      note: noteOf(it.attributes),
    };
  });
  return { spans, id: trace.trace_id, cost: trace.spans[0].attributes?.["glassgate.cost_usd"] };
}

const noteOf = (attributes = {}) =>
  Object.entries(attributes)
    .filter(([, value]) => value !== "")
    .map(([name, value]) => `${name}: ${value}`)
    .join("\n");

/** The waits that a client can tell apart. */
export function seenFromHere({ begun, headers, first, last, end }) {
  const waits = [["to the headers", begun, headers || end]];
  if (first)
    waits.push(
      ["to the first token", headers, first],
      ["the rest", first, last],
      ["to the end", last, end],
    );
  return waits.map(([name, from, to]) => ({
    name,
    start: from - begun,
    length: Math.max(0, to - from),
  }));
}
