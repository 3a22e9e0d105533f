// The usage page: what was asked, what it cost, and how much of the limits is left, for an admin's key.

import { askJson, key } from "./api.js";
import { find, make, notice } from "./dom.js";
import { askUsage, figuresOf, RANGES, sumOf } from "./figures.js";
import { askForKey, setUpFrame } from "./frame.js";
import { limitsOf, limitRows } from "./limits.js";
import { drawPlots } from "./plots.js";
import { format, money } from "./words.js";

const REFRESH_MS = 15_000;

let turn = 0; // of loads: one that was overtaken shows nothing
let shown = null; // what the plots are drawn of

const range = () => RANGES[find("settings").elements.range.value];
const subject = () => find("subject").value;

async function load() {
  const mine = ++turn;
  if (!key.get())
    return wantKey(
      "Usage is for a key with the scope admin: glassgate keys create NAME --scope admin",
    );
  if (find("report").hidden) notice("Reading the ledger…");
  try {
    const setting = await settingOf();
    showSubjects(setting);
    const figures = await figuresOf(range(), subject());
    const limits = await limitsOf(setting, subject(), figures);
    const [forecast, lines] = await Promise.all([
      askJson("/admin/usage/forecast"),
      askUsage(find("by").value, range().since(), subject()),
    ]);
    if (mine !== turn) return;
    notice("");
    find("report").hidden = false;
    shown = { figures, limits };
    drawPlots(figures, limits);
    showSums(figures, forecast);
    find("limits").replaceChildren(...limitRows(limits));
    showTable(lines);
  } catch (error) {
    if (mine === turn) sayWhyNot(error);
  }
}

/** What changes seldom: whose usage there can be, and what limits they have. */
async function settingOf() {
  const paths = ["/admin/releases", "/admin/teams", "/admin/keys?limit=1000", "/admin/budgets"];
  const [releases, teams, keys, budgets] = (await Promise.all(paths.map((it) => askJson(it)))).map(
    (it) => it.data,
  );
  return {
    families: releases.map((it) => it.family),
    teams,
    keys,
    budgets,
    config: (await askJson("/admin/config")).data,
  };
}

function showSubjects({ families, teams, keys }) {
  if (document.activeElement === find("subject")) return; // somebody is choosing
  const chosen = subject();
  const group = (label, options) =>
    options.length
      ? make(
          "optgroup",
          { label },
          ...options.map(([value, text]) => make("option", { value }, text)),
        )
      : null;
  const groups = [
    group(
      "Families",
      [...new Set(families)].map((it) => [`family:${it}`, it]),
    ),
    group(
      "Teams",
      teams.map((it) => [`team:${it.name}`, it.name]),
    ),
    group(
      "Keys",
      keys.map((it) => [`key:${it.id}`, `${it.name} (${it.id})`]),
    ),
  ];
  find("subject").replaceChildren(
    make("option", { value: "global" }, "everybody"),
    ...groups.filter(Boolean),
  );
  find("subject").value = chosen;
}

function showSums(figures, forecast) {
  const requests = sumOf(figures.requests);
  const errors = sumOf(figures.errors);
  const month = `${money(Number(forecast.so_far))} this month`;
  const then =
    forecast.expected === null ? month : `${month}, ${money(Number(forecast.expected))} by its end`;
  const sums = [
    ["Requests", format(requests), range().text],
    ["Tokens in", format(sumOf(figures.prompt)), `${format(sumOf(figures.cached))} cached`],
    ["Tokens out", format(sumOf(figures.completion)), ""],
    ["Cost", money(sumOf(figures.cost)), subject() === "global" ? then : ""],
    [
      "Errors",
      format(errors),
      requests ? `${((100 * errors) / requests).toFixed(1)} % of requests` : "",
    ],
  ];
  const items = sums.map(([term, value, note]) =>
    make("div", {}, make("dt", {}, term), make("dd", {}, value), make("dd.note", {}, note)),
  );
  find("sums").replaceChildren(...items);
}

function showTable(lines) {
  const heads = [
    find("by").value,
    "requests",
    "errors",
    "tokens in",
    "cached",
    "tokens out",
    "cost",
  ];
  const head = make("tr", {}, ...heads.map((it) => make("th", { scope: "col" }, it)));
  const rows = lines.map((it) => {
    const cells = [
      it.requests,
      it.errors,
      it.prompt_tokens,
      it.cached_tokens,
      it.completion_tokens,
    ].map(format);
    const name = it.title ? `${it.title} (${it.name})` : it.name || "none";
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, name),
      ...[...cells, money(Number(it.cost))].map((cell) => make("td", {}, cell)),
    );
  });
  const none = make(
    "tr",
    {},
    make("td", { colspan: String(heads.length) }, "Nobody, in these days."),
  );
  const body = make("tbody", {}, ...(rows.length ? rows : [none]));
  const caption = make("caption.note", {}, `Whole days in UTC, since ${range().since()}`);
  find("table").replaceChildren(caption, make("thead", {}, head), body);
}

function sayWhyNot(error) {
  if (error.status === 401 || error.status === 403) return wantKey(error.message);
  notice(`${error.message} `, make("button.quiet", { type: "button", onclick: load }, "Try again"));
}

function wantKey(reason) {
  find("report").hidden = true;
  notice(
    `${reason}. `,
    make("button.quiet", { type: "button", onclick: () => askForKey(reason) }, "Enter a key"),
  );
  askForKey(reason);
}

find("settings").onchange = load;
find("settings").onsubmit = (event) => event.preventDefault();
find("by").onchange = load;
setUpFrame({ onKey: load, onTheme: () => shown && drawPlots(shown.figures, shown.limits) });
load();
setInterval(() => {
  const isIdle = document.hidden || find("key-dialog").open || find("report").hidden;
  if (!isIdle && range().isLive) load();
}, REFRESH_MS);
