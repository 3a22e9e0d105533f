// Usage as rows of numbers over time, as the ledger sums them up by steps.

import { askJson } from "./api.js";

const MINUTE = 60;
const DAY = 86_400;
const NAMES = ["requests", "errors", "prompt", "cached", "completion", "cost"];

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

/** {range, at: [s], requests: […], …}: a number for each step. `subject`: "global" or "team:NAME". */
export async function figuresOf(range, subject) {
  const { step, count } = range;
  const since = range.begin();
  const figures = { range, at: Array.from({ length: count }, (_, i) => since + i * step) };
  for (const name of NAMES) figures[name] = figures.at.map(() => 0);
  for (const line of await askLines("/admin/usage/steps", { since, step, count }, subject)) {
    const sums = sumsOf(line);
    const place = (Date.parse(line.name) / 1000 - since) / step;
    for (const name of NAMES) figures[name][place] = sums[name];
  }
  return figures;
}

/** The lines of a report: sums of whole days since a date, by "day", "team", … */
export const askUsage = (by, since, subject) => askLines("/admin/usage", { by, since }, subject);

async function askLines(path, what, subject) {
  const [kind, name] = subject.split(/:(.*)/);
  const query = new URLSearchParams({ ...what, ...(name && { [kind]: name }) });
  return (await askJson(`${path}?${query}`)).data;
}

const sumsOf = (line) => ({
  requests: line.requests,
  errors: line.errors,
  prompt: line.prompt_tokens,
  cached: line.cached_tokens,
  completion: line.completion_tokens,
  cost: Number(line.cost),
});
