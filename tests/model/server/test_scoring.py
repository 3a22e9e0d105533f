"""Query likelihood: a chat model that has no embedder beside it ranks by what it would say."""

import math

import pytest

from .conftest import MODEL, running


@pytest.fixture(scope="module")
def chat_only():
    with running(embedder=None) as server:
        yield server


def test_the_score_is_the_mean_likelihood_of_the_query(chat_only):
    body = {"model": MODEL, "text_1": "cat", "text_2": ["a dog", "a cat"]}
    scores = [one["score"] for one in chat_only.http.post("/v1/score", json=body).json()["data"]]
    for score, text in zip(scores, body["text_2"], strict=True):
        echo = {"model": MODEL, "prompt": f"{text}\ncat", "max_tokens": 0, "echo": True}
        reply = chat_only.http.post("/v1/completions", json=echo | {"logprobs": 0}).json()
        logprobs = reply["choices"][0]["logprobs"]["token_logprobs"][-4:]
        assert score == pytest.approx(math.exp(sum(logprobs) / 4), rel=1e-4)
    ranked = chat_only.http.post(
        "/v1/rerank",
        json={"model": MODEL, "query": "cat", "documents": [{"text": "a dog"}, "a cat"]},
    ).json()["results"]
    assert [one["relevance_score"] for one in ranked] == sorted(scores, reverse=True)


def test_without_an_embedder_nothing_is_embedded(chat_only):
    reply = chat_only.http.post("/v1/embeddings", json={"model": MODEL, "input": "a"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "wrong_model")
    assert len(chat_only.http.get("/v1/models").json()["data"]) == 1
