"""What the gateway reads of a client's body."""

from typing import Any

import msgspec
import pytest

from gateway.call import Call, Principal, Route
from gateway.errors import BadRequest
from gateway.request import read_call


def read(route: Route, **body: Any) -> Call:
    return read_call(route, "id", msgspec.json.encode({"model": "m", **body}), {}, Principal())


@pytest.mark.parametrize(
    ("prompt", "num_prompts"),
    [("one", 1), (["one", "two", "three"], 3), ([5, 6, 7], 1), ([[5, 6], [7]], 2)],
)
def test_each_prompt_has_n_choices(prompt: Any, num_prompts: int) -> None:
    assert read("completions", prompt=prompt).num_choices == num_prompts
    assert read("completions", prompt=prompt, n=2).num_choices == 2 * num_prompts


def test_many_ids_are_one_prompt_and_many_prompts_are_too_many() -> None:
    assert read("completions", prompt=[5] * 3000).num_choices == 1
    assert read("embeddings", input=[5] * 3000).num_choices == 1
    for route, name in (("completions", "prompt"), ("embeddings", "input")):
        with pytest.raises(BadRequest, match="at most 2048") as error:
            read(route, **{name: ["x"] * 3000})  # type: ignore[arg-type]
        assert error.value.param == name


def test_a_chat_has_n_choices() -> None:
    assert read("chat", messages=[{"role": "user", "content": "hi"}], n=3).num_choices == 3
