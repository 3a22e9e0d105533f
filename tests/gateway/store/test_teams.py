"""Teams and budgets."""

from decimal import Decimal

import pytest

from gateway.errors import BadRequest, NotFound
from gateway.store import Store, audit, keys, teams
from gateway.store.audit import By
from gateway.store.teams import NewBudget

ME = By("test")


def test_a_team_with_keys_stays(store: Store) -> None:
    with store.begin(write=True) as connection:
        made = teams.put_team(connection, ME, "search", "small")
        changed = teams.put_team(connection, ME, "search", "large")
        assert (changed.limits, changed.created_at) == ("large", made.created_at)
        key, _ = keys.create(connection, ME, keys.OPERATOR, keys.NewKey(name="k", team="search"))
        with pytest.raises(BadRequest, match="still has keys"):
            teams.delete_team(connection, ME, "search")
        keys.revoke(connection, ME, key.id)
        teams.delete_team(connection, ME, "search")
        assert teams.all_teams(connection) == []
        with pytest.raises(NotFound):
            teams.delete_team(connection, ME, "search")


def test_budgets_are_set_and_removed(store: Store) -> None:
    with store.begin(write=True) as connection:
        new = NewBudget(subject="team:a", period="month", soft=Decimal("10"), hard=Decimal("12.5"))
        budget = teams.put_budget(connection, ME, new)
        assert (budget.soft, budget.hard) == (10 * 10**9, 12_500_000_000)
        assert teams.all_budgets(connection) == [budget]
        assert audit.entries(connection)[0].after == "month: soft 10, hard 12.5"
        teams.put_budget(connection, ME, NewBudget(subject="team:a", period="month"))
        assert teams.all_budgets(connection) == []
        assert audit.entries(connection)[0].before == "month: soft 10, hard 12.5"


@pytest.mark.parametrize(
    ("subject", "hard", "param"),
    [
        ("nobody", "1", "subject"),
        ("user:x", "1", "subject"),
        ("team:", "1", "subject"),
        ("global", "-1", "hard"),
        ("global", "NaN", "hard"),
    ],
)
def test_wrong_budgets_are_refused(store: Store, subject: str, hard: str, param: str) -> None:
    new = NewBudget(subject=subject, period="day", hard=Decimal(hard))
    with store.begin(write=True) as connection, pytest.raises(BadRequest) as caught:
        teams.put_budget(connection, ME, new)
    assert caught.value.param == param
