"""Embeddings and what is made of them."""

import base64
import itertools
import threading

import numpy as np
import openai
import pytest

MODEL = "tiny-random"


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def embed(client, texts, **more):
    return client.embeddings.create(model=MODEL, input=texts, **more)


def test_unit_vectors_in_the_order_of_the_texts(client):
    texts = ["a cat", "", "déjà vu", "a cat"]
    reply = embed(client, texts, encoding_format="float")
    vectors = np.array([one.embedding for one in reply.data])
    assert [one.index for one in reply.data] == [0, 1, 2, 3]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors[0] == pytest.approx(vectors[3], abs=1e-6)
    alone = embed(client, "déjà vu", encoding_format="float").data[0].embedding
    assert vectors[2] == pytest.approx(alone, abs=1e-5)
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 0


def test_base64_is_little_endian_float32(server, client):
    body = {"model": MODEL, "input": "a cat", "encoding_format": "base64"}
    data = server.http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    vector = np.frombuffer(base64.b64decode(data), "<f4")
    floats = embed(client, "a cat", encoding_format="float").data[0].embedding
    assert vector == pytest.approx(floats, abs=1e-6)


def test_token_ids_are_texts_too(server, client):
    ids = server.served.embedder.tokenizer.encode("a cat", add_special_tokens=True)
    by_ids = embed(client, [ids, ids], encoding_format="float").data[1].embedding
    by_text = embed(client, "a cat", encoding_format="float").data[0].embedding
    assert by_ids == pytest.approx(by_text, abs=1e-6)


def test_the_only_number_of_dimensions(server, client):
    width = server.served.embedder.config.hidden_size
    assert (
        len(embed(client, "a", dimensions=width, encoding_format="float").data[0].embedding)
        == width
    )


@pytest.mark.parametrize(
    ("texts", "more", "param"),
    [
        ("a", {"dimensions": 7}, "dimensions"),
        ([], {}, "input"),
        (["a", 1], {}, "input"),
        ([[]], {}, "input[0]"),
        ([[10**6]], {}, "input[0]"),
        (["a", "x " * 5000], {}, "input[1]"),
        ("a", {"encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_what_is_not_honoured_is_refused(client, texts, more, param):
    with pytest.raises(openai.BadRequestError) as caught:
        embed(client, texts, **more)
    assert caught.value.param == param


def test_a_long_text_is_cut_only_if_asked(server, client):
    longest = server.served.embedder.config.max_tokens
    cut = embed(client, "x " * 5000, extra_body={"truncate_prompt_tokens": -1})
    assert cut.usage.prompt_tokens == longest
    short = embed(client, "x " * 5000, extra_body={"truncate_prompt_tokens": 9})
    assert short.usage.prompt_tokens == 9


def test_models_are_listed(server, client):
    cards = {card.id: card for card in client.models.list()}
    assert MODEL in cards
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other/model")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="text-embedding-3-small", input="a")


def test_neither_kind_of_work_starves_the_other(server, client):
    """While many texts wait, an answer is generated; and while it is, the texts are embedded."""
    done = threading.Event()

    def embed_much():
        embed(client, ["x " * 60] * 100)
        done.set()

    def chunks():
        for _ in range(50):  # as many answers as it takes, but for one that never ends
            yield from client.completions.create(
                model=MODEL, prompt="a", max_tokens=1500, stream=True,
                extra_body={"ignore_eos": True},
            )  # fmt: skip

    stream = chunks()
    next(stream)
    thread = threading.Thread(target=embed_much)
    thread.start()
    num_before = sum(1 for _ in itertools.takewhile(lambda _: not done.is_set(), stream))
    assert done.is_set()
    assert num_before > 10
    stream.close()
    thread.join()


def test_scores_and_ranks(server):
    texts = ["a cat", "quantum fields", "a cat sat"]
    body = {"model": MODEL, "text_1": "a cat", "text_2": texts}
    scored = server.http.post("/v1/score", json=body).json()
    assert scored["data"][0]["score"] == pytest.approx(1, abs=1e-5)
    pairs = {"model": MODEL, "text_1": texts, "text_2": texts}
    diagonal = server.http.post("/v1/score", json=pairs).json()["data"]
    assert [one["score"] for one in diagonal] == pytest.approx([1, 1, 1], abs=1e-5)
    ranked = server.http.post(
        "/rerank", json={"model": MODEL, "query": "a cat", "documents": texts, "top_n": 2}
    ).json()["results"]
    assert ranked[0]["index"] == 0
    assert ranked[0]["document"] == {"text": "a cat"}
    assert len(ranked) == 2
    assert ranked[0]["relevance_score"] >= ranked[1]["relevance_score"]
    wrong = server.http.post("/v1/score", json=body | {"text_1": ["a", "b"]})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "text_2")
