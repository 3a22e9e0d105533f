"""One run as one HTML page that needs nothing else: no script, no font, no address.

Targets with intervals, price and time; what the comparison says; every tag, since an average hides
them; and the matrix of cases, the worst first.
"""

import html
from collections.abc import Iterable, Mapping, Sequence

from gateway.evals.cases import Case
from gateway.evals.compare import Verdict, compare, front
from gateway.evals.runs import Item, Run
from gateway.evals.scores import Column, Scores, columns, weights
from gateway.evals.statistics import Estimate, mean_of, wilson
from gateway.money import NANO

SHOWN = 600  # characters of an answer
NAMED = 12  # points of the plot with their names
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .6em;text-align:left}
th{border-bottom:2px solid #888}td{border-bottom:1px solid #ddd;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}.quiet{color:#777}
details{max-width:22em}pre{white-space:pre-wrap;margin:.3em 0;font-size:13px}
.better{color:#06713a}.worse{color:#a11}.best{font-weight:bold}
"""


def page(run: Run, items: Iterable[Item]) -> str:
    """The whole document. A target that nobody beats in quality and price is set in bold."""
    found, cases, name = columns(run, items), run.eval.cases, html.escape(run.eval.name)
    kept = [*found.values()]
    tags = sorted({tag for case in cases for tag in case.tags})
    by_tag = {tag: [case for case in cases if tag in case.tags] for tag in tags}
    parts = [
        f"<h1>{name}</h1><p class=quiet>run {run.id} · {len(cases)} cases · {run.eval.samples} "
        f"sample(s) each · {'finished' if run.finished_at else 'not finished'}</p>",
        "<h2>Targets</h2>", _targets(kept, cases), _plot(kept), *_comparison(run, found),
        "<h2>By grader</h2>",
        _split(kept, {_grader(run, it): [_mean(c.by_grader.get(it, {}), cases) for c in kept]
                      for it in run.eval.graders}),
        "<h2>By tag</h2>",
        _split(kept, {tag: [_mean(c.total, mine) for c in kept] for tag, mine in by_tag.items()}),
        "<h2>Cases, the worst first</h2>", _matrix(kept, cases),
    ]  # fmt: skip
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title>"
        f"<style>{STYLE}</style>{''.join(parts)}</html>"
    )


def interval(scores: Scores, cases: Sequence[Case]) -> Estimate:
    """Of a mean over cases: Wilson's for right and wrong, Student's over clusters otherwise."""
    kept = [it for it in cases if it.id in scores]
    values = [scores[it.id] for it in kept]
    groups = [it.group for it in kept]
    found = mean_of(values, groups)
    if set(values) <= {0.0, 1.0} and len(set(groups)) == len(groups):
        low, high = wilson(sum(values), len(values))
        return found._replace(low=low, high=high)
    return found._replace(low=max(0.0, found.low), high=min(1.0, found.high))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(it)}</th>" for it in head)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _cell(text: object, kind: str = "n") -> str:
    return f"<td class='{kind}'>{html.escape(str(text))}</td>"


def _grader(run: Run, name: str) -> str:
    """A judge's name is followed by how far it is believed."""
    if (kappa := run.trust.get(name)) is None:
        return name
    is_counted = weights(run, run.eval.graders)[name] > 0
    return f"{name} (κ = {kappa:.2f}, {'counted' if is_counted else 'not counted'})"


def _targets(found: Sequence[Column], cases: Sequence[Case]) -> str:
    best = front(found)
    head = ["target", "score", "$ a case", "s a case", "s, 95 %", "tokens a case", "errors"]
    rows = (
        [
            _cell(it.name, "best" if it.name in best else ""), _cell(_mean(it.total, cases)),
            _cell(f"{it.cost / NANO:.2g}"), _cell(f"{it.seconds:.2f}"), _cell(f"{it.slow:.2f}"),
            _cell(f"{it.tokens:.0f}"), _cell(it.num_errors),
        ]
        for it in found
    )  # fmt: skip
    return _table(head, rows)


def _plot(found: Sequence[Column]) -> str:
    """Quality over price as SVG; the front is filled."""
    by_cost = any(it.cost for it in found)
    prices = [it.cost / NANO if by_cost else it.seconds for it in found]
    best, most = front(found), max(prices, default=0.0) or 1.0
    marks = "".join(
        f"<circle cx={40 + 420 * price / most:.0f} cy={180 - 160 * it.mean:.0f} r=5 stroke=#345 "
        f"fill='{'#345' if it.name in best else 'white'}'><title>{html.escape(it.name)}: "
        f"{it.mean:.3f}</title></circle>"
        f"<text x={50 + 420 * price / most:.0f} y={184 - 160 * it.mean:.0f} font-size=11>"
        f"{html.escape(it.name) if len(found) <= NAMED else ''}</text>"
        for it, price in zip(found, prices, strict=True)
    )
    unit = "dollars" if by_cost else "seconds"
    return (
        "<svg viewBox='0 0 600 205' width=600><path d='M40 20V180H480' fill=none stroke=#888 />"
        f"{marks}<text x=45 y=18 font-size=12>score 1</text>"
        f"<text x=300 y=198 font-size=12>{most:.2g} {unit} a case, at the right</text></svg>"
    )


def _comparison(run: Run, found: dict[str, Column]) -> list[str]:
    asked = run.eval.comparison
    if asked.baseline not in found or asked.candidate not in found:
        return []
    verdicts = compare(found[asked.baseline], found[asked.candidate], run.eval.cases, asked)
    title = html.escape(f"{asked.candidate} against {asked.baseline}")
    return [f"<h2>{title}</h2>", _table(HEAD, ([_cell(it) for it in row(v)] for v in verdicts))]


HEAD = ("by", "cases", "before", "after", "difference", "p", "says", "seen from", "cases needed")


def row(it: Verdict) -> list[str]:
    """One line of a comparison, as people read it."""
    gap = it.difference
    return [
        it.by, str(it.n), f"{it.baseline:.3f}", f"{it.candidate:.3f}",
        f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]", f"{it.p:.2g}", it.says,
        f"{it.detectable:.3f}", str(it.needed),
    ]  # fmt: skip


def _split(found: Sequence[Column], parts: Mapping[str, Sequence[str]]) -> str:
    rows = ([_cell(name, ""), *map(_cell, means)] for name, means in parts.items())
    return _table(["", *(it.name for it in found)], rows)


def _matrix(found: Sequence[Column], cases: Sequence[Case]) -> str:
    answers = {(it.name, item.case): item for it in found for item in [*it.failed, *it.items]}

    def worst(case: Case) -> float:
        scores = [it.total[case.id] for it in found if case.id in it.total]
        return sum(scores) / len(scores) if scores else 0.0

    def row(case: Case) -> list[str]:
        asked = case.question or case.turns()[-1].get("content") or case.fields
        asked = html.escape(str(asked))
        head = f"<td><details><summary>{html.escape(case.id)}</summary><pre>{asked}</pre></details>"
        return [head, *(_answer(it, case, answers.get((it.name, case.id))) for it in found)]

    return _table(["case", *(it.name for it in found)], map(row, sorted(cases, key=worst)))


def _answer(column: Column, case: Case, item: Item | None) -> str:
    score = column.total.get(case.id)
    if item is None or (score is None and not item.error):
        return "<td class=quiet>–</td>"
    if score is None:
        return f"<td class=worse>{html.escape(item.error[:SHOWN])}</td>"
    hue = round(120 * score)
    parts = " ".join(f"{name} {value:.2f}" for name, value in item.scores.items())
    text = html.escape(f"{parts}\n\n{item.answer[:SHOWN]}")
    return (
        f"<td style='background:hsl({hue} 60% 88%)'><details><summary>{score:.2f}</summary>"
        f"<pre>{text}</pre></details></td>"
    )


def _mean(scores: Scores, cases: Sequence[Case]) -> str:
    found = interval(scores, cases)
    n = sum(it.id in scores for it in cases)
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] of {n}" if n else "–"
