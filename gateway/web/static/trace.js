// The trace of a request as the gateway kept it; without one, what this page saw itself.

/** null where the gateway keeps no trace of the request, or does not show it to this key. */
export async function readTrace(request) {
  return null;
}

/** The three waits that a client can tell apart. */
export function seenFromHere({ begun, headers, first, last, end }) {
  const waits = [["to the headers", begun, headers]];
  if (first) waits.push(["to the first token", headers, first], ["the rest", first, last], ["settled", last, end]);
  return waits.map(([name, from, to]) => ({ name, start: from - begun, length: Math.max(0, to - from) }));
}
