"""What does serving many at once buy, and what does it cost?

A step of a large network reads all its weights from memory, for one answer as for sixty-four. So
answers that are computed together are nearly free, until arithmetic, the cache's memory or the
patience of whoever reads is the limit. Here is an 8B and a 70B network on H100s, as the emulated
engine runs them: the same scheduler as behind `glassgate model`, on a clock that needs no GPU.
"""

from functools import cache

from lessons.machine import Done, Job, machine, play, quantile
from lessons.story import Claim, Exercise, Result

NUM_PROMPT, NUM_OUTPUT = 128, 64
DOLLARS_PER_GPU_HOUR = 3.0  # an assumption: ask whom you rent from
SMALL, LARGE = "h100-llama-8b", "h100-llama-70b"
GPUS = {SMALL: 1, LARGE: 4}


@cache
def batch(profile: str, size: int) -> tuple[Done, ...]:
    """`size` requests that come at the same moment."""
    jobs = [Job(0.0, NUM_PROMPT, NUM_OUTPUT) for _ in range(size)]
    return tuple(play(*machine(profile), jobs))


def throughput(profile: str, size: int) -> float:
    """Answer tokens a second, of all streams together."""
    done = batch(profile, size)
    return len(done) * NUM_OUTPUT / max(it.last for it in done)


def speed(profile: str, size: int) -> float:
    """Tokens a second that one reader sees."""
    return quantile((it.speed for it in batch(profile, size)), 0.5)


def dollars_per_million(tokens_per_s: float, num_gpus: int) -> float:
    """
    >>> round(dollars_per_million(1000, 1), 3)
    0.833
    """
    return num_gpus * DOLLARS_PER_GPU_HOUR / 3600 / tokens_per_s * 1e6


def price(profile: str, size: int) -> float:
    return dollars_per_million(throughput(profile, size), GPUS[profile])


def run() -> Result:
    return {
        "8B: tokens/s, alone": Claim(throughput(SMALL, 1), 80, 160),
        "8B: tokens/s, 64 at once": Claim(throughput(SMALL, 64), 3000, 8000),
        "8B: times the throughput, 64 at once": Claim(
            throughput(SMALL, 64) / throughput(SMALL, 1), 30, 60
        ),
        "8B: speed that is left to each reader": Claim(speed(SMALL, 64) / speed(SMALL, 1), 0.5, 1),
        "8B: ms to the first token, 64 at once": Claim(
            1000 * max(it.wait for it in batch(SMALL, 64)), 50, 400
        ),
        "8B: dollars a million tokens, alone": Claim(price(SMALL, 1), 5, 10),
        "8B: dollars a million tokens, 64 at once": Claim(price(SMALL, 64), 0.1, 0.3),
        "70B over 8B: price, 64 at once": Claim(price(LARGE, 64) / price(SMALL, 64), 4, 16),
    }


EXERCISES = (
    Exercise(
        "Readers read 10 tokens a second. Is the speed of 64 streams of the 70B enough for them?",
        True,
        lambda: speed(LARGE, 64) > 10,
    ),
    Exercise(
        "Is the 70B on four GPUs, with 64 at once, cheaper a token than the 8B alone on one?",
        True,
        lambda: price(LARGE, 64) < price(SMALL, 1),
    ),
    Exercise(
        "max_num_seqs is 8 and 64 requests come: how many wait for a place?",
        56,
        lambda: 64 - 8,
    ),
)
