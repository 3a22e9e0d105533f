// Which limits hold for somebody, and how much of each is used.

import { make } from "./dom.js";
import { askUsage, sumOf } from "./figures.js";
import { format, money } from "./words.js";

/** [{kind, name, most, soft, used, say}], of class and budgets; `used` null: nobody kept count. */
export async function limitsOf(setting, subject, figures) {
  const ofClass = await classLimits(setting, subject, figures);
  return [...ofClass, ...budgetLimits(setting.budgets, subject)].filter((it) => it.most);
}

async function classLimits(setting, subject, figures) {
  const own = classOf(setting, subject);
  const most = (what) => Number(setting.config[`limits.${own}.${what}`]?.value ?? 0);
  const limit = (kind, name, what, say, used = null) => ({
    kind,
    name,
    most: most(what),
    say,
    used,
  });
  const peak = (numbers) => (figures.range.step === 60 ? Math.max(...numbers) : null);
  const tokens = figures.prompt.map((it, i) => it + figures.completion[i]);
  const rows = [
    limit("requests", "Requests a minute", "requests_per_minute", format, peak(figures.requests)),
    limit("tokens", "Tokens a minute", "tokens_per_minute", format, peak(tokens)),
    limit("slots", "Requests at once", "concurrent", format),
  ];
  for (const period of ["day", "month"]) {
    const row = limit(period, `Cost a ${period}`, `cost_per_${period}`, money);
    if (row.most) row.used = await spentIn(period, subject);
    rows.push(row);
  }
  return rows;
}

/** Everybody's page shows the budgets of all; a line in a plot is only for one's own. */
function budgetLimits(budgets, subject) {
  const mine = budgets.filter((it) => subject === "global" || it.subject === subject);
  return mine.map((it) => {
    const isOwn = it.subject === subject;
    return {
      kind: isOwn ? it.period : "",
      name: `Budget a ${it.period}${isOwn ? "" : ` of ${it.subject.replace(":", " ")}`}`,
      most: Number(it.hard ?? it.soft),
      soft: Number(it.soft ?? 0),
      used: Number(it.spent),
      say: money,
    };
  });
}

/** The limit class of whom the usage is of; "" for none. */
function classOf({ config, teams, keys }, subject) {
  const [kind, name] = subject.split(/:(.*)/);
  const of = (path) => config[path]?.value ?? "";
  if (kind === "family") return of(`families.${name}.limits`);
  if (kind === "team") return teams.find((it) => it.name === name)?.limits ?? "";
  if (kind === "key") return keys.find((it) => it.id === name)?.limits || of("server.key_limits");
  return of("server.limits");
}

async function spentIn(period, subject) {
  const today = new Date().toISOString().slice(0, 10);
  const since = period === "day" ? today : `${today.slice(0, 7)}-01`;
  const days = await askUsage("day", since, subject);
  return sumOf(days.map((it) => Number(it.cost)));
}

export function limitRows(limits) {
  if (!limits.length)
    return [
      make(
        "p.note",
        {},
        "None holds here. Limit classes stand in gateway.toml; budgets are set by glassgate budgets set.",
      ),
    ];
  return limits.map(({ name, most, soft, used, say }) => {
    const isKnown = used !== null;
    const text = isKnown ? `${say(used)} of ${say(most)}` : `at most ${say(most)}`;
    const low = Math.min(soft || 0.8 * most, most);
    const meter = make("meter", {
      min: "0",
      max: String(most),
      low: String(low),
      high: String(most),
      optimum: "0",
      value: String(used ?? 0),
      "aria-label": `${name}: ${text}`,
    });
    return make(
      "div.limit",
      {},
      make("span", {}, name),
      isKnown ? meter : make("span"),
      make("span.value", {}, text),
    );
  });
}
