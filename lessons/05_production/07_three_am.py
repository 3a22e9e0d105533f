"""It is three in the morning and you are woken. What do you look at, and in which order?

First whether it hurts: the page says how many times too fast the month's budget of errors is spent.
Then who is to blame: what clients saw, then which upstream failed, then which breaker is open; each
is one panel of the dashboard "Glassgate: gateway", and one line below. Then what can be moved
without building anything: a label. Why it broke can wait until morning. Here the upstream really
goes away under a running stack, and what the dashboards draw is read from its `/metrics`.
"""

from functools import cache
from typing import NamedTuple

from lessons.stack import Stack, post, running
from lessons.story import Claim, Exercise, Result

OBJECTIVE = 0.995  # of requests are answered, over 30 days: ops/prometheus/alerts.yml
PAGE = 14.4  # times too fast: 2 % of the month's budget in an hour
MONTH_MIN = 30 * 24 * 60
ROUND = 40  # requests

CONFIG = """
[local]
model = "tiny-random"
embedder = ""
port = {model_port}
[retries]
per_target = 2
backoff_s = 0.01
[upstreams.hosted]
base_url = "{upstream}/v1"
model = "ok"
[upstreams.spare]
local = "model"
[families.town]
labels = {{ production = "town-hosted" }}
[releases.town-hosted]
family = "town"
upstream = "hosted"
cache = {{ ttl_s = 0 }}
[releases.town-spare]
family = "town"
upstream = "spare"
cache = {{ ttl_s = 0 }}
"""


class Panel(NamedTuple):
    """What the dashboard shows of one while."""

    errors: float  # share of requests that ended in a 5xx
    failed: dict[str, float]  # attempts that gave no answer, by upstream
    opened: dict[str, float]  # replicas that are asked no more, by upstream


def burn(errors: float, objective: float = OBJECTIVE) -> float:
    """How many times too fast the budget is spent.

    >>> round(burn(0.005), 3), round(burn(0.5), 3)
    (1.0, 100.0)
    """
    return errors / (1 - objective)


def budget_spent(errors: float, minutes: float) -> float:
    """The share of a month's budget that such a while takes.

    >>> round(budget_spent(errors=1, minutes=216), 3)
    1.0
    """
    return burn(errors) * minutes / MONTH_MIN


def watch(stack: Stack) -> Panel:
    """Traffic for a while, and what the counters say of it."""
    before = _read(stack)
    for n in range(ROUND):
        stack.ask("town", f"question {n}")
    after = _read(stack)
    gone = {name: after[name] - before[name] for name in after}
    failed = {it: gone[f"{it} attempts"] - gone[f"{it} ok"] for it in ("hosted", "spare")}
    opened = {
        it: stack.metric("glassgate_upstream_replicas", target=it, state="open") for it in failed
    }
    return Panel(gone["5xx"] / gone["all"], failed, opened)


def _read(stack: Stack) -> dict[str, float]:
    requests, attempts = "glassgate_requests_total", "glassgate_attempts_total"
    seen = {"all": stack.metric(requests), "5xx": stack.metric(requests, status="5xx")}
    for it in ("hosted", "spare"):
        seen[f"{it} attempts"] = stack.metric(attempts, target=it)
        seen[f"{it} ok"] = stack.metric(attempts, target=it, outcome="ok")
    return seen


@cache
def night() -> dict[str, Panel]:
    with running(CONFIG, ("loadtests.faults",)) as stack:
        quiet = watch(stack)
        post(f"{stack.upstream}/faults/down?seconds=600", {})
        broken = watch(stack)
        why = "hosted is away, 3 a.m."
        stack.command("releases", "promote", "town", "town-spare", "--why", why)
        stack.until(lambda: stack.release("town") == "town-spare")
        return {"quiet": quiet, "broken": broken, "mended": watch(stack)}


def suspect(panel: Panel) -> str:
    """The upstream whose attempts fail most; "" when none do."""
    worst = max(panel.failed, key=lambda name: panel.failed[name])
    return worst if panel.failed[worst] else ""


def run() -> Result:
    quiet, broken, mended = night().values()
    return {
        "burn while all is quiet": Claim(burn(quiet.errors), 0, 0),
        "burn at three o'clock": Claim(burn(broken.errors), PAGE, 200),
        "failed attempts at the upstream hosted": Claim(broken.failed["hosted"], 5, 200),
        "failed attempts at the upstream spare": Claim(broken.failed["spare"], 0, 0),
        "open breakers of hosted": Claim(broken.opened["hosted"], 1, 1),
        "requests that still asked hosted, of 40": Claim(broken.failed["hosted"] / 2, 2, 20),
        "burn after the label moved": Claim(burn(mended.errors), 0, 0),
        "share of the month's budget, had it lasted 10 minutes": Claim(
            budget_spent(broken.errors, 10), 0.04, 0.05
        ),
    }


EXERCISES = (
    Exercise(
        "Which upstream do the attempts accuse?", "hosted", lambda: suspect(night()["broken"])
    ),
    Exercise(
        "And after the label moved, while hosted is still away?",
        "",
        lambda: suspect(night()["mended"]),
    ),
    Exercise(
        "At a burn of 14.4, after how many hours is 2 % of the month's budget gone?",
        1,
        lambda: round(0.02 * MONTH_MIN / PAGE / 60),
    ),
    Exercise(
        "Half of all requests fail. After how many minutes is the month's budget gone?",
        432,
        lambda: round(MONTH_MIN / burn(0.5)),
    ),
)
