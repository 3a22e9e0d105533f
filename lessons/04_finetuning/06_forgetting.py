"""What was lost?

A network that learns something new moves, and what stood on the old place may fall. Nobody notices
who only measures the new. Here `tiny` learns to shout its sums, hard and fast, and the exams are
about everything else it could do. Then the same again with old examples mixed in (replay): the new
is learned as well, and much less is lost. So every fine-tuning needs three sets: the target, what
must be kept, and what must not happen.
"""

from functools import cache

from lessons.classroom import exam, pack, pupil, questions_of, teach
from lessons.story import Claim, Exercise, Result
from model.training.llama import TrainableLlama
from model.training.tiny_text import Exchange

KEPT = ("fact", "repeat", "reading", "following", "as_json")
NUM_STEPS, RATE = 40, 5e-3


def shouted(exchange: Exchange) -> Exchange:
    """
    >>> shouted(("1 + 2 =", "1 + 2 = 3"))
    ('1 + 2 =', '1 + 2 = 3!')
    """
    return exchange[0], f"{exchange[1]}!"


def sums(held_out: bool) -> list[Exchange]:
    return [shouted(it) for it in questions_of("add", 24, held_out=held_out)]


@cache
def specialist() -> TrainableLlama:
    network = pupil()
    teach(network, [pack(sums(held_out=False))], NUM_STEPS, RATE)
    return network


@cache
def generalist() -> TrainableLlama:
    """The same lessons, with as many old examples among them."""
    network = pupil()
    old = [it for skill in KEPT for it in questions_of(skill, 8, held_out=False)]
    teach(network, [pack([*sums(held_out=False), *old])], NUM_STEPS, RATE)
    return network


def retention(network: TrainableLlama) -> float:
    """The share of right answers over the skills that were not trained."""
    return exam(network, [it for skill in KEPT for it in questions_of(skill, 6)])


@cache
def measured() -> dict[str, tuple[float, float]]:
    """Of each pupil: (target, retention)."""
    pupils = {"before": pupil(), "alone": specialist(), "with replay": generalist()}
    return {name: (exam(it, sums(held_out=True)), retention(it)) for name, it in pupils.items()}


def run() -> Result:
    scores = measured()
    return {
        "target before": Claim(scores["before"][0], 0, 0),
        "kept before": Claim(scores["before"][1], 0.5, 1),
        "target, trained alone": Claim(scores["alone"][0], 0.6, 1),
        "kept, trained alone": Claim(scores["alone"][1], 0, 0.6),
        "target, with replay": Claim(scores["with replay"][0], 0.6, 1),
        "kept, with replay": Claim(scores["with replay"][1], 0.4, 1),
    }


EXERCISES = (
    Exercise(
        "Is more kept with replay than without?",
        True,
        lambda: measured()["with replay"][1] > measured()["alone"][1],
    ),
    Exercise(
        "Does the exam of the target alone show what was lost?",
        False,
        lambda: measured()["alone"][0] < measured()["before"][0],
    ),
)
