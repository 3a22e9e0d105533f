"""From a run's items to one score for each case and target: graders weighed, samples averaged."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gateway.evals.graders import Grader
from gateway.evals.probes import Judge
from gateway.evals.runs import Item, Run

Scores = dict[str, float]  # case → score


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """What one target did. A case without any answer that was not an error is not in it."""

    name: str
    total: Scores
    by_grader: dict[str, Scores]
    items: list[Item]
    failed: list[Item]

    @property
    def num_errors(self) -> int:
        return len(self.failed)

    @property
    def mean(self) -> float:
        return sum(self.total.values()) / len(self.total) if self.total else 0.0

    @property
    def cost(self) -> float:
        """Nano-dollars a case."""
        return self._each([it.cost for it in self.items])

    @property
    def seconds(self) -> float:
        return self._each([it.total_us / 1e6 for it in self.items])

    @property
    def slow(self) -> float:
        """Seconds that one in twenty takes longer than."""
        times = sorted(it.total_us for it in self.items)
        return times[int(0.95 * len(times))] / 1e6 if times else 0.0

    @property
    def tokens(self) -> float:
        return self._each([it.prompt_tokens + it.completion_tokens for it in self.items])

    def _each(self, values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else 0.0


def columns(
    run: Run, items: Iterable[Item], graders: Mapping[str, Grader] | None = None
) -> dict[str, Column]:
    """By the run's graders, or those of them that are given, with the weights that these have."""
    found: dict[str, list[Item]] = {name: [] for name in run.eval.columns()}
    for item in items:
        found[item.target].append(item)
    weight = weights(run, run.eval.graders if graders is None else graders)
    return {name: _column(weight, name, mine) for name, mine in found.items()}


def weights(run: Run, graders: Mapping[str, Grader]) -> dict[str, float]:
    """Of each grader; 0 for a judge that does not agree with the labels."""
    return {name: _weight(it, run.trust.get(name)) for name, it in graders.items()}


def _weight(grader: Grader, kappa: float | None) -> float:
    if isinstance(grader, Judge) and (kappa is None or kappa < grader.min_kappa):
        return 0.0
    return grader.weight


def _column(weight: Mapping[str, float], name: str, items: list[Item]) -> Column:
    answered = [it for it in items if not it.error]
    total: dict[str, list[float]] = defaultdict(list)
    by_grader: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for item in answered:
        scores = {it: score for it, score in item.scores.items() if it in weight}
        for grader, score in scores.items():
            by_grader[grader][item.case].append(score)
        if mass := sum(weight[it] for it in scores):
            weighed = sum(weight[it] * score for it, score in scores.items())
            total[item.case].append(weighed / mass)
    return Column(
        name=name,
        total=_means(total),
        by_grader={grader: _means(kept) for grader, kept in by_grader.items()},
        items=answered,
        failed=[it for it in items if it.error],
    )


def _means(lists: dict[str, list[float]]) -> Scores:
    return {case: sum(values) / len(values) for case, values in lists.items()}
