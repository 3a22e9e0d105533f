"""Admission and settlement: what is reserved before a request costs anything is settled after it,
exactly once, however the request ends.

Which limits hold for a request is decided here; how they count is `limits`', what is kept of it
is `ledger`'s.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence

from gateway.budgets import over_soft, with_budgets
from gateway.call import Call, Principal
from gateway.charges import charge, worst
from gateway.counting import prompt_bound
from gateway.errors import ClientGone, GatewayError, QuotaExhausted, RateLimited, Unavailable
from gateway.limits import (
    NOTHING,
    Amounts,
    Grant,
    QueuePolicy,
    Refusal,
    Rule,
    demands_for,
    rate_headers,
)
from gateway.plan import as_answer, targets_of
from gateway.setup import Setup
from gateway.state import State
from gateway.store.mirror import Mirror
from gateway.store.usage import Row
from gateway.upstream import UpstreamError


class Admitted:
    """Leave to go on, to be settled at the end of `async with`."""

    def __init__(self, call: Call, setup: Setup, state: State) -> None:
        self._call = call
        self._setup = setup
        self._state = state

    async def __aenter__(self) -> None:
        """Raises RateLimited and its like before anything is spent."""
        self._grant, self._row = await _reserve(self._call, self._setup, self._state)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """An upstream's failure leaves as what the client hears of it."""
        call, state = self._call, self._state
        call.mark("answer")
        answer = as_answer(error) if isinstance(error, UpstreamError) else error
        _conclude(call, answer)
        cost = charge(call)
        state.ledger.settle(self._row, call, cost)
        call.mark("settle")
        release = self._setup.config.releases[call.release]
        state.metrics.observe(call, cost, release.upstream)
        state.traces.take(call, cost, self._row.id)
        used = Amounts(tokens=call.usage.prompt + call.usage.completion, cost=cost)
        await state.admission.settle(self._grant, used)
        if answer is not None and answer is not error:
            raise answer from error


def _conclude(call: Call, answer: BaseException | None) -> None:
    """What a call ended in; why one was cancelled is known to who cancelled it."""
    if answer is None:
        call.outcome, call.status = "ok", 200
    elif isinstance(answer, GatewayError):
        call.outcome, call.status = answer.code or answer.type, answer.status
    elif isinstance(answer, Exception):
        call.outcome, call.status = "internal_error", GatewayError.status
    elif call.outcome == "running":
        call.outcome, call.status = "cancelled", ClientGone.status


async def _reserve(call: Call, setup: Setup, state: State) -> tuple[Grant, Row]:
    """The upper bound under every limit, and a line in the journal; or neither."""
    targets = targets_of(call, setup)
    release = setup.config.releases[call.release]
    call.bound_tokens = await prompt_bound(call, targets[0])
    prompt = call.bound_tokens + release.context_budget
    completion = call.num_choices * (call.max_tokens or release.default_max_tokens)
    if call.route == "embeddings":
        completion = 0
    bound = Amounts(tokens=prompt + completion, cost=worst(targets, prompt, completion))
    demands = demands_for(_subjects(call.principal, call.family, setup, state.mirror), bound)
    family = setup.config.families[call.family]
    queue = QueuePolicy(call.family, family.queue, family.queue_s) if family.queue else None
    outcome = await state.admission.reserve(demands, queue)
    state.metrics.decide(outcome)
    if isinstance(outcome, Refusal):
        raise _refusal(outcome)
    call.reply_headers += rate_headers(outcome)
    for budget in over_soft(outcome, state.mirror.budgets):
        subject = budget.subject.partition(":")[0]
        state.metrics.soft_budgets.labels(subject).inc()
        call.reply_headers.append(
            ("x-glassgate-budget", f"over the {budget.period} of the {subject}")
        )
    try:
        return outcome, state.ledger.begin(call, worst(targets, call.bound_tokens, 0))
    except GatewayError:
        await state.admission.settle(outcome, NOTHING)
        raise


@contextlib.asynccontextmanager
async def counted(who: Principal, state: State) -> AsyncIterator[None]:
    """A request that no model answers: it counts and takes a slot. Raises RateLimited."""
    demands = demands_for(_subjects(who, "", state.setup, state.mirror), Amounts())
    outcome = await state.admission.reserve(demands)
    state.metrics.decide(outcome)
    if isinstance(outcome, Refusal):
        raise _refusal(outcome)
    try:
        yield
    finally:
        await state.admission.settle(outcome, Amounts())


def _subjects(
    who: Principal, family: str, setup: Setup, mirror: Mirror
) -> Iterator[tuple[str, Sequence[Rule]]]:
    """Who is counted, and by which rules: everybody, the family (if any), the team, the key."""
    config = setup.config
    team = mirror.teams.get(who.team)
    for subject, limits in (
        ("global", config.server.limits),
        (f"family:{family}", config.families[family].limits if family else ""),
        (f"team:{who.team}", team.limits if team else ""),
        (f"key:{who.key_id}", who.limits or config.server.key_limits),
    ):
        if limits and limits not in setup.rules:
            raise Unavailable(f"{subject} has limits {limits!r}, which are not defined")
        rules = setup.rules.get(limits, ())
        budgets = mirror.budgets.get(subject)
        yield subject, with_budgets(rules, budgets) if budgets else rules


def _refusal(refusal: Refusal) -> GatewayError:
    headers = rate_headers(refusal)
    if refusal.reason in ("silent", "full"):
        return Unavailable(refusal.message, retry_after_s=refusal.retry_after_s or 1.0)
    if refusal.demand.rule.limit_class == "spend":
        return QuotaExhausted(refusal.message, headers=headers)
    return RateLimited(refusal.message, headers=headers)
