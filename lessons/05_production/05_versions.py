"""How does one change what answers, so that it can be taken back before many have noticed?

A release never changes under its name: model, prompt, index and sampling together. Labels and
weights point at releases, and they move. So a change is a new release, first for a share of the
users, the same users each time, and going back is moving a label, not building anything. Here a
tenth of the users get a release whose upstream is broken, on a running stack.
"""

from functools import cache
from typing import NamedTuple

from gateway.releases import share_of
from lessons.stack import Stack, running
from lessons.story import Claim, Exercise, Result

CONFIG = """
[retries]
per_target = 1
backoff_s = 0.01
[upstreams.good]
base_url = "{upstream}/v1"
model = "ok"
[upstreams.bad]
base_url = "{upstream}/v1"
model = "error-500"
[families.town]
labels = {{ production = "town-1", canary = "town-2" }}
[releases.town-1]
family = "town"
upstream = "good"
cache = {{ ttl_s = 0 }}
[releases.town-2]
family = "town"
upstream = "bad"
cache = {{ ttl_s = 0 }}
"""
USERS = 100


def owner(point: float, canary: float) -> str:
    """Whose the user at `point` of [0, 1) is, when `canary` of all users go to the new release.

    >>> owner(0.05, 0.1), owner(0.15, 0.1), owner(0.15, 0.2)
    ('canary', 'production', 'canary')
    """
    return share_of({"canary": canary, "production": 1 - canary}, point)


def moved(before: float, after: float) -> float:
    """The share of users who lose the canary when its weight grows."""
    points = [n / 10_000 for n in range(10_000)]
    lost = [owner(p, before) == "canary" and owner(p, after) != "canary" for p in points]
    return sum(lost) / len(points)


class Rollout(NamedTuple):
    """Who failed in each round, and what `glassgate audit` told at the end."""

    before: frozenset[str]
    canary: frozenset[str]
    again: frozenset[str]
    after: frozenset[str]
    told: str


def failing(stack: Stack) -> frozenset[str]:
    """The users who do not get an answer."""
    users = [f"user-{n}" for n in range(USERS)]
    return frozenset(user for user in users if stack.ask("town", user=user).status != 200)


@cache
def rollout() -> Rollout:
    with running(CONFIG, ("loadtests.faults",)) as stack:
        before = failing(stack)
        weights = ("releases", "weights", "town", "canary=1", "production=9")
        stack.command(*weights, "--why", "a tenth of the users")
        stack.until(lambda: failing(stack))
        canary, again = failing(stack), failing(stack)
        stack.command("releases", "weights", "town", "production=1", "--why", "it fails")
        stack.until(lambda: not failing(stack))
        return Rollout(before, canary, again, failing(stack), stack.command("audit"))


def run() -> Result:
    seen = rollout()
    return {
        "users who fail before": Claim(len(seen.before), 0, 0),
        "users who fail, of 100, a tenth on the canary": Claim(len(seen.canary), 4, 20),
        "of them, who fail again": Claim(len(seen.canary & seen.again) / len(seen.canary), 1, 1),
        "others who fail the second time": Claim(len(seen.again - seen.canary), 0, 0),
        "users who fail after going back": Claim(len(seen.after), 0, 0),
        "lose the canary when it grows from 10 to 50 %": Claim(moved(0.1, 0.5), 0, 0),
    }


EXERCISES = (
    Exercise(
        "A canary gets 5 % of 20 requests a second and fails one in ten. How many failures are "
        "there after five minutes?",
        30,
        lambda: round(0.05 * 20 * 0.1 * 300),
    ),
    Exercise(
        "Is it written down why the weights moved back?",
        True,
        lambda: "it fails" in rollout().told,
    ),
    Exercise(
        "A canary shrinks from 50 to 10 %. What share of all users changes the release?",
        0.4,
        lambda: moved(0.5, 0.1),
    ),
)
