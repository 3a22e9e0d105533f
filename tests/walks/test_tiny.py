"""`glassgate serve --tiny` answers with what it brought along."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from tests.walks.conftest import Serving, free_port


def test_it_serves_what_it_brought(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    port, model_port = free_port(), free_port()
    command = ["serve", "--tiny", "--port", str(port), "--model-port", str(model_port)]
    stack = Serving(command, port, tmp_path)
    try:
        wait_until(stack.is_ready, "ready")
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        body = {"model": "tiny", "messages": messages, "temperature": 0}
        reply = httpx2.post(f"{stack.url}/v1/chat/completions", json=body).json()
        assert reply["choices"][0]["message"]["content"] == "The capital of France is Paris."
        assert reply["choices"][0]["finish_reason"] == "stop"
    finally:
        stack.stop()
