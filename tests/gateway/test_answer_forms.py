"""What a stream says, its body says, and the other way round."""

import itertools
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.answer_forms import Entry, to_body, to_stream
from gateway.routing.frames import Frame

TEXT = st.text(max_size=12)
CALLS = st.lists(
    st.builds(
        lambda name, arguments: {
            "id": f"call-{name}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        },
        TEXT,
        TEXT,
    ),
    min_size=1,
    max_size=3,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | TEXT},
    optional={"refusal": TEXT, "reasoning_content": TEXT, "tool_calls": CALLS},
)
LOGPROBS = st.none() | st.builds(
    lambda n: {"content": [{"token": str(i), "logprob": -0.5} for i in range(n)]}, st.integers(1, 4)
)
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def bodies(kind: str, said: Any) -> Any:
    def build(choices: list[Any]) -> dict[str, Any]:
        numbered = [{"index": i, **choice} for i, choice in enumerate(choices)]
        head = {"id": "c", "object": kind, "created": 1, "model": "m"}
        return {**head, "choices": numbered, "usage": USAGE}

    end = {"finish_reason": st.sampled_from(["stop", "length"]), "logprobs": LOGPROBS}
    choice = st.fixed_dictionaries({**said, **end})
    return st.lists(choice, min_size=1, max_size=3).map(build)


CHAT = bodies("chat.completion", {"message": MESSAGE})
COMPLETION = bodies("text_completion", {"text": TEXT})


@given(CHAT | COMPLETION)
def test_a_body_survives_being_a_stream(body: dict[str, Any]) -> None:
    assert msgspec.json.decode(to_body(to_stream(msgspec.json.encode(body)))) == body


@given(CHAT | COMPLETION, st.data())
def test_however_a_text_is_cut_the_body_is_the_same(body: dict[str, Any], cuts: Any) -> None:
    pieces = []
    for data in to_stream(msgspec.json.encode(body)):
        pieces += list(cut(msgspec.json.decode(data), cuts))
    assert msgspec.json.decode(to_body(map(msgspec.json.encode, pieces))) == body


def cut(chunk: dict[str, Any], cuts: Any) -> Any:
    """The chunk in two, where a text or the arguments of its first call are long enough."""
    for choice in chunk["choices"]:
        delta = choice.get("delta", choice)
        calls = delta.get("tool_calls")
        spot, name = (calls[0]["function"], "arguments") if calls else (delta, "content")
        name = "text" if "text" in spot else name
        text = spot.get(name)
        if text:
            at = cuts.draw(st.integers(0, len(text)))
            spot[name] = text[:at]
            yield chunk
            rest: dict[str, Any] = {name: text[at:]}
            if calls:
                rest = {"tool_calls": [{"index": 0, "function": rest}]}
            again = {"index": choice["index"], "finish_reason": None}
            said = rest if "text" in choice else {"delta": rest}
            yield {**chunk, "choices": [{**again, **said}]}
            return
    yield chunk


def test_what_a_server_streams_becomes_the_body_it_would_have_sent() -> None:
    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return msgspec.json.encode({**head, "choices": choices, "usage": None, **more})

    stream = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Par"}),
        chunk({"content": "is"}),
        chunk({}, "stop"),
        chunk({}, choices=[], usage=USAGE),
    ]
    assert msgspec.json.decode(to_body(stream)) == {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Paris"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


@given(CHAT)
def test_an_entry_is_served_in_both_forms(body: dict[str, Any]) -> None:
    raw = msgspec.json.encode(body)
    whole = Entry([raw], is_stream=False, stored=0.0, model="m", usage=USAGE)
    streamed = Entry(to_stream(raw), is_stream=True, stored=0.0, model="m", usage=USAGE)
    for entry, again in itertools.product((whole, streamed), (False, True)):
        frames = entry.frames(again)
        kinds = [frame.kind for frame in frames]
        assert kinds == ["body"] if not again else kinds[-2:] == ["usage", "done"]
        assert text_of(frames) == text_of(whole.frames(is_stream=True)) or not again
        assert frames[-1 if not again else -2].usage == USAGE


def text_of(frames: list[Frame]) -> str:
    return "".join(frame.text for frame in frames)
