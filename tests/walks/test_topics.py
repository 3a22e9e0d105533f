"""The shipped config with the real weights: Python's topics come in, and an answer cites them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.walks.conftest import ROOT, Serving, free_port

QUESTION = "What does the pass statement do?"
INGEST_S = 900.0  # 40 seconds on an idle machine

pytestmark = [pytest.mark.services, pytest.mark.weights]


def ask(url: str, **more: Any) -> httpx2.Response:
    body = {"messages": [{"role": "user", "content": QUESTION}], "model": "python-docs"}
    return httpx2.post(f"{url}/v1/chat/completions", json=body | more, timeout=120)


def is_filled(url: str) -> bool:
    stores = httpx2.get(f"{url}/v1/vector_stores", timeout=60).json()["data"]
    return any(store["snapshot"] for store in stores)


def test_a_fresh_gateway_learns_the_topics_and_cites_them(
    tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    (tmp_path / "gateway.toml").write_text(
        f'{(ROOT / "ops" / "gateway.toml").read_text()}\n[prompts]\nfolder = "{ROOT}/ops/prompts"\n'
    )
    port = free_port()
    command = ["serve", "--config", "gateway.toml", "--port", str(port)]
    stack = Serving([*command, "--model-port", str(free_port())], port, tmp_path)
    try:
        wait_until(stack.is_ready, "ready")
        assert ask(stack.url, model="smollm2", max_tokens=8).status_code == 200  # delays nobody
        wait_until(lambda: is_filled(stack.url), "the topics are there", INGEST_S)
        reply = ask(stack.url)
        assert reply.status_code == 200, reply.text
        assert "search=hybrid" in reply.headers["x-glassgate-context"]
        assert reply.headers["x-glassgate-prompt"] == "python-docs@1"
        annotations = reply.json()["choices"][0]["message"]["annotations"]
        assert {it["type"] for it in annotations} == {"file_citation"}
        assert "pydoc:topics/pass" in {it["filename"] for it in annotations}
    finally:
        stack.stop()
