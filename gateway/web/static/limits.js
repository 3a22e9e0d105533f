// Which limits hold for somebody, and how much of each is used.

import { askJson } from "./api.js";
import { make } from "./dom.js";
import { sumOf } from "./figures.js";
import { format, money } from "./words.js";

/** [{name, most, soft, used, say}]: `used` null where nobody kept count. */
export async function limitsOf(setting, subject, figures) {
  const { config, budgets } = setting;
  const name = classOf(setting, subject);
  const most = (what) => Number(config[`limits.${name}.${what}`]?.value ?? 0);
  const peak = (numbers) => (figures.range.step === 60 ? Math.max(...numbers) : null);
  const tokens = figures.prompt.map((it, i) => it + figures.completion[i]);
  const rows = [
    {
      kind: "requests",
      name: "Requests a minute",
      most: most("requests_per_minute"),
      used: peak(figures.requests),
      say: format,
    },
    {
      kind: "tokens",
      name: "Tokens a minute",
      most: most("tokens_per_minute"),
      used: peak(tokens),
      say: format,
    },
    { kind: "slots", name: "Requests at once", most: most("concurrent"), used: null, say: format },
  ];
  for (const period of ["day", "month"])
    rows.push({
      kind: period,
      name: `Cost a ${period}`,
      most: most(`cost_per_${period}`),
      used: null,
      say: money,
    });
  for (const row of rows.filter((it) => it.most && (it.kind === "day" || it.kind === "month")))
    row.used = await spentIn(row.kind, subject);
  for (const it of budgets.filter((it) => subject === "global" || it.subject === subject)) {
    const whose = it.subject === subject ? "" : ` of ${it.subject.replace(":", " ")}`;
    const isOurs = it.subject === subject;
    rows.push({
      kind: isOurs ? it.period : "",
      name: `Budget a ${it.period}${whose}`,
      say: money,
      most: Number(it.hard ?? it.soft),
      soft: it.soft && Number(it.soft),
      used: Number(it.spent),
    });
  }
  return rows.filter((it) => it.most);
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
  const today = new Date().toISOString();
  const query = new URLSearchParams({
    by: "day",
    since: period === "day" ? today.slice(0, 10) : `${today.slice(0, 7)}-01`,
  });
  const [kind, name] = subject.split(/:(.*)/);
  if (name) query.set(kind, name);
  return sumOf((await askJson(`/admin/usage?${query}`)).data.map((it) => Number(it.cost)));
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
