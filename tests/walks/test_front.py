"""The example of ops/front.toml before somebody else's server: llmock stands for it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import httpx2
import openai
import pytest

EXAMPLE = Path(__file__).parent.parent.parent / "ops" / "front.toml"


@pytest.fixture(scope="module")
def url(start: Callable[..., str], write_config: Callable[[str], Path]) -> str:
    other = start("/health", "llmock.cli", "serve")
    os.environ["OTHER_API_KEY"] = "sk-theirs"
    text = EXAMPLE.read_text().replace("http://127.0.0.1:8000", other)
    return start("/health/ready", "gateway", "gateway", "--config", str(write_config(text)))


def test_the_real_client_through_the_example(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    messages = [{"role": "user", "content": "hello"}]
    whole = client.chat.completions.create(model="assistant", messages=messages)  # type: ignore[arg-type]
    assert whole.model == "their-name-for-it"
    assert whole.choices[0].message.content
    stream = client.chat.completions.create(  # type: ignore[call-overload]
        model="assistant",
        messages=messages,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = stream
    assert "".join(it.choices[0].delta.content or "" for it in chunks)
    assert last.usage.completion_tokens > 0
    client.close()


def test_it_is_metered(url: str) -> None:
    text = httpx2.get(f"{url}/metrics").text
    labels = '{family="assistant",kind="completion",release="assistant-1",route="chat"}'
    assert f"glassgate_tokens_total{labels}" in text
    assert json.loads(httpx2.get(f"{url}/v1/models").text)["data"][0]["id"] == "assistant"
