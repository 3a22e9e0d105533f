"""Whatever comes in, what goes out is a 4xx that names the field, in OpenAI's form."""

import json
import socket
import urllib.error
import urllib.request

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CHAT = "/v1/chat/completions"
HELLO = {"model": "tiny-random", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
TEXTLESS = {"type": "text"}


def error(reply):
    body = reply.json()["error"]
    assert body.keys() == {"message", "type", "param", "code"}
    assert reply.headers["content-type"] == "application/json"
    return body


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": "hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [TEXTLESS]}]}, "messages[0].content[0].text"),
        ({"model": "gpt-5"}, "model"),
        ({"model": None}, "model"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"stop": [""]}, "stop"),
        ({"n": 10**6}, "n"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
    ],
)  # fmt: skip
def test_wrong_values(server, more, param):
    reply = server.http.post(CHAT, json=HELLO | more)
    assert 400 <= reply.status_code < 500
    assert error(reply)["param"] == param


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff", b"[" * 50_000, b'{"a":' * 50_000,
     b'{"model":"tiny-random","messages":[{"role":"user","content":"\\ud800"}]}',
     b'{"model":"tiny-random","messages":[{"role":"user","content":"\xed\xa0\x80"}]}'],
)  # fmt: skip
def test_what_is_no_json(server, body):
    reply = server.http.post(CHAT, content=body)
    assert reply.status_code == 400
    assert error(reply)["type"] == "invalid_request_error"


def test_nan_names_its_field(server):
    reply = server.http.post(CHAT, content=json.dumps(HELLO | {"top_p": float("nan")}))
    assert (reply.status_code, error(reply)["param"]) == (400, "top_p")


def test_a_body_of_ten_megabytes(server):
    big = HELLO | {"messages": [{"role": "user", "content": "x" * 10_000_000}]}
    reply = server.http.post(CHAT, json=big)
    assert (reply.status_code, error(reply)["code"]) == (413, "body_too_large")

    def chunks():
        for _ in range(200):
            yield b"x" * 50_000

    with httpx.Client(base_url=server.url) as http:
        reply = http.post(CHAT, content=chunks())  # no content-length to warn the server
        assert (reply.status_code, error(reply)["param"]) == (413, "body")
    with pytest.raises(urllib.error.HTTPError) as refused:  # looks up only when all is sent
        urllib.request.urlopen(server.url + CHAT, data=b"x" * 10_000_000)
    assert refused.value.code == 413
    refused.value.close()


def test_a_long_text_is_refused_by_its_tokens(server):
    long = HELLO | {"messages": [{"role": "user", "content": "x" * 3_000_000}]}
    reply = server.http.post(CHAT, json=long)
    assert (reply.status_code, error(reply)["code"]) == (400, "context_length_exceeded")
    assert "3000019 tokens" in error(reply)["message"]


def raw(server, data):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(data)
        return b"".join(iter(lambda: line.recv(65536), b""))


def test_a_missing_host(server):
    body = json.dumps(HELLO).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    )
    reply = raw(server, head + body)
    assert reply.startswith(b"HTTP/1.1 400")
    assert json.loads(reply.split(b"\r\n\r\n", 1)[1])["error"]["param"] == "host"
    assert raw(server, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert raw(server, head.replace(b"content-length: ", b"content-length: x") + body).startswith(
        b"HTTP/1.1 400"
    )


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/nope", "/v1/chat/completions/x", "/%00", "/../", "/health/"]
)
def test_unknown_routes(server, path):
    reply = server.http.post(path, json={})
    assert (reply.status_code, error(reply)["code"]) == (404, "not_found")


def test_wrong_methods(server):
    for method, path in (("GET", CHAT), ("DELETE", "/v1/models"), ("PUT", "/health")):
        reply = server.http.request(method, path)
        assert (reply.status_code, error(reply)["code"]) == (405, "method_not_allowed")
        assert reply.headers["allow"] in ("POST", "GET, HEAD", "HEAD, GET")


def test_the_official_clients_classes(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("nope")
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**HELLO | {"temperature": 9})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    ["messages", "prompt", "model", "max_tokens", "temperature", "top_p", "top_k", "n", "stop",
     "stream", "seed", "logprobs", "top_logprobs", "logit_bias", "tools", "tool_choice", "echo",
     "response_format", "structured_outputs", "allowed_token_ids", "bad_words", "min_tokens",
     "cache_salt", "chat_template_kwargs", "input", "tokens", "encoding_format", "user"]
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([CHAT, "/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize"]),
    st.dictionaries(FIELDS, VALUES, max_size=4),
)
def test_no_body_makes_the_server_fail(server, path, more):
    body = {"prompt": "a", "input": "a", "tokens": [1]} if path != CHAT else {}
    reply = server.http.post(path, content=json.dumps(HELLO | body | more))
    assert reply.status_code < 500, reply.text
