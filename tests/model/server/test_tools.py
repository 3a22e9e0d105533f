"""Tools: a forced call is valid, a free one is read from the text, a stream says the same."""

import json

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.server.tools import CallReader, message_of, read_calls

NAMES = {"f", "get_weather"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Paris", "Rome"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {
    "type": "object", "properties": {}, "additionalProperties": False}}}  # fmt: skip


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, **more):
    body = {
        "model": "tiny-random",
        "messages": [{"role": "user", "content": "weather?"}],
        "tools": [WEATHER, CLOCK],
        "max_tokens": 1000,
        "seed": 4,
    }
    return client.chat.completions.create(**(body | more))


def check(call):
    arguments = json.loads(call.function.arguments)
    if call.function.name == "clock":
        assert arguments == {}
    else:
        assert call.function.name == "get_weather"
        assert arguments["city"] in ("Paris", "Rome")
        assert 1 <= arguments["days"] <= 9


@pytest.mark.parametrize("seed", range(5))
def test_required_gives_valid_calls(client, seed):
    choice = ask(client, tool_choice="required", seed=seed, temperature=1).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert 1 <= len(choice.message.tool_calls) <= 8
    for call in choice.message.tool_calls:
        check(call)


@pytest.mark.parametrize("max_tokens", [1, 12, 30])
def test_a_call_that_was_cut_off_says_so(client, max_tokens):
    asked = {"tool_choice": "required", "max_tokens": max_tokens}
    choice = ask(client, **asked).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("length", None)
    *_, last = chunks = list(ask(client, stream=True, **asked))
    assert last.choices[0].finish_reason == "length"
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    names = [it.function.name for it in choice.message.tool_calls or ()]
    assert set(names) <= {"get_weather", "clock"}


def test_named_gives_one_call_of_that_function(client):
    named = {"type": "function", "function": {"name": "get_weather"}}
    (call,) = ask(client, tool_choice=named).choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    check(call)


def test_without_parallel_calls_there_is_one(client):
    for seed in range(4):
        choice = ask(client, tool_choice="required", parallel_tool_calls=False, seed=seed).choices[
            0
        ]
        assert len(choice.message.tool_calls) == 1


def test_a_stream_of_calls_in_openais_form(client):
    whole = ask(client, tool_choice="required", temperature=0).choices[0]
    calls, reasons, num_pieces = [], set(), 0
    for chunk in ask(client, tool_choice="required", temperature=0, stream=True):
        choice = chunk.choices[0]
        reasons.add(choice.finish_reason)
        for delta in choice.delta.tool_calls or []:
            num_pieces += 1
            if delta.index == len(calls):
                assert delta.id
                assert delta.type == "function"
                calls.append([delta.function.name, ""])
            calls[delta.index][1] += delta.function.arguments
    made = [[call.function.name, call.function.arguments] for call in whole.message.tool_calls]
    assert calls == made
    assert reasons == {None, "tool_calls"}
    assert num_pieces > 2 * len(calls)  # the arguments flow


def test_free_text_stays_text(client):
    for choice in ("auto", "none", None):
        more = {} if choice is None else {"tool_choice": choice}
        message = ask(client, max_tokens=8, **more).choices[0].message
        assert message.content
        assert message.tool_calls is None


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": None, "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "g"}}},
         "tool_choice.function.name"),
        ({"tools": [CLOCK, CLOCK]}, "tools"),
        ({"tool_choice": "required", "response_format": {"type": "json_object"}}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(client, more, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **more)
    assert caught.value.param == param


def test_earlier_calls_and_their_results_reach_the_model(server):
    call = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "time?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "noon"},
    ]
    body = {"messages": messages, "tools": [CLOCK], "return_token_strs": True}
    text = "".join(server.http.post("/tokenize", json=body).json()["token_strs"])
    assert '<tool_call>{"name": "clock", "arguments": {}}</tool_call>' in text
    assert "noon" in text
    assert text.startswith("<|im_start|>system\nYou can call these functions:")


CALL = '<tool_call>{"name": "f", "arguments": {"a": "}</tool_call>"}}</tool_call>'
ANSWERS = st.lists(
    st.sampled_from(
        [
            "hello ", "<tool_call>", "</tool_call>", "<tool", "\n", CALL,
            '<tool_call>\n{"name": "get_weather", "arguments": {"x": [1, {}]}}\n</tool_call>',
            '<tool_call>[{"name": "f", "arguments": {}}, {"name": "f", "arguments": {"b": 2}}]'
            "</tool_call>",
            '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>',
            '<tool_call>{"name": "f", "arguments": {"cut": "o',
        ]
    ),
    max_size=6,
).map("".join)  # fmt: skip


@given(ANSWERS, st.integers(1, 7))
def test_any_cut_gives_the_same_message(text, size):
    reader, content, calls = CallReader(NAMES), "", []
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    for i, piece in enumerate(pieces or [""]):
        for delta in reader.push(piece, is_last=i >= len(pieces) - 1):
            content += delta.content or ""
            for call in delta.tool_calls or []:
                if call.id:
                    calls.append([call.function.name, ""])
                calls[call.index][1] += call.function.arguments
    whole = message_of(text, NAMES)
    assert content == (whole.content or "")
    made = [[c.function.name, c.function.arguments] for c in whole.tool_calls or []]
    assert calls == made


def test_calls_are_read():
    text = f"Let me see.\n{CALL}\n{CALL} done"
    content, calls = read_calls(text, NAMES, is_last=True)
    assert calls == [("f", '{"a": "}</tool_call>"}')] * 2
    assert content == "Let me see.\n\n done"
    unknown = '<tool_call>{"name": "g", "arguments": {}}</tool_call>'
    assert read_calls(unknown, NAMES, is_last=True) == (unknown, [])
