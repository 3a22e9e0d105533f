"""A run: each place is asked once, errors are asked anew, and nothing that is kept is lost."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gateway.errors import NotFound
from gateway.evals.definition import Eval
from gateway.evals.run import Asked, carry_out, places_left, prepare
from gateway.evals.runs import list_runs, read_items, read_run
from gateway.evals.scores import columns
from gateway.store import Store


def finished(store: Store, client: Any, it: Eval) -> tuple[Any, list[Any]]:
    async def go() -> Any:
        run = await prepare(store, client, it)
        await carry_out(store, client, run, concurrency=3)
        return run.id

    run = asyncio.run(go())
    with store.begin() as connection:
        return read_run(connection, run), read_items(connection, run)


def test_every_case_by_every_target(store: Store, knows_capitals: Any, capitals: Eval) -> None:
    run, items = finished(store, knows_capitals, msgspec.structs.replace(capitals, samples=2))
    assert run.finished_at is not None
    assert len(items) == 8
    found = columns(run, items)
    assert found["new"].by_grader["contains"] == {"fr": 1, "it": 1}
    assert found["old"].by_grader["contains"] == {"fr": 1, "it": 0}
    assert found["new"].total["fr"] == pytest.approx((1 + 0.5 * 0.5) / 1.5)
    assert (found["old"].cost, found["old"].tokens, found["old"].seconds) == (30, 12, 0.001)
    assert sorted({body["seed"] for _, body in knows_capitals.asked}) == [0, 1]


def test_the_release_of_the_beginning_is_asked_to_the_end(
    store: Store, knows_capitals: Any, capitals: Eval
) -> None:
    run, _ = finished(store, knows_capitals, capitals)
    assert run.releases == {"town": "town-1"}
    assert {body["model"] for _, body in knows_capitals.asked} == {"town@town-1", "city"}


def test_only_what_is_left_is_asked(store: Store, script: Any, say: Any, capitals: Eval) -> None:
    class Killed(Exception):
        pass

    count = 0

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        nonlocal count
        count += 1
        if count == 3:
            raise Killed
        return say("Paris")  # type: ignore[no-any-return]

    with pytest.raises(ExceptionGroup):
        asyncio.run(_carry(store, script(post), capitals))
    client = script(lambda path, body: say("Rome"))
    run, items = finished(store, client, capitals)
    assert len(client.asked) == 2
    assert sorted(it.answer for it in items) == ["Paris", "Paris", "Rome", "Rome"]
    assert finished(store, client, capitals)[0].id != run.id  # what is finished stays


async def _carry(store: Store, client: Any, it: Eval) -> None:
    await carry_out(store, client, await prepare(store, client, it), concurrency=1)


def test_errors_are_no_scores_and_are_asked_anew(
    store: Store, knows_capitals: Any, script: Any, say: Callable[..., Any], capitals: Eval
) -> None:
    lost = msgspec.structs.replace(capitals.cases[0], id="no", question="Norway?")
    it = msgspec.structs.replace(capitals, cases=(*capitals.cases, lost))
    run, items = finished(store, knows_capitals, it)
    assert run.finished_at is None
    assert [x.error for x in items if x.case == "no"] == ["the upstream is gone"] * 2
    assert columns(run, items)["old"].num_errors == 1
    assert "no" not in columns(run, items)["old"].total
    assert len(asyncio.run(places_left(store, run))) == 2
    again, items = finished(store, script(lambda path, body: say("Oslo")), it)
    assert again.id == run.id
    assert again.finished_at is not None
    assert not any(x.error for x in items)


def test_a_reply_of_another_form_is_an_error_of_its_case(
    store: Store, script: Any, capitals: Eval
) -> None:
    _, items = finished(store, script(lambda path, body: {"choices": []}), capitals)
    assert all("not of the form" in it.error for it in items)


def test_what_is_sent(script: Any, say: Any, capitals: Eval, store: Store) -> None:
    target = {"model": "town", "system": "Be brief.", "prompt": {"id": "p", "version": "2"},
              "body": {"temperature": 0, "seed": 5}}  # fmt: skip
    tree = msgspec.to_builtins(capitals) | {"targets": {"only": target}, "comparison": {}}
    it = msgspec.convert(tree, Eval)
    notes = [{"type": "file_citation", "filename": "a.txt"}, {"type": "other"}]
    client = script(lambda path, body: say("x", annotations=notes))

    async def go() -> Any:
        run = await prepare(store, client, it)
        case = msgspec.structs.replace(it.cases[0], fields={"mood": "good"})
        return await Asked(client, run, "only").answer(case, 2)

    answer = asyncio.run(go())
    assert answer.sources == {"a.txt"}
    [(path, body)] = client.asked
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "town@town-1", "temperature": 0, "seed": 7,
        "prompt": {"id": "p", "version": "2", "variables": {"mood": "good"}},
        "messages": [{"role": "system", "content": "Be brief."},
                     {"role": "user", "content": "The capital of France?"}],
    }  # fmt: skip


def test_likelihoods_are_of_echoed_text(store: Store, script: Any, capitals: Eval) -> None:
    logprobs = {"text_offset": [0, 1], "tokens": ["a", " b"], "token_logprobs": [None, -1.5]}
    client = script(lambda path, body: {"choices": [{"logprobs": logprobs}]})

    async def go() -> Any:
        run = await prepare(store, client, capitals)
        return await Asked(client, run, "old").likelihoods(["a"], [" b"])

    assert asyncio.run(go()) == [[-1.5]]
    [(path, body)] = client.asked
    assert path == "/v1/completions"
    assert (body["prompt"], body["echo"], body["max_tokens"]) == (["a b"], True, 0)


def test_formats_are_targets_of_their_own(store: Store, script: Any, say: Any) -> None:
    task = {"instruction": "Judge.", "inputs": ["text"], "output": "mood"}
    case = {"id": "1", "fields": {"text": "Fine day"}, "expected": ["glad"]}
    it = msgspec.convert(
        {"name": "f", "targets": {"a": {"model": "town"}}, "graders": {"e": {"kind": "exact"}},
         "cases": [case], "formats": {"task": task, "count": 3}}, Eval)  # fmt: skip
    client = script(lambda path, body: say("glad"))
    _, items = finished(store, client, it)
    assert {x.target for x in items} == {"a#0", "a#1", "a#2"}
    assert len({str(body["messages"]) for _, body in client.asked}) == 3


def test_runs_are_listed(store: Store, knows_capitals: Any, capitals: Eval) -> None:
    run, _ = finished(store, knows_capitals, capitals)
    with store.begin() as connection:
        [row] = list_runs(connection)
        with pytest.raises(NotFound):
            read_run(connection, "nope")
    assert (row["id"], row["name"], row["items"]) == (run.id, "capitals", 4)
