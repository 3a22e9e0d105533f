"""Rows and their daily sums agree, whatever is written twice."""

import datetime
from collections import Counter
from decimal import Decimal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.store import Store, usage
from gateway.store.audit import By
from gateway.store.keys import OPERATOR, NewKey, create
from gateway.store.tables import ledger, usage_daily
from gateway.store.teams import NewBudget, put_budget
from gateway.store.usage import Row

DAY = datetime.date(2026, 3, 1)
DAY_MS = 86_400_000
START = int(datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC).timestamp() * 1000)


def row(number: int, day: int = 0, **fields: object) -> Row:
    at = START + day * DAY_MS + number
    base = Row(
        id=f"{at:012x}{number:04}",
        request_id=f"r{number}",
        started_at=at,
        route="chat",
        key="k1",
        team="t1",
        family="f1",
        release="f1-1",
        prompt_tokens=10,
        completion_tokens=5,
        cost=7,
        outcome="ok",
        usage_source="upstream",
    )
    return msgspec.structs.replace(base, **fields)


def test_report_by_each_dimension(store: Store) -> None:
    rows = [
        row(1),
        row(2, key="k2", cost=100),
        row(3, team="t2", family="f2", release="f2-1", outcome="upstream_error"),
        row(4, day=1, usage_source="estimated", cached_tokens=4),
        row(5, day=9),
    ]
    with store.begin(write=True) as connection:
        key, _ = create(connection, By("test"), OPERATOR, NewKey(name="alice"))
        rows.append(row(6, key=key.id, cost=1))
        assert usage.post(connection, rows) == 6
        until = DAY + datetime.timedelta(days=1)

        def names(by: usage.Dimension) -> list[str]:
            return [line.name for line in usage.report(connection, by, DAY, until)]

        assert names("day") == ["2026-03-01", "2026-03-02"]
        assert names("key") == ["k2", "k1", key.id]
        assert names("team") == ["t1", "t2"]
        assert names("release") == ["f1-1", "f2-1"]
        by_key = usage.report(connection, "key", DAY, until)
        assert by_key[-1].title == "alice"
        (second,) = usage.report(connection, "day", until, until)
        assert (second.requests, second.estimated, second.cached_tokens) == (1, 1, 4)
        (wrong,) = usage.report(connection, "family", DAY, until, {"team": "t2"})
        assert (wrong.errors, wrong.prompt_tokens, wrong.cost) == (1, 10, 7)
        with pytest.raises(BadRequest):
            usage.report(connection, "day", DAY, DAY, {"user": "x"})


def test_report_by_step(store: Store) -> None:
    hour = START // 1000 + 3600
    late = [
        (hour - 1, 1),
        (hour, 2),
        (hour + 59, 3),
        (hour + 60, 4),
        (hour + 179, 5),
        (hour + 180, 6),
    ]
    rows = [row(0, id=f"{at * 1000:012x}-{n}", started_at=at * 1000, cost=n) for at, n in late]
    rows[1].outcome, rows[2].outcome, rows[2].team = "upstream_error", "client_gone", "t2"
    with store.begin(write=True) as connection:
        usage.post(connection, rows)
        found = usage.report_steps(connection, hour, 60, 3)
        assert [(it.name, it.requests, it.errors, it.cost) for it in found] == [
            ("2026-03-01T01:00:00Z", 2, 1, 5),
            ("2026-03-01T01:01:00Z", 1, 0, 4),
            ("2026-03-01T01:02:00Z", 1, 0, 5),
        ]
        assert (found[0].prompt_tokens, found[0].completion_tokens) == (20, 10)
        (line,) = usage.report_steps(connection, hour, 60, 3, {"team": "t2"})
        assert (line.name, line.requests, line.cost) == ("2026-03-01T01:00:00Z", 1, 3)
        with pytest.raises(BadRequest):
            usage.report_steps(connection, hour, 60, 3, {"user": "x"})


def test_steps_of_a_day_are_the_sums_that_stay(store: Store) -> None:
    with store.begin(write=True) as connection:
        usage.post(connection, [row(n, day=n // 2) for n in range(6)])
        expected = [(f"2026-03-{day:02}T00:00:00Z", 2) for day in (1, 2)]

        def found() -> list[tuple[str, int]]:
            lines = usage.report_steps(connection, START // 1000, 86_400, 2)
            return [(it.name, it.requests) for it in lines]

        assert found() == expected
        usage.prune(connection, "f" * 12)
        assert found() == expected


def test_spent(store: Store) -> None:
    with store.begin(write=True) as connection:
        usage.post(connection, [row(1), row(2, day=3, team="t2"), row(3, day=4, cost=2**60)])
        assert usage.spent(connection, "global", DAY) == 14 + 2**60
        assert usage.spent(connection, "team:t1", DAY) == 7 + 2**60
        assert usage.spent(connection, "key:k1", DAY + datetime.timedelta(days=1)) == 7 + 2**60
        assert usage.spent(connection, "family:none", DAY) == 0
        for new in (
            NewBudget(subject="team:t2", period="day", hard=Decimal(1)),
            NewBudget(subject="team:t2", period="month", hard=Decimal(1)),
        ):
            put_budget(connection, By("test"), new)
        today = DAY + datetime.timedelta(days=3)
        assert [spent for _, spent in usage.budgets_spent(connection, today)] == [7, 7]
        tomorrow = today + datetime.timedelta(days=1)
        assert [spent for _, spent in usage.budgets_spent(connection, tomorrow)] == [0, 7]


def test_requests_are_listed_and_forgotten_but_their_sums_stay(store: Store) -> None:
    with store.begin(write=True) as connection:
        usage.post(connection, [row(n, outcome="killed" if n % 2 else "ok") for n in range(6)])
        killed = usage.requests(connection, "killed", limit=2)
        assert [it.request_id for it in killed] == ["r5", "r3"]
        rest = usage.requests(connection, "killed", before=killed[-1].id)
        assert rest == [row(1, outcome="killed")]
        assert usage.requests(connection, "o'%(x)s\\") == []
        assert usage.prune(connection, row(3).id) == 3
        assert usage.prune(connection, row(3).id) == 0
        assert [it.request_id for it in usage.requests(connection)] == ["r5", "r4", "r3"]
        (line,) = usage.report(connection, "day", DAY, DAY)
        assert (line.requests, line.errors) == (6, 3)


batches = st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=6)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches)
def test_what_is_posted_twice_counts_once(store: Store, batches: list[list[int]]) -> None:
    with store.begin(write=True) as connection:
        connection.execute(ledger.delete())
        connection.execute(usage_daily.delete())
        seen: set[int] = set()
        for batch in batches:
            new = usage.post(connection, [row(n, day=n % 3, cost=n) for n in batch])
            assert new == len(set(batch) - seen)
            seen |= set(batch)
        lines = usage.report(connection, "day", DAY, DAY + datetime.timedelta(days=3))
        per_day = Counter(n % 3 for n in seen)
        assert [line.requests for line in lines] == [per_day[d] for d in sorted(per_day)]
        assert sum(line.cost for line in lines) == sum(seen)
