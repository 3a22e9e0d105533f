"""The real client of OpenAI asks for responses of a real network, in three processes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

PROMPT = """---
id: pirate
version: 1
inputs: {name: {type: string}}
---
system:
You are {{ name }}.
{{ messages }}
"""
WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"hot": {"type": "boolean"}},
        "required": ["hot"],
        "additionalProperties": False,
    },
    "strict": True,
}
COLOUR = {
    "type": "json_schema",
    "name": "colour",
    "schema": {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(serve: Callable[..., Any]) -> Iterator[openai.OpenAI]:
    with serve() as it, connected(it.url) as made:
        yield made


def connected(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_text(client: openai.OpenAI) -> None:
    made = client.responses.create(model="tiny", input="Hello", instructions="Be kind.")
    assert made.status == "incomplete"
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"
    assert made.output_text
    assert made.instructions == "Be kind."
    assert made.usage is not None
    assert made.usage.output_tokens == 8
    assert made.usage.total_tokens == made.usage.input_tokens + 8


def test_a_stream_is_made_of_the_same_text(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "input": "Hello", "temperature": 0}
    whole = client.responses.create(**asked)
    events = list(client.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = list(dict.fromkeys(event.type for event in events))
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    deltas = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert deltas == whole.output_text
    assert events[-1].response.output_text == whole.output_text
    assert events[-1].response.usage.total_tokens == whole.usage.total_tokens


def test_the_clients_own_assembly_of_a_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model="tiny", input="Hello", max_output_tokens=5) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
    assert text


def test_a_function_is_called_and_its_output_comes_back(client: openai.OpenAI) -> None:
    talk: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": "Hot?"}]}]
    asked: dict[str, Any] = {
        "model": "tiny", "tools": [WEATHER], "max_output_tokens": 80,
        "tool_choice": {"type": "function", "name": "weather"},
    }  # fmt: skip
    made = client.responses.create(**asked, input=talk)
    (call,) = made.output
    assert call.type == "function_call"
    assert (call.name, call.status) == ("weather", "completed")
    assert call.arguments.startswith("{")
    *_, last = client.responses.create(**asked, input=talk, stream=True)
    assert last.type == "response.completed"
    assert [item.type for item in last.response.output] == ["function_call"]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "30 C"}
    after = client.responses.create(model="tiny", input=[*talk, call, output], tools=[WEATHER])
    assert after.output_text


def test_structured_text(client: openai.OpenAI) -> None:
    made = client.responses.create(
        model="tiny", input="A colour", text={"format": COLOUR}, max_output_tokens=60
    )
    assert made.status == "completed"
    assert made.output_text.replace(" ", "") in ('{"colour":"red"}', '{"colour":"blue"}')


def test_a_stored_prompt(serve: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "pirate.md").write_text(PROMPT)
    named = {"id": "pirate", "version": "1", "variables": {"name": "Ann"}}
    item = {"type": "input_text", "text": "Ann"}
    asked: dict[str, Any] = {"model": "tiny", "input": "Hi"}
    with serve(f'[prompts]\nfolder = "{tmp_path}/prompts"') as it, connected(it.url) as client:
        raw = client.responses.with_raw_response.create(**asked, prompt=named)
        assert raw.headers["x-glassgate-prompt"] == "pirate@1"
        same = client.responses.create(**asked, prompt={**named, "variables": {"name": item}})
        assert same.output_text == raw.parse().output_text
        with pytest.raises(openai.BadRequestError) as error:
            client.responses.create(**asked, prompt={**named, "variables": {}})
        assert error.value.param == "prompt.variables.name"
