"""The Responses API as a shape over chat: what reaches the upstream, what the client hears."""

import asyncio
import json
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.responses import to_chat

pytestmark = pytest.mark.anyio


def chat(**asked: Any) -> dict[str, Any]:
    return to_chat({"model": "m", **asked})


def test_items_become_messages() -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}", "id": "fc_1"}
    items = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "input_text", "text": "b"}]},
        {
            "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "c", "annotations": []}],
        },
        {**call, "call_id": "1"},
        {**call, "call_id": "2"},
        {"type": "function_call_output", "call_id": "1", "output": "x"},
        {"role": "user", "content": [{"type": "input_image", "image_url": "u", "detail": "low"}]},
    ]  # fmt: skip
    assert chat(input=items, instructions="s")["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {
            "role": "assistant",
            "content": "c",
            "tool_calls": [
                {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}}
                for name in ("1", "2")
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "u", "detail": "low"}}],
        },
    ]


def test_fields_are_renamed_and_the_rest_goes_on() -> None:
    tool = {"type": "function", "name": "f", "parameters": {}, "strict": True}
    body = chat(
        input="q", max_output_tokens=5, tools=[tool], text={"format": {"type": "json_object"}},
        tool_choice={"type": "function", "name": "f"}, reasoning={"effort": "low"},
        stream=True, temperature=0.5, top_k=3, store=False, truncation="disabled",
        previous_response_id=None,
    )  # fmt: skip
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "q"}],
        "max_completion_tokens": 5,
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}}
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_object"},
        "reasoning_effort": "low",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "top_k": 3,
    }


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"truncation": "auto"}, "truncation"),
        ({"n": 2}, "n"),
        ({"input": 5}, "input"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "user"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "audio"}]}]}, "input[0].content[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as error:
        chat(**asked)
    assert error.value.param == param


def test_thoughts_of_earlier_turns_may_come_back() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    ends = {"type": "function_call_output", "call_id": "c", "output": "1"}
    body = chat(input=[thought, call, thought, ends], include=["reasoning.encrypted_content"])
    assert [it["role"] for it in body["messages"]] == ["assistant", "tool"]
    assert "include" not in body


async def ask(house: Any, **more: Any) -> Any:
    body = {"model": "town", "input": "capital of France?", **more}
    reply = await house.http.post(f"{house.url}/v1/responses", json=body)
    if not more.get("stream") or reply.status != 200:
        await reply.read()
    return reply


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: ")]


async def test_it_takes_the_same_road(open_house: Any) -> None:
    async with open_house() as house:
        made = await (await ask(house)).json()
        assert made["output"][0]["content"][0]["text"] == "Paris"
        assert (made["status"], made["store"], made["model"]) == ("completed", False, "up-model")
        assert made["usage"]["total_tokens"] == 10
        assert house.upstream.requests[0]["max_tokens"] == 512
        (row,) = await house.rows()
        assert (row["route"], row["outcome"], row["prompt_tokens"]) == ("responses", "ok", 7)
        assert (await ask(house, store=True)).status == 400
        assert (await ask(house, model="moon")).status == 404


def chunk(say: Any, **delta: Any) -> bytes:
    made: bytes = say.event([{"index": 0, "delta": delta, "finish_reason": None}])
    return made


async def test_thoughts_text_citations_and_calls_each_have_their_item(
    open_house: Any, upstream: Any, say: Any
) -> None:
    def called(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"index": index, "function": {"arguments": arguments, **more}, "id": f"c{index}"}

    cited = {"type": "file_citation", "file_id": "f", "filename": "a.md", "index": 5}
    upstream.pieces = [
        chunk(say, role="assistant", content=""),
        chunk(say, reasoning_content="Hm."),
        chunk(say, content="Par"),
        chunk(say, content="is"),
        chunk(say, annotations=[cited]),
        chunk(say, tool_calls=[called(0, "", name="f")]),
        chunk(say, tool_calls=[called(1, '{"b"', name="g")]),
        chunk(say, tool_calls=[called(0, '{"a": 1}'), called(1, ": 2}")]),
        say.FINISH,
        say.USAGE,
        say.DONE,
    ]
    async with open_house() as house:
        seen = events(await (await ask(house, stream=True)).text())
    assert [it["sequence_number"] for it in seen] == list(range(len(seen)))
    made = seen[-1]["response"]
    assert seen[-1]["type"] == "response.completed"
    thought, text, one, two = made["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert text["content"] == [
        {"type": "output_text", "text": "Paris", "annotations": [cited], "logprobs": []}
    ]
    assert [(it["name"], it["arguments"]) for it in (one, two)] == [
        ("f", '{"a": 1}'),
        ("g", '{"b": 2}'),
    ]
    assert {it["status"] for it in made["output"]} == {"completed"}
    added = [it["item"]["id"] for it in seen if it["type"] == "response.output_item.added"]
    done = [it["item"]["id"] for it in seen if it["type"] == "response.output_item.done"]
    assert added == done == [it["id"] for it in made["output"]]


async def test_a_stream_that_breaks_off_has_failed(
    open_house: Any, upstream: Any, say: Any
) -> None:
    called = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a"'}}
    upstream.pieces = [say.word("Par"), say.word("is")]
    async with open_house() as house:
        *_, last = events(await (await ask(house, stream=True)).text())
        assert last["type"] == "response.failed"
        (item,) = last["response"]["output"]
        assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Paris")
        assert last["response"]["error"]["code"] == "upstream_truncated"
        upstream.pieces.append(chunk(say, tool_calls=[called]))
        *_, last = events(await (await ask(house, stream=True)).text())
        text, call = last["response"]["output"]
        assert text["content"][0]["text"] == "Paris"
        assert (call["status"], call["arguments"]) == ("incomplete", '{"a"')
        upstream.pieces = []
        assert (await ask(house, stream=True)).status == 502


async def test_who_leaves_is_heard_upstream(open_house: Any, upstream: Any, say: Any) -> None:
    upstream.pieces = [say.word("Par"), asyncio.Event()]
    async with open_house() as house:
        reply = await ask(house, stream=True)
        await reply.content.readline()
        reply.close()
        async with asyncio.timeout(5):
            await upstream.left.wait()
        (row,) = await house.rows()
        assert row["outcome"] == "client_gone"
