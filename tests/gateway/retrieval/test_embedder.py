"""The embedder behind an upstream: both spellings of a vector, and every way to be silent."""

import base64
from typing import Any

import numpy as np
import pytest

from gateway.retrieval.embedder import EmbedderSilent, HashedWords, UpstreamEmbedder
from gateway.retrieval.rerank import UpstreamReranker

pytestmark = pytest.mark.anyio

OVER = {
    "families": {"emb": {"labels": {"production": "emb-1"}}},
    "releases": {"emb-1": {"family": "emb", "upstream": "up"}},
    "retrieval": {"embedder": "emb"},
}


def data(*embeddings: Any) -> dict[str, Any]:
    rows = [{"index": i, "embedding": it} for i, it in enumerate(embeddings)]
    return {"object": "list", "data": rows[::-1]}


async def test_vectors_are_read_in_order_and_made_unit(open_house: Any, upstream: Any) -> None:
    packed = base64.b64encode(np.array([0, 2], "<f4").tobytes()).decode()
    async with open_house(OVER) as house:
        embedder = house.state.searcher.embedder
        assert isinstance(embedder, UpstreamEmbedder)
        assert embedder.name == "up-model@emb-1"
        upstream.body = data([3.0, 4.0], packed)
        found = await embedder.embed(["a", "b"])
        np.testing.assert_allclose(found, [[0.6, 0.8], [0, 1]], rtol=1e-6)
        assert upstream.requests[-1]["input"] == ["a", "b"]
        assert upstream.requests[-1]["model"] == "up-model"
        upstream.body = data([1.0, 0.0])
        long = "word " * 10_000
        await embedder.embed([long], is_question=True)
        assert 0 < len(upstream.requests[-1]["input"][0]) < 5000


@pytest.mark.parametrize(
    "body",
    [data([1.0]), data([1.0], [float(1), 2.0]), data("no!", "no!"), {"data": 1}, {"x": []},
     data([1e39], [1.0])],
)  # fmt: skip
async def test_what_is_no_answer_is_silence(body: Any, open_house: Any, upstream: Any) -> None:
    async with open_house(OVER) as house:
        upstream.body = body
        with pytest.raises(EmbedderSilent):
            await house.state.searcher.embedder.embed(["a", "b"])


async def test_a_failing_upstream_is_silent_and_comes_back(open_house: Any, upstream: Any) -> None:
    async with open_house(OVER) as house:
        upstream.status, upstream.body = 500, {"error": {"message": "no"}}
        with pytest.raises(EmbedderSilent):
            await house.state.searcher.embedder.embed(["a"], is_question=True)
        upstream.status, upstream.body = 200, data([1.0, 0.0])
        assert (await house.state.searcher.embedder.embed(["a"], is_question=True)).shape == (1, 2)


async def test_a_reranker_asks_for_scores(open_house: Any, upstream: Any) -> None:
    async with open_house() as house:
        reranker = UpstreamReranker(house.state.setup.targets["up"], house.state.pool)
        upstream.body = {"data": [{"index": 1, "score": 0.2}, {"index": 0, "score": 0.1}]}
        assert await reranker.scores("q", ["a", "b"]) == [0.1, 0.2]
        assert upstream.requests[-1]["text_2"] == ["a", "b"]
        assert await reranker.scores("q", ["a", "b", "c"]) is None
        upstream.status = 503
        assert await reranker.scores("q", ["a", "b"]) is None


async def test_the_fake_puts_texts_of_the_same_words_together() -> None:
    a, b, c = await HashedWords().embed(["green tea", "tea, green", "moon"])
    assert a @ b == pytest.approx(1.0, abs=1e-5)
    assert abs(a @ c) < 0.6
