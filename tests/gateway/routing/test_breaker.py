"""When a breaker opens, and what it takes to close it again."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.config import BreakerPolicy
from gateway.routing.breaker import NUM_BUCKETS, Breaker

POLICY = BreakerPolicy()


def opened() -> Breaker:
    breaker = Breaker(POLICY)
    for _ in range(POLICY.silences):
        breaker.failed(0.0, is_silent=True)
    assert breaker.state == "open"
    return breaker


def test_opens_on_error_rate() -> None:
    breaker = Breaker(POLICY)
    for i in range(10):
        (breaker.succeeded if i % 2 else breaker.failed)(float(i))
    assert breaker.state == "open"
    assert not breaker.admits


def test_a_few_failures_among_many_successes_are_none() -> None:
    breaker = Breaker(POLICY)
    for i in range(400):
        (breaker.failed if i % 4 == 0 else breaker.succeeded)(i / 10)
    assert breaker.state == "closed"


def test_a_full_window_of_success_hides_no_outage() -> None:
    breaker = Breaker(POLICY)
    for i in range(3000):
        breaker.succeeded(i / 100)
    for _ in range(POLICY.failures_in_a_row):
        assert breaker.state == "closed"
        breaker.failed(30.0)
    assert breaker.state == "open"


def test_old_failures_do_not_count() -> None:
    breaker = Breaker(POLICY)
    for i in range(POLICY.failures_in_a_row - 1):
        breaker.failed(i * POLICY.window_s / (POLICY.min_failures - 2))
    assert breaker.state == "closed"


def test_opens_on_silence_in_a_row() -> None:
    breaker = Breaker(POLICY)
    for _ in range(POLICY.silences - 1):
        breaker.failed(0.0, is_silent=True)
    breaker.succeeded(0.0)
    for _ in range(POLICY.silences - 1):
        breaker.failed(0.0, is_silent=True)
    assert breaker.state == "closed"
    breaker.failed(0.0, is_silent=True)
    assert breaker.state == "open"


def test_one_trial_decides() -> None:
    breaker = opened()
    breaker.probed(is_alive=True)
    assert breaker.take()
    assert not breaker.admits
    breaker.succeeded(1.0)  # an attempt from before: not the trial
    assert breaker.state == "half_open"
    breaker.succeeded(1.0, is_trial=True)
    assert breaker.state == "closed"
    assert not breaker.take()


def test_an_abandoned_trial_is_given_again() -> None:
    breaker = opened()
    breaker.probed(is_alive=True)
    breaker.take()
    breaker.abandoned(is_trial=True)
    assert breaker.take()


def test_cooldown_doubles_up_to_its_bound_and_starts_anew() -> None:
    breaker = opened()
    assert breaker.cooldown == POLICY.cooldown_s
    breaker.probed(is_alive=False)
    assert breaker.cooldown == 2 * POLICY.cooldown_s
    for _ in range(10):  # alive, says its model list, but every trial fails
        breaker.probed(is_alive=True)
        breaker.failed(1.0, is_trial=breaker.take())
        assert breaker.state == "open"
    assert breaker.cooldown == POLICY.cooldown_max_s
    breaker.probed(is_alive=True)
    breaker.succeeded(2.0, is_trial=breaker.take())
    assert breaker.cooldown == POLICY.cooldown_s


@given(st.lists(st.tuples(st.sampled_from("sfFpPat"), st.floats(0, 20)), max_size=200))
def test_state_stays_small_and_sound(events: list[tuple[str, float]]) -> None:
    breaker, now, trials = Breaker(POLICY), 0.0, 0
    for what, passed in events:
        now += passed
        if what == "s":
            breaker.succeeded(now)
        elif what in "fF":
            breaker.failed(now, is_silent=what == "F")
        elif what in "pP":
            breaker.probed(is_alive=what == "P")
        elif what == "t" and breaker.admits and breaker.take():
            trials += 1
            assert not breaker.admits
        elif what == "a" and trials:
            trials -= 1
            breaker.abandoned(is_trial=True)
        assert len(breaker._buckets) <= NUM_BUCKETS
        assert POLICY.cooldown_s <= breaker.cooldown <= POLICY.cooldown_max_s
        assert breaker.admits or breaker.state != "closed"
