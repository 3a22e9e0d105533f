"""Labels move, weights are replaced, and the audit says who did it."""

import asyncio

import pytest

from gateway.errors import BadRequest, NotFound
from gateway.store import Store, audit, labels
from gateway.store.audit import By

ME = By("alice", "the new one is better")


def test_promote_and_roll_back(store: Store) -> None:
    with store.begin(write=True) as connection:
        labels.promote(connection, ME, "release", "chat", "production", "chat-1")
        moved = labels.promote(connection, ME, "release", "chat", "production", "chat-2")
        assert (moved.target, moved.previous) == ("chat-2", "chat-1")
        same = labels.promote(connection, ME, "release", "chat", "production", "chat-2")
        assert same == moved
        back = labels.rollback(
            connection, By("bob", "it stutters"), "release", "chat", "production"
        )
        assert (back.target, back.previous) == ("chat-1", None)
        with pytest.raises(BadRequest, match="nothing to roll back to"):
            labels.rollback(connection, ME, "release", "chat", "production")
        with pytest.raises(NotFound):
            labels.rollback(connection, ME, "release", "chat", "canary")
        assert labels.all_labels(connection) == [back]
        told = [
            (it.actor, it.action, it.before, it.after, it.why)
            for it in audit.entries(connection, "chat@production")
        ]
        assert told == [
            ("bob", "label.rollback", "chat-2", "chat-1", "it stutters"),
            ("alice", "label.promote", "chat-1", "chat-2", "the new one is better"),
            ("alice", "label.promote", "", "chat-1", "the new one is better"),
        ]


def test_labels_of_prompts_are_others(store: Store) -> None:
    with store.begin(write=True) as connection:
        labels.promote(connection, ME, "release", "x", "production", "x-1")
        labels.promote(connection, ME, "prompt", "x", "production", "7")
        assert {(it.kind, it.target) for it in labels.all_labels(connection)} == {
            ("release", "x-1"),
            ("prompt", "7"),
        }


def test_of_two_who_roll_back_at_once_one_does(store: Store, url: str) -> None:
    other = Store.open(url)
    with store.begin(write=True) as connection:
        for release in ("1", "2"):
            labels.promote(connection, ME, "release", "chat", "production", release)

    async def scene() -> list[object]:
        args = (ME, "release", "chat", "production")
        return await asyncio.gather(
            *(it.write(labels.rollback, *args) for it in (store, other)),  # type: ignore[arg-type]
            return_exceptions=True,
        )

    kinds = {type(outcome) for outcome in asyncio.run(scene())}
    other.close()
    assert kinds == {labels.Label, BadRequest}


def test_weights(store: Store) -> None:
    with store.begin(write=True) as connection:
        labels.set_weights(connection, ME, "chat", {"production": 95, "canary": 5})
        labels.set_weights(connection, ME, "other", {"production": 1})
        labels.set_weights(connection, ME, "chat", {"production": 0.5, "next": 0.5})
        assert labels.all_weights(connection) == {
            "chat": {"next": 0.5, "production": 0.5},
            "other": {"production": 1},
        }
        newest = audit.entries(connection, "chat")[0]
        assert (newest.before, newest.after) == (
            "canary=5 production=95",
            "next=0.5 production=0.5",
        )
        for wrong in (
            {},
            {"a": 0.0},
            {"a": -1.0, "b": 2.0},
            {"a": float("nan")},
            {"a": 1e308, "b": 1e308},
        ):
            with pytest.raises(BadRequest) as caught:
                labels.set_weights(connection, ME, "chat", wrong)
            assert caught.value.param == "weights"


def test_the_audit_is_read_page_by_page(store: Store) -> None:
    with store.begin(write=True) as connection:
        for n in range(5):
            audit.record(connection, ME, "test", str(n))
        first = audit.entries(connection, limit=3)
        rest = audit.entries(connection, before=str(first[-1].id), limit=3)
        assert [it.subject for it in [*first, *rest]] == ["4", "3", "2", "1", "0"]
        with pytest.raises(BadRequest):
            audit.entries(connection, before="x")
