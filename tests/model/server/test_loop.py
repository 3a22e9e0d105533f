"""Nothing that a request does holds up the event loop that all streams share."""

import json
from concurrent.futures import ThreadPoolExecutor

from blockbuster import blockbuster_ctx

from .conftest import MODEL, running

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "x" * 20_000}], "max_tokens": 3}
SHORT = CHAT | {"messages": [{"role": "user", "content": "hi"}]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
FORM = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
REQUESTS = [
    ("/v1/chat/completions", SHORT),
    ("/v1/chat/completions", SHORT | {"stream": True}),
    ("/v1/chat/completions", SHORT | {"response_format": FORM}),
    ("/v1/chat/completions", CHAT | {"truncate_prompt_tokens": 10}),
    ("/v1/completions", {"model": MODEL, "prompt": "a", "max_tokens": 3}),
    ("/v1/embeddings", {"model": MODEL, "input": ["x " * 3000], "truncate_prompt_tokens": -1}),
    ("/rerank", {"model": MODEL, "query": "a", "documents": ["b", "c"]}),
    ("/tokenize", {"prompt": "y" * 20_000}),
]


def test_no_request_blocks_the_loop():
    with blockbuster_ctx("model.server"), running() as server, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(server.http.post, path, json=body) for path, body in REQUESTS]
        for (path, _), reply in zip(REQUESTS, asked, strict=True):
            assert reply.result().status_code == 200, (path, reply.result().text)
        assert json.loads(server.http.get("/load").text) == {"server_load": 0}
