"""Writes `evals.json`: what others' programs say of small inputs.

python tests/goldens/make_evals.py      needs sacrebleu, rouge-score, scipy, statsmodels
"""

import json
from pathlib import Path

import numpy as np
import statsmodels.api as sm
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import sentence_bleu
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import normal_power, normal_sample_size_one_tail
from statsmodels.stats.proportion import proportion_confint

PAIRS = [
    ("The cat sat on the mat.", "The cat sat on the mat."),
    ("The cat sat on a mat", "A cat was sitting on the mat, asleep."),
    ("It costs $1,234.50 (about 3-4 days).", "It cost $1,234.50, that is 3 or 4 days' work."),
    ("He said &quot;no&quot; & left.", 'He said "no" and left at once.'),
    ("Paris", "The capital of France is Paris."),
    ("one two three four five six", "six five four three two one"),
    ("nothing in common", "altogether different words"),
    ("A much longer answer than anybody wanted to read here", "a short one"),
    ("naïve café – Zürich", "naïve café in Zürich"),
    ("", "something"),
]
P_VALUES = [0.011, 0.04, 0.0009, 0.2, 0.03, 0.03, 0.9]
SHARES = [(0, 10), (3, 10), (10, 10), (20, 40), (199, 400)]
RATINGS = ([1, 1, 2, 3, 3, 1, 2, 2, 1, 3], [1, 2, 2, 3, 1, 1, 2, 3, 1, 3])


def clustered(x: np.ndarray, clusters: list[int]) -> list[float]:
    fit = sm.OLS(x, np.ones(len(x))).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(clusters)}, use_t=True
    )
    low, high = fit.conf_int()[0]
    return [float(it) for it in (fit.params[0], fit.bse[0], low, high, fit.pvalues[0])]


def paired(ours: np.ndarray, theirs: np.ndarray) -> list[float]:
    found = stats.ttest_rel(ours, theirs)
    low, high = found.confidence_interval(0.95)
    error = stats.sem(ours - theirs)
    return [float(it) for it in (np.mean(ours - theirs), error, low, high, found.pvalue)]


def main() -> None:
    rng = np.random.default_rng(8)
    ours, theirs = rng.uniform(size=(2, 24)).round(3)
    clusters = [i // 5 for i in range(24)]
    table = np.zeros((3, 3))
    for a, b in zip(*RATINGS, strict=True):
        table[a - 1, b - 1] += 1
    rouge = RougeScorer(["rougeL"])
    golden = {
        "pairs": [
            {"answer": answer, "reference": reference,
             "bleu": sentence_bleu(answer, [reference]).score / 100,
             "rouge_l": rouge.score(reference, answer)["rougeL"].fmeasure}
            for answer, reference in PAIRS
        ],
        "ours": ours.tolist(), "theirs": theirs.tolist(), "clusters": clusters,
        "paired": paired(ours, theirs),
        "clustered": clustered(ours - theirs, clusters),
        "bootstrap": [float(it) for it in stats.bootstrap(
            (ours - theirs,), np.mean, n_resamples=100_000, method="percentile", rng=0
        ).confidence_interval],
        "mcnemar": [
            [b, c, float(mcnemar([[9, b], [c, 9]], exact=True).pvalue)]
            for b, c in [(1, 8), (5, 5), (0, 6), (12, 30), (0, 0)]
        ],
        "wilson": [[k, n, *map(float, proportion_confint(k, n, method="wilson"))]
                   for k, n in SHARES],
        "p": P_VALUES,
        "holm": multipletests(P_VALUES, method="holm")[1].tolist(),
        "benjamini_hochberg": multipletests(P_VALUES, method="fdr_bh")[1].tolist(),
        "power": [[e, n, float(normal_power(e / 0.5, n, 0.05))]
                  for e, n in [(0.1, 50), (0.05, 400), (0.3, 20)]],
        "needed": [[e, float(normal_sample_size_one_tail(e, 0.8, 0.025, std_null=0.5))]
                   for e in (0.02, 0.1, 0.3)],
        "ratings": RATINGS,
        "kappa": float(cohens_kappa(table).kappa),
    }  # fmt: skip
    path = Path(__file__).with_name("evals.json")
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
