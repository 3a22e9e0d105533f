"""An emulated machine answers under the names that it is given, without any weights."""

from pathlib import Path

import pytest

from .conftest import running

PROFILE = Path(__file__).parents[3] / "ops" / "profiles" / "h100-llama-8b.toml"
CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "say this"}]}


@pytest.fixture(scope="module")
def emulated():
    names = {"model": "smollm2", "embedder": "minilm"}
    with running(profile=PROFILE, engine={"num_blocks": 1000, "seed": 1}, **names) as server:
        yield server


def test_it_says_what_it_was_told(emulated):
    reply = emulated.http.post("/v1/chat/completions", json=CHAT).json()
    assert reply["choices"][0]["message"]["content"] == "say this"
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert emulated.metric("generation_tokens_total") > 0


def test_it_embeds(emulated):
    reply = emulated.http.post("/v1/embeddings", json={"model": "minilm", "input": "a"})
    assert len(reply.json()["data"][0]["embedding"]) > 8
    assert [card["id"] for card in emulated.http.get("/v1/models").json()["data"]] == [
        "smollm2",
        "minilm",
    ]


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    "more",
    [
        {"logprobs": True},
        {"logit_bias": {"1": 5}},
        {"response_format": {"type": "json_object"}},
        {"tool_choice": "required", "tools": [TOOL]},
    ],
)
def test_what_only_a_network_could_do_is_refused(emulated, more):
    reply = emulated.http.post("/v1/chat/completions", json=CHAT | more)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == next(iter(more))


def test_a_model_is_asked_for_what_it_does(emulated):
    for path, model, more in (
        ("chat/completions", "minilm", {"messages": CHAT["messages"]}),
        ("completions", "minilm", {"prompt": "a"}),
        ("embeddings", "smollm2", {"input": "a"}),
    ):
        reply = emulated.http.post(f"/v1/{path}", json={"model": model, **more})
        error = reply.json()["error"]
        assert (reply.status_code, error["param"], error["code"]) == (400, "model", "wrong_model")
        assert f"'{model}'" in error["message"]
