// Usage as rows of numbers over time: single requests for hours, the ledger's daily sums for more.

import { askJson } from "./api.js";

const MINUTE = 60;
const DAY = 86_400;
const MOST_PAGES = 5; // of a thousand requests each
const NAMES = ["requests", "errors", "prompt", "cached", "completion", "cost"];
const FINE = new Set(["ok", "client_gone"]);

const dayText = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);
const range = (text, step, count, unit) => ({
  text,
  step,
  count,
  unit,
  isLive: step < DAY,
  begin: () => (Math.floor(Date.now() / 1000 / step) - count + 1) * step, // s, of the first step
  since() {
    return dayText(this.begin());
  },
});

export const RANGES = {
  hour: range("in an hour", MINUTE, 60, "a minute"),
  day: range("in 24 hours", 30 * MINUTE, 48, "half an hour"),
  month: range("in 30 days", DAY, 30, "a day"),
  quarter: range("in 90 days", DAY, 90, "a day"),
};

export const sumOf = (numbers) => numbers.reduce((sum, it) => sum + it, 0);

/** {range, at: [s], requests: […], …, isCut}: a number for each step. `subject`: "global" or "team:NAME". */
export async function figuresOf(range, subject) {
  const begin = range.begin();
  const at = Array.from({ length: range.count }, (_, i) => begin + i * range.step);
  const figures = { range, at, isCut: false };
  for (const name of NAMES) figures[name] = at.map(() => 0);
  const add = (seconds, row) => {
    const step = Math.floor((seconds - begin) / range.step);
    if (step >= 0 && step < range.count) for (const name of NAMES) figures[name][step] += row[name];
  };
  if (range.step < DAY) figures.isCut = await addRequests(begin, subject, add);
  else await addDays(range, subject, add);
  return figures;
}

async function addRequests(begin, subject, add) {
  const [kind, name] = subject.split(/:(.*)/);
  let before = "";
  for (let page = 0; page < MOST_PAGES; page++) {
    const { data, next } = await askJson(
      `/admin/requests?limit=1000&before=${encodeURIComponent(before)}`,
    );
    for (const row of data) {
      if (name && row[kind] !== name) continue;
      const isError = !FINE.has(row.outcome);
      add(Date.parse(row.started_at) / 1000, {
        ...tokensOf(row),
        requests: 1,
        errors: Number(isError),
      });
    }
    if (!next || Date.parse(data.at(-1).started_at) / 1000 < begin) return false;
    before = next;
  }
  return true;
}

async function addDays(range, subject, add) {
  for (const row of await askUsage("day", range.since(), subject)) {
    const at = Date.parse(row.name) / 1000;
    add(at, { ...tokensOf(row), requests: row.requests, errors: row.errors });
  }
}

/** The lines of a report: sums of whole days since a date, by "day", "team", … */
export async function askUsage(by, since, subject) {
  const [kind, name] = subject.split(/:(.*)/);
  const query = new URLSearchParams({ by, since, ...(name && { [kind]: name }) });
  return (await askJson(`/admin/usage?${query}`)).data;
}

const tokensOf = (row) => ({
  prompt: row.prompt_tokens,
  cached: row.cached_tokens,
  completion: row.completion_tokens,
  cost: Number(row.cost),
});
