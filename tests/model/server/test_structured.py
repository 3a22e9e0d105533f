"""An answer that must have a form has it, or the request is refused."""

import json
import re

import openai
import pytest

SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 0, "maximum": 99},
        "ok": {"type": "boolean"},
    },
    "required": ["n", "ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, **more):
    body = {"model": "tiny-random", "max_tokens": 200, "seed": 2}
    body["messages"] = [{"role": "user", "content": "go"}]
    return client.chat.completions.create(**(body | more)).choices[0]


def outputs(**form):
    return {"extra_body": {"structured_outputs": form}}


def schema(value):
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": value}}
    }


def test_forms(client):
    for more in (schema(SCHEMA), outputs(json=SCHEMA), outputs(json=json.dumps(SCHEMA))):
        choice = ask(client, **more)
        assert choice.finish_reason == "stop"
        made = json.loads(choice.message.content)
        assert 0 <= made["n"] <= 99
        assert isinstance(made["ok"], bool)
    choice = ask(client, **outputs(choice=["yes", "no", "yes, but"]))
    assert choice.message.content in ("yes", "no", "yes, but")
    assert re.fullmatch("[a-c]{3}", ask(client, **outputs(regex="[a-c]{3}")).message.content)
    assert ask(client, **outputs(grammar='start: "ab" "cd"')).message.content == "abcd"
    object_ = ask(client, response_format={"type": "json_object"}, max_tokens=400)
    if object_.finish_reason == "stop":
        assert isinstance(json.loads(object_.message.content), dict)
    assert ask(client, response_format={"type": "text"}, max_tokens=3).message.content


def test_completions_have_forms_too(client):
    body = {"structured_outputs": {"choice": ["left", "right"]}}
    reply = client.completions.create(
        model="tiny-random", prompt=["a", "b"], max_tokens=20, extra_body=body
    )
    assert {choice.text for choice in reply.choices} <= {"left", "right"}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        (schema({"type": "nonsense"}), "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (outputs(regex="(("), "structured_outputs.regex"),
        (outputs(regex="a" * 100_000), "structured_outputs.regex"),
        (outputs(grammar="start: nowhere"), "structured_outputs.grammar"),
        (outputs(json="{"), "structured_outputs.json"),
        (outputs(), "structured_outputs"),
        (outputs(regex="a", choice=["a"]), "structured_outputs.choice"),
        (outputs(regex="a") | schema(SCHEMA), "structured_outputs.regex"),
        ({"extra_body": {"guided_json": SCHEMA}}, "guided_json"),
    ],
)
def test_never_silently_unconstrained(client, more, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **more)
    assert caught.value.param == param
