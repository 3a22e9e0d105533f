"""May a model judge answers, and how do we know?

Ask it "is this right, yes or no?" and read the probability of yes against no. Before such a judge
counts, it is itself judged, on answers that people have labelled: by kappa, agreement beyond what
chance would give. The small network agrees with nobody: it says no to all, and its odds of yes are
not even higher for right answers (AUC). People are measured alike: who does not agree with a
colleague cannot be asked to be agreed with.
"""

import json
from functools import cache

import numpy as np

from gateway.evals.agreement import cohen, krippendorff
from gateway.evals.probes import JUDGE
from lessons.chat import chat_text, checkpoint, next_logits
from lessons.speakers import CASES, user
from lessons.story import Claim, Exercise, Result
from model.network.functional import softmax

Labelled = tuple[str, str, bool]
ENOUGH = 0.6
# Three people on ten answers, "." where one had no time.
PEOPLE = ("yynynnyyny", "yynynnynny", "yyny.nyyn.")


@cache
def labelled() -> tuple[Labelled, ...]:
    """Questions, answers, and whether these are good; half of them are."""
    lines = CASES.with_name("judge_labels.jsonl").read_text().splitlines()[:20]
    rows = [json.loads(it) for it in lines]
    return tuple((it["question"], it["answer"], it["is_good"]) for it in rows)


@cache
def says_yes(question: str, answer: str) -> float:
    """The probability of yes among yes and no."""
    text = JUDGE.replace("{question}", question).replace("{answer}", answer)
    p = softmax(next_logits(chat_text(user(text))).astype(np.float64))
    encode = checkpoint().tokenizer.encode
    yes, no = (sum(p[encode(it)[0]] for it in words) for words in (("yes", "Yes"), ("no", "No")))
    return float(yes / (yes + no))


def opinions() -> list[float]:
    return [says_yes(question, answer) for question, answer, _ in labelled()]


def truth() -> list[bool]:
    return [it[2] for it in labelled()]


def scripted() -> list[bool]:
    """A judge who errs on every tenth answer."""
    return [it != (i % 10 == 0) for i, it in enumerate(truth())]


def auc() -> float:
    """The chance that a good answer gets higher odds than a bad one."""
    pairs = list(zip(opinions(), truth(), strict=True))
    good, bad = ([odds for odds, is_good in pairs if is_good == it] for it in (True, False))
    return float(np.mean(np.subtract.outer(good, bad) > 0))


def run() -> Result:
    said = [it > 0.5 for it in opinions()]
    units = [[it for it in labels if it != "."] for labels in zip(*PEOPLE, strict=True)]
    return {
        "network: share called right": Claim(np.mean(said), 0, 0.1),
        "network: kappa with the labels": Claim(cohen(truth(), said), -0.3, 0.35),
        "network: AUC": Claim(auc(), 0.25, 0.65),
        "scripted, wrong on every tenth: agreement": Claim(
            np.mean([a == b for a, b in zip(scripted(), truth(), strict=True)]), 0.9, 0.9
        ),
        "scripted, wrong on every tenth: kappa": Claim(cohen(truth(), scripted()), 0.79, 0.81),
        "two people: kappa": Claim(cohen(PEOPLE[0], PEOPLE[1]), 0.79, 0.81),
        "three people: Krippendorff's alpha": Claim(krippendorff(units), 0.8, 0.95),
    }


EXERCISES = (
    Exercise(
        "Nine answers of ten are good. A judge who says yes to all agrees to 90 %. Its kappa?",
        0.0,
        lambda: cohen([True] * 9 + [False], [True] * 10),
    ),
    Exercise(
        "Does the small network get to count as a judge?",
        False,
        lambda: cohen(truth(), [it > 0.5 for it in opinions()]) >= ENOUGH,
    ),
)
