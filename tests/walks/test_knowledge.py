"""A chat over documents, and a prompt that is rolled back while the gateway serves."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

PROMPT = """---
id: docs
version: {version}
sampling: {{temperature: 0}}
---
system:
Answer from the passages.{extra}
user:
{{{{ context }}}}
Question: {{{{ question }}}}
"""
CONFIG = """
[prompts]
folder = "{folder}/prompts"
[retrieval]
embedder = "embedder"
[indexes.docs]
store = "docs"
corpus = "{folder}/docs"
[families.docs]
labels = {{ production = "docs-1", canary = "docs-2" }}
[releases.docs-1]
family = "docs"
upstream = "chat"
prompt = "docs@1"
index = "docs"
context_budget = 2000
default_max_tokens = 8
[releases.docs-2]
family = "docs"
upstream = "chat"
prompt = "docs@2"
index = "docs"
context_budget = 2000
default_max_tokens = 8
"""


@pytest.fixture
def library(tmp_path: Path) -> str:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "tea.md").write_text("# Tea\n\nGreen tea steeps for two minutes.\n")
    (tmp_path / "prompts").mkdir()
    for version, extra in (("1", ""), ("2", " Be brief.")):
        text = PROMPT.format(version=version, extra=extra)
        (tmp_path / "prompts" / f"docs-{version}.md").write_text(text)
    return CONFIG.format(folder=tmp_path)


def ask(url: str, **more: Any) -> httpx2.Response:
    body = {"model": "docs", "messages": [{"role": "user", "content": "How long does tea steep?"}]}
    return httpx2.post(f"{url}/v1/chat/completions", json=body | more, timeout=60)


def test_a_chat_over_documents(
    serve: Callable[..., Any], library: str, wait_until: Callable[..., Any]
) -> None:
    with serve(extra=library) as it:
        reply = wait_until(lambda: with_passages(ask(it.url)), "the corpus is ingested")
        assert reply.headers["x-glassgate-prompt"] == "docs@1"
        assert "search=hybrid" in reply.headers["x-glassgate-context"]
        whole = reply.json()
        bare = ask(it.url, model="tiny").json()
        assert whole["usage"]["prompt_tokens"] > bare["usage"]["prompt_tokens"] + 10
        assert ask(it.url).headers["x-cache"] == "hit"
        usage = {"stream_options": {"include_usage": True}}
        stream = ask(it.url, stream=True, cache={"no_cache": True}, **usage)
        assert "passages=1" in stream.headers["x-glassgate-context"]
        *chunks, done = [line[6:] for line in stream.text.split("\n") if line.startswith("data: ")]
        assert done == "[DONE]"
        events = [json.loads(chunk) for chunk in chunks]
        text = "".join(e["choices"][0]["delta"].get("content") or "" for e in events[:-1])
        assert text == whole["choices"][0]["message"]["content"]
        assert events[-1]["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]


def with_passages(reply: httpx2.Response) -> httpx2.Response | None:
    assert reply.status_code == 200, reply.text
    return reply if "passages=1" in reply.headers.get("x-glassgate-context", "") else None


def test_a_prompt_is_promoted_and_rolled_back(
    serve: Callable[..., Any], library: str, wait_until: Callable[..., Any]
) -> None:
    def run(*words: str) -> None:
        config = it.process.args[-2:]  # --config PATH
        command = [sys.executable, "-m", "gateway", *words, *config, "--why", "a walk"]
        subprocess.run(command, check=True, capture_output=True)

    def served(version: str, **more: Any) -> bool:
        return ask(it.url, **more).headers.get("x-glassgate-prompt") == f"docs@{version}"

    named = {"prompt": {"id": "docs", "label": "production"}, "model": "tiny"}
    with serve(extra=library) as it:
        run("prompts", "label", "docs@1")
        wait_until(lambda: served("1", **named), "the label is there")
        run("prompts", "label", "docs@2")
        wait_until(lambda: served("2", **named), "the label has moved")
        run("prompts", "rollback", "docs")
        wait_until(lambda: served("1", **named), "the label is back")
        run("releases", "promote", "docs", "docs-2")
        wait_until(lambda: served("2"), "the release with the new prompt serves")
        run("releases", "rollback", "docs")
        wait_until(lambda: served("1"), "the release before it serves")
