"""Which work need not be done twice, and who may know that it was done?

Two caches, at two depths. The engine keeps the keys and values of prompts' beginnings: whoever
begins with the same tokens skips computing them, whatever follows. The gateway keeps whole answers:
the same question, to the same release, of the same tenant, costs neither a model nor money. The
first always gives the answer that would have been computed; the second gives an old one, which is
why it serves only what would be answered the same, and why a new release starts with none.
"""

from functools import cache

from lessons.machine import Done, Job, machine, play, quantile
from lessons.stack import Reply, running
from lessons.story import Claim, Exercise, Result

NUM_PROMPT, NUM_SHARED, BLOCK = 2048, 1920, 16  # tokens: a long instruction, a short question

CONFIG = """
[local]
model = "tiny-random"
embedder = ""
port = {model_port}
[upstreams.chat]
local = "model"
prices = [{{ prompt = 1, completion = 4 }}]
[families.tiny]
labels = {{ production = "tiny-1" }}
[releases.tiny-1]
family = "tiny"
upstream = "chat"
sampling = {{ temperature = 0 }}
[releases.tiny-2]
family = "tiny"
upstream = "chat"
sampling = {{ temperature = 0 }}
default_max_tokens = 9  # else it would be the same release by another name, and share its answers
"""


@cache
def prompts(num_shared: int) -> tuple[Done, ...]:
    """Forty questions one after the other, behind the same `num_shared` tokens."""
    jobs = [Job(float(second), NUM_PROMPT, 8, num_shared) for second in range(40)]
    return tuple(play(*machine("h100-llama-70b"), jobs))


def wait(num_shared: int) -> float:
    """Median seconds to the first token."""
    return quantile((it.wait for it in prompts(num_shared)), 0.5)


@cache
def asked() -> dict[str, Reply]:
    """The same question twice, in other words, sampled, and after a promotion."""
    with running(CONFIG) as stack:
        replies = {
            "first": stack.ask("tiny"),
            "again": stack.ask("tiny"),
            "other words": stack.ask("tiny", "hallo"),
            "sampled": stack.ask("tiny", temperature=1),
            "sampled again": stack.ask("tiny", temperature=1),
        }
        stack.command("releases", "promote", "tiny", "tiny-2", "--why", "a lesson")
        stack.until(lambda: stack.release("tiny") == "tiny-2")
        return {**replies, "new release": stack.ask("tiny")}


def is_hit(name: str) -> bool:
    return asked()[name].headers["x-cache"] == "hit"


def run() -> Result:
    alike = prompts(NUM_SHARED)[1:]
    first, again = asked()["first"], asked()["again"]
    return {
        "tokens skipped of 2048, same beginning": Claim(
            quantile((it.num_cached for it in alike), 0.5), NUM_SHARED, NUM_SHARED
        ),
        "tokens skipped, nothing shared": Claim(max(it.num_cached for it in prompts(0)), 0, 0),
        "ms to the first token, nothing shared": Claim(1000 * wait(0), 100, 400),
        "ms to the first token, same beginning": Claim(1000 * wait(NUM_SHARED), 10, 60),
        "the same question again is a hit": Claim(is_hit("again"), 1, 1),
        "and it has the same text": Claim(
            first.body["choices"][0]["message"] == again.body["choices"][0]["message"], 1, 1
        ),
        "its time over the first one's": Claim(again.seconds / first.seconds, 0, 0.9),
        "other words are a hit": Claim(is_hit("other words"), 0, 0),
        "a sampled answer is a hit": Claim(is_hit("sampled again"), 0, 0),
        "the same question to a new release is a hit": Claim(is_hit("new release"), 0, 0),
    }


EXERCISES = (
    Exercise(
        "The instruction is 1925 tokens long, and blocks have 16. How many of them are skipped?",
        1920,
        lambda: int(quantile((it.num_cached for it in prompts(1925)[1:]), 0.5)),
    ),
    Exercise(
        "A user's name stands at the very beginning of the instruction. How many tokens do two "
        "users share?",
        0,
        lambda: max(it.num_cached for it in prompts(0)),
    ),
    Exercise(
        "Why did the sampled question not hit: what did the gateway say about it?",
        "bypass",
        lambda: asked()["sampled again"].headers["x-cache"],
    ),
)
