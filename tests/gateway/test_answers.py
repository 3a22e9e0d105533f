"""The answer cache on the road: who is served what, what it costs, what is never shared."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.store import labels
from gateway.store.audit import By
from gateway.store.keys import OPERATOR, NewKey, create

pytestmark = pytest.mark.anyio

CANARY = {"releases": {"town-2": {"family": "town", "upstream": "up", "default_max_tokens": 64}}}


async def status(house: Any, **more: Any) -> str:
    reply = await house.chat(**{"temperature": 0, **more})
    assert reply.status == 200
    if more.get("stream"):
        await reply.read()
    return str(reply.headers["x-cache"])


async def test_the_same_request_is_answered_once_and_costs_once(open_house: Any) -> None:
    async with open_house() as house:
        assert [await status(house) for _ in range(2)] == ["miss", "hit"]
        assert await status(house, user="other", cache={"max_age": 60}) == "hit"
        assert await status(house, seed=1) == "miss"
        assert await status(house, temperature=0.5) == "bypass"
        assert await status(house, headers={"cache-control": "no-store"}) == "bypass"
        assert await status(house, cache={"no_cache": True}) == "miss"
        assert "cache" not in house.upstream.requests[-1]
        first, second, *_ = await house.rows()
        assert (first["target"], first["prompt_tokens"]) == ("up", 7)
        assert (second["target"], second["prompt_tokens"], second["outcome"]) == ("", 0, "ok")
        assert (first["usage_source"], second["usage_source"]) == ("upstream", "none")
        text = await (await house.http.get(f"{house.url}/metrics")).text()
        assert 'glassgate_answer_cache_look_ups_total{status="hit"} 2.0' in text


async def test_a_kept_answer_is_said_as_it_was_asked_for(open_house: Any) -> None:
    async with open_house() as house:
        streamed = await (await house.chat(temperature=0, stream=True)).text()
        again = await house.chat(temperature=0, stream=True)
        assert again.headers["x-cache"] == "hit"
        assert await again.text() == streamed
        whole = await house.chat(temperature=0)
        assert whole.headers["x-cache"] == "hit"
        body = await whole.json()
        assert body["choices"][0]["message"]["content"] == "Paris it is"
        assert body["model"] == "up-model"
        assert len(house.upstream.requests) == 1


async def test_a_candidate_never_serves_the_stable_ones_answers(open_house: Any) -> None:
    async with open_house(CANARY) as house:
        assert await status(house) == "miss"
        by = By("test", "try")
        promote = labels.promote, by, "release", "town", "production", "town-2"
        await house.state.store.write(*promote)
        await house.state.mirror.refresh()
        assert await status(house) == "miss"
        assert await status(house) == "hit"
        assert [it["max_tokens"] for it in house.upstream.requests] == [512, 64]


async def test_tenants_share_nothing(open_house: Any) -> None:
    async with open_house() as house:
        for name in ("ann", "bob"):
            _, key = await house.state.store.write(create, By("test"), OPERATOR, NewKey(name=name))
            await house.state.mirror.refresh()
            headers = {"authorization": f"Bearer {key}"}
            assert await status(house, headers=headers) == "miss"
            assert await status(house, headers=headers) == "hit"


async def test_many_at_once_make_one_request_upstream(
    open_house: Any, upstream: Any, say: Any
) -> None:
    go = asyncio.Event()
    upstream.pieces = [say.word("Paris"), go, say.FINISH, say.USAGE, say.DONE]
    async with open_house() as house:
        replies = await asyncio.gather(*(house.chat(temperature=0, stream=True) for _ in range(5)))
        go.set()
        texts = {await reply.text() for reply in replies}
        assert len(texts) == len(upstream.requests) == 1
        paid = [row["prompt_tokens"] for row in await house.rows()]
        assert sorted(paid) == [0, 0, 0, 0, 7]


async def test_a_failure_is_shared_and_not_kept(open_house: Any, upstream: Any) -> None:
    upstream.status = 400
    upstream.body = {"error": {"message": "no", "type": "invalid_request_error"}}
    async with open_house() as house:
        for _ in range(2):
            assert (await house.chat(temperature=0)).status == 400
        assert len(upstream.requests) == 2
        reply = await house.chat(temperature=0, cache={"only_if_cached": True})
        assert reply.status == 504
        assert (await reply.json())["error"]["code"] == "not_cached"


async def test_another_version_of_a_prompt_has_other_answers(
    open_house: Any, tmp_path: Path
) -> None:
    (tmp_path / "prompts").mkdir()
    for version in "12":
        text = f"---\nid: p\nversion: {version}\n---\nsystem:\nV{version}.\n{{{{ messages }}}}\n"
        (tmp_path / "prompts" / f"{version}.md").write_text(text)
    async with open_house({"prompts": {"folder": str(tmp_path / "prompts")}}) as house:
        for version in "12":
            named = {"id": "p", "version": version}
            assert [await status(house, prompt=named) for _ in range(2)] == ["miss", "hit"]
        said = [it["messages"][0]["content"] for it in house.upstream.requests]
        assert said == ["V1.", "V2."]


async def test_responses_and_embeddings_are_kept_too(open_house: Any, upstream: Any) -> None:
    async with open_house() as house:
        body = {"model": "town", "input": "capital of France?", "temperature": 0}
        texts = []
        for expected in ("miss", "hit"):
            reply = await house.http.post(f"{house.url}/v1/responses", json=body)
            assert reply.headers["x-cache"] == expected
            texts.append(json.loads(await reply.read())["output"][0]["content"])
        assert texts[0] == texts[1]
        upstream.body = {"object": "list", "data": [], "model": "e", "usage": {"prompt_tokens": 1}}
        for expected in ("miss", "hit"):
            asked = {"model": "town", "input": "a"}
            reply = await house.http.post(f"{house.url}/v1/embeddings", json=asked)
            assert reply.headers["x-cache"] == expected
            await reply.read()
