"""An eval of three cases, and a gateway that says what it is told to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.evals.client import Reply, Unanswered
from gateway.evals.definition import Eval
from gateway.store import Store

Post = Callable[[str, dict[str, Any]], dict[str, Any]]


class Script:
    """A `Client` without a network: `post(path, body)` gives the body of each reply."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def post(self, path: str, body: dict[str, Any]) -> Reply:
        self.asked.append((path, body))
        return Reply(self._post(path, body), 10, 2, 30, 1000)

    async def releases(self) -> dict[str, str]:
        return {"town": "town-1"}


def said(text: str, **more: Any) -> dict[str, Any]:
    """The body of a chat answer."""
    return {"choices": [{"message": {"content": text, **more}}]}


def capital(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Knows two capitals; "town@town-1" knows one, and Norway breaks it."""
    text = body["messages"][-1]["content"]
    if "Norway" in text:
        raise Unanswered("the upstream is gone")
    known = "Paris" if "France" in text else "Rome" if body["model"] != "town@town-1" else "no idea"
    return said(f"It is {known}.")


@pytest.fixture
def script() -> Callable[[Post], Script]:
    return Script


@pytest.fixture
def knows_capitals() -> Script:
    return Script(capital)


@pytest.fixture
def say() -> Callable[..., dict[str, Any]]:
    return said


@pytest.fixture
def capitals() -> Eval:
    tree = {
        "name": "capitals",
        "targets": {"old": {"model": "town"}, "new": {"model": "city"}},
        "graders": {"contains": {"kind": "contains"}, "f1": {"kind": "token_f1", "weight": 0.5}},
        "cases": [
            {"id": "fr", "question": "The capital of France?", "expected": ["Paris"]},
            {"id": "it", "question": "The capital of Italy?", "expected": ["Rome"], "tags": ["s"]},
        ],
        "comparison": {"baseline": "old", "candidate": "new"},
    }
    return msgspec.convert(tree, Eval)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path}/store.db")
    yield opened
    opened.close()
