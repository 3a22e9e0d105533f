"""Runs and items of evals, as both databases keep them."""

import msgspec

from gateway.evals.definition import Eval
from gateway.evals.runs import Item, finish, list_runs, put_item, read_items, read_run, start_run
from gateway.evals.runs import unfinished as find_unfinished
from gateway.store import Store

EVAL = msgspec.convert(
    {
        "name": "e",
        "targets": {"a": {"model": "m", "body": {"temperature": 0.5}}},
        "graders": {"exact": {"kind": "exact"}, "near": {"kind": "similarity", "model": "j"}},
        "cases": [{"id": "1", "question": "? \0 é", "expected": ["y"], "swap": ["she", "he"]}],
    },
    Eval,
)  # fmt: skip
ITEM = Item(target="a", case="1", sample=0, answer="é", scores={"exact": 0.1}, cost=2**40)


def test_a_run_is_found_until_it_is_finished(store: Store) -> None:
    with store.begin(write=True) as connection:
        run = start_run(connection, EVAL, {"judge": 0.25}, {"m": "m-1"})
    with store.begin() as connection:
        assert read_run(connection, run.id) == run
        assert find_unfinished(connection, EVAL) == run
        assert find_unfinished(connection, msgspec.structs.replace(EVAL, name="f")) is None
    with store.begin(write=True) as connection:
        finish(connection, run.id)
        assert find_unfinished(connection, EVAL) is None
        assert read_run(connection, run.id).finished_at is not None


def test_a_later_try_takes_the_place_of_an_earlier(store: Store) -> None:
    with store.begin(write=True) as connection:
        run = start_run(connection, EVAL, {}, {})
        other = start_run(connection, EVAL, {}, {})
        put_item(connection, run.id, msgspec.structs.replace(ITEM, error="gone", scores={}))
        put_item(connection, run.id, ITEM)
        put_item(connection, run.id, msgspec.structs.replace(ITEM, sample=1))
        assert sorted(read_items(connection, run.id), key=lambda it: it.sample)[0] == ITEM
        counts = {it["id"]: it["items"] for it in list_runs(connection)}
    assert counts == {run.id: 2, other.id: 0}
