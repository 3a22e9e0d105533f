// The gateway's API as these pages use it: this origin alone, the key in a header and nowhere else.

// In the tab's own storage: a reload keeps it, the tab's end forgets it, and nothing sends it by itself.
// Each page has its own, for a chat needs less than the usage of everybody.
const SLOT = `glassgate.key:${location.pathname}`;

export const key = {
  get: () => sessionStorage.getItem(SLOT) ?? "",
  set: (text) => (text ? sessionStorage.setItem(SLOT, text) : sessionStorage.removeItem(SLOT)),
};

/** An answer that is none; `status` 0: nobody answered. `retryAfter` in seconds, or null. */
export class Refused extends Error {
  constructor(status, message, { code = "", retryAfter = null, request = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter, request });
  }
}

/** The response, if its status is good. Throws Refused, or an AbortError. */
export async function ask(path, { body, signal, traceparent } = {}) {
  const headers = body ? { "content-type": "application/json" } : {};
  if (traceparent) headers.traceparent = traceparent;
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  const method = body ? "POST" : "GET";
  const how = { method, headers, signal, body: body && JSON.stringify(body), credentials: "omit" };
  let reply;
  try {
    reply = await fetch(path, { ...how, redirect: "error" }); // cache: "no-store" would bypass the gateway's too
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The gateway does not answer. Is it still running?");
  }
  if (!reply.ok) throw await refusal(reply);
  return reply;
}

export const askJson = async (path, how) => (await ask(path, how)).json();

async function refusal(reply) {
  const error = (await reply.json().catch(() => ({}))).error ?? {};
  const after = Number(reply.headers.get("retry-after") ?? NaN);
  return new Refused(reply.status, error.message ?? `The gateway answered ${reply.status}.`, {
    code: error.code ?? "",
    retryAfter: Number.isFinite(after) ? after : null,
    request: reply.headers.get("x-request-id") ?? "",
  });
}

/** The data of each server-sent event of a response, as it comes. */
export async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split(/\r?\n/).filter((it) => it.startsWith("data:"));
        if (lines.length) yield lines.map((it) => it.slice(5).trimStart()).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stops listening stops the answer too
  }
}
