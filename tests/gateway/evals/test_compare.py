"""Better, worse, or one cannot tell; and the page that shows it."""

import re
from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.errors import BadRequest
from gateway.evals.compare import compare, front, spreads
from gateway.evals.definition import Comparison, Eval
from gateway.evals.report import page
from gateway.evals.runs import Item, Run
from gateway.evals.scores import Column, columns, weights


def run_of(
    scores: dict[str, list[float]], clusters: int = 0, **more: Any
) -> tuple[Run, list[Item]]:
    """A run whose cases have these scores by target."""
    n = len(next(iter(scores.values())))
    cases = [
        {"id": f"c{i}", "question": f"<b>{i}</b>?", "expected": ["y"], "tags": ["odd"] * (i % 2),
         "cluster": f"g{i // clusters}" if clusters else ""}
        for i in range(n)
    ]  # fmt: skip
    tree = {"name": "<made>", "targets": {it: {"model": "m"} for it in scores},
            "graders": {"exact": {"kind": "exact"}}, "cases": cases} | more  # fmt: skip
    items = [
        Item(target=name, case=f"c{i}", sample=0, answer="<script>", scores={"exact": value},
             cost=int(name == "dear"), total_us=2_000_000)
        for name, values in scores.items()
        for i, value in enumerate(values)
    ]  # fmt: skip
    return Run("r1", msgspec.convert(tree, Eval)), items


def total(scores: dict[str, list[float]], clusters: int = 0) -> Any:
    run, items = run_of(scores, clusters)
    before, after = columns(run, items).values()
    return compare(before, after, run.eval.cases, Comparison())[0]


def test_three_verdicts() -> None:
    right, wrong = [1.0] * 20, [1.0] * 8 + [0.0] * 12
    assert total({"a": wrong, "b": right}).says == "better"
    assert total({"a": right, "b": wrong}).says == "worse"
    few = total({"a": right, "b": [0.0] * 3 + [1.0] * 17})
    assert few.says == "cannot tell"
    assert few.p == pytest.approx(0.25)  # McNemar's, exact: three of three
    assert few.n < few.needed < 1000
    assert few.detectable > 0.05


def test_a_loss_on_one_tag_is_seen_behind_a_gain_on_the_whole() -> None:
    tags = [{"tags": ["many"]}] * 60 + [{"tags": ["few"]}] * 12
    run, items = run_of({"a": [0.0] * 60 + [1.0] * 12, "b": [1.0] * 60 + [0.0] * 12})
    cases = [
        msgspec.structs.replace(case, tags=tuple(tag["tags"]))
        for case, tag in zip(run.eval.cases, tags, strict=True)
    ]
    before, after = columns(run, items).values()
    verdicts = {it.by: it for it in compare(before, after, cases, Comparison())}
    assert [verdicts[it].says for it in ("score", "#few", "#many")] == ["better", "worse", "better"]
    assert verdicts["#few"].p == pytest.approx(2 / 2**12)


def test_nothing_differs() -> None:
    same = total({"a": [1.0, 0.0], "b": [1.0, 0.0]})
    assert (same.says, same.p) == ("cannot tell", 1)
    assert same.needed > 100  # that two cases are alike says little


@pytest.mark.parametrize(("before", "after", "clusters"), [(0.5, 0.75, 0), (0.0, 1.0, 2)])
def test_a_few_that_all_gain_the_same_tell_nothing(
    before: float, after: float, clusters: int
) -> None:
    few = total({"a": [before] * 4, "b": [after] * 4}, clusters)
    assert few.says == "cannot tell"
    assert few.p == 2 * 0.5 ** (2 if clusters else 4)
    assert few.needed > 4
    assert few.difference.low < 0 < few.difference.high
    assert total({"a": [before] * 20, "b": [after] * 20}, clusters).says == "better"


def test_a_target_that_only_fails_is_not_on_the_front_and_says_why() -> None:
    run, items = run_of({"a": [1.0, 0.0], "gone": [0.0, 0.0]})
    failed = [
        msgspec.structs.replace(it, error="no <such> model", scores={}, total_us=0)
        if it.target == "gone"
        else it
        for it in items
    ]
    assert front([*columns(run, failed).values()]) == {"a"}
    text = page(run, failed)
    assert text.count("no &lt;such&gt; model") == 2
    assert "class='best'>gone" not in text


def test_clusters_make_it_harder_to_tell() -> None:
    draw = np.random.default_rng(3).normal(0.1, 0.2, 8).repeat(5)
    scores = {"a": [0.5] * 40, "b": (0.5 + draw).tolist()}
    alone, together = total(scores), total(scores, clusters=5)
    assert alone.difference.mean == pytest.approx(together.difference.mean)
    assert together.difference.error > 2 * alone.difference.error
    assert together.needed > 4 * alone.needed


def test_a_judge_who_disagrees_is_shown_and_not_counted() -> None:
    judge = {"kind": "judge", "model": "m", "labels": "x"}
    run, items = run_of({"a": [1.0]}, graders={"exact": {"kind": "exact"}, "judge": judge})
    items = [msgspec.structs.replace(it, scores={"exact": 1.0, "judge": 0.0}) for it in items]
    for kappa, weight, score in ((0.2, 0, 1), (0.9, 1, 0.5)):
        measured = msgspec.structs.replace(run, trust={"judge": kappa})
        assert weights(measured, run.eval.graders)["judge"] == weight
        found = columns(measured, items)["a"]
        assert (found.total["c0"], found.by_grader["judge"]["c0"]) == (score, 0)


def test_the_front_of_price_and_quality() -> None:
    def column(name: str, cost: int, score: float) -> Column:
        item = Item(target=name, case="c", sample=0, cost=cost)
        return Column(name=name, total={"c": score}, by_grader={}, items=[item], failed=[])

    found = [column("cheap", 1, 0.5), column("good", 5, 0.9), column("bad", 5, 0.4)]
    assert front(found) == {"cheap", "good"}
    assert front([column("a", 0, 0.5), column("b", 0, 0.7)]) == {"b"}


def test_spread_of_formats() -> None:
    formats = {"task": {"instruction": "?", "inputs": [], "output": "o"}, "count": 2}
    run, items = run_of({"a": [1.0] * 6}, formats=formats)
    items = [
        msgspec.structs.replace(it, target=f"a#{i}", scores={"exact": float(i)})
        for it in items
        for i in range(2)
    ]
    found = spreads(run, items)["a"]
    assert (found.means, found.winner, found.confirmed.mean) == ([0, 1], 1, 1)
    with pytest.raises(BadRequest):
        spreads(*run_of({"a": [1.0]}))
    with pytest.raises(BadRequest):
        spreads(run, items[:3])


def test_the_page_stands_alone_and_shows_the_worst_first() -> None:
    compared = {"baseline": "cheap", "candidate": "dear"}
    run, items = run_of({"cheap": [1.0, 0.0, 1.0], "dear": [1.0, 0.5, 0.0]}, comparison=compared)
    text = page(run, items)
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(", text)
    assert "&lt;made&gt;" in text
    assert "&lt;script&gt;" in text
    assert "&lt;b&gt;1&lt;/b&gt;" in text
    assert text.index("<summary>c1<") < text.index("<summary>c2<") < text.index("<summary>c0<")
    assert "dear against cheap" in text
    assert "cannot tell" in text
    assert "<td class='best'>cheap</td>" in text
    assert "<td class=''>odd</td>" in text
