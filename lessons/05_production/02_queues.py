"""Why does it wait so long when it is not even full?

Little's law holds for anything that comes, stays and goes: the number present is the rate of
arrival times the time they stay, L = λ · W. It needs no assumption, so it checks any dashboard.
What it does not say is how W grows: slowly, until the rate is near what the machine can do, and
then without bound, for a server that is late never catches up. The only cure then is to refuse
early (`queue`, `concurrent`): who is told at once can go elsewhere.
"""

from functools import cache

from lessons.machine import Done, machine, mean_in_system, play, poisson, quantile
from lessons.story import Claim, Exercise, Result

PLACES = 4  # of the engine: small, so that the queue is seen
COUNT, NUM_PROMPT, NUM_OUTPUT = 400, 64, 40


@cache
def capacity() -> float:
    """Requests a second that the machine finishes when there is always one waiting."""
    done = play(*_engine(), poisson(1e6, COUNT, NUM_PROMPT, NUM_OUTPUT))
    return COUNT / max(it.last for it in done)


def _engine():  # type: ignore[no-untyped-def]
    return machine("h100-llama-8b", max_num_seqs=PLACES)


@cache
def load(share: float) -> tuple[Done, ...]:
    """Requests at `share` of the capacity."""
    jobs = poisson(share * capacity(), COUNT, NUM_PROMPT, NUM_OUTPUT)
    return tuple(play(*_engine(), jobs))


def little(done: tuple[Done, ...]) -> float:
    """L over λ · W: 1 if the law holds. λ and W as a dashboard knows them, L counted."""
    seconds = max(it.last for it in done) - done[0].job.at
    rate = len(done) / seconds
    stay = sum(it.stay for it in done) / len(done)
    return mean_in_system(done) / (rate * stay)


def wait(share: float, quarter: int | None = None) -> float:
    """Median seconds to the first token, of all or of one quarter in order of arrival."""
    done = load(share)
    size = len(done) // 4
    part = done if quarter is None else done[quarter * size : (quarter + 1) * size]
    return quantile((it.wait for it in part), 0.5)


def places_needed(rate: float, stay: float) -> float:
    """
    >>> places_needed(rate=5, stay=4)
    20
    """
    return rate * stay


def run() -> Result:
    calm = wait(0.3)
    return {
        "requests a second at most": Claim(capacity(), 2, 20),
        "L / λW at 30 % of that": Claim(little(load(0.3)), 0.999, 1.001),
        "L / λW at 90 %": Claim(little(load(0.9)), 0.999, 1.001),
        "L / λW at 130 %": Claim(little(load(1.3)), 0.999, 1.001),
        "wait at 60 %, times that at 30 %": Claim(wait(0.6) / calm, 1, 3),
        "wait at 90 %, times that at 30 %": Claim(wait(0.9) / calm, 2, 200),
        "at 60 %, last quarter's wait over the first's": Claim(wait(0.6, 3) / wait(0.6, 0), 0.3, 3),
        "at 130 %, last quarter's wait over the first's": Claim(
            wait(1.3, 3) / wait(1.3, 0), 2, 1000
        ),
    }


EXERCISES = (
    Exercise(
        "5 requests a second stay 4 s each. How many places does the engine need on average?",
        20,
        lambda: places_needed(rate=5, stay=4),
    ),
    Exercise(
        "A dashboard shows 12 in flight, 3 finished a second and a mean time of 9 s. Which of "
        "the numbers contradict each other: how many should be in flight?",
        27,
        lambda: places_needed(rate=3, stay=9),
    ),
    Exercise(
        "Twice as many places on the same machine, at the same rate: is the wait shorter?",
        True,
        lambda: (
            quantile(
                (
                    it.wait
                    for it in play(
                        *machine("h100-llama-8b", max_num_seqs=2 * PLACES),
                        poisson(0.9 * capacity(), COUNT, NUM_PROMPT, NUM_OUTPUT),
                    )
                ),
                0.5,
            )
            < wait(0.9)
        ),
    ),
)
