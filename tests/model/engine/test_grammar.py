import json
import random
import re
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from numpy.typing import NDArray

from model.engine.clock import VirtualClock
from model.engine.config import EngineConfig
from model.engine.engine import Engine, Output
from model.engine.errors import InvalidGrammar
from model.engine.grammar import MAX_SOURCE, Grammar, Grammars
from model.engine.sequence import Request, SamplingParams
from model.network.batch import Batch
from model.tokenizer import Tokenizer

BYTES = Tokenizer.byte_level()
GRAMMARS = Grammars(BYTES, frozenset({257}))
Run = Callable[..., dict[tuple[str, int], list[Output]]]


class Babble:
    """Random logits that like to close what is open."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def execute(self, batch: Batch, sequences: Any) -> NDArray[np.float32]:
        # more rows than tokens: networks are padded
        logits = self.rng.standard_normal((len(batch.logit_rows), 300), np.float32)
        logits[:, list(b'"]},')] += 5
        logits[:, 0x80:] -= 3
        return logits


def written(run: Run, grammar: Grammar, num_copies: int = 1, **params: Any) -> list[list[Output]]:
    config = EngineConfig(context_length=512, num_blocks=256, stop_ids=frozenset({257}))
    engine = Engine(Babble(), BYTES, config, VirtualClock())
    settings = SamplingParams(n=num_copies, seed=1, **({"max_tokens": 300} | params))
    request = Request(id="a", prompt_ids=[1], params=settings, grammar=grammar)
    return list(run(engine, request).values())


def text_of(outputs: list[Output]) -> str:
    return "".join(output.text for output in outputs)


def schema_of(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    kinds = ["string", "integer", "number", "boolean", "null", "enum"]
    kind = rng.choice(kinds if depth > 2 else [*kinds, "object", "object", "array", "anyOf"])
    if kind == "enum":
        return {"enum": rng.sample(["red", "green", 3, None, True, "é"], rng.randint(1, 4))}
    if kind == "anyOf":
        return {"anyOf": [schema_of(rng, depth + 1) for _ in range(2)]}
    if kind == "array":
        return {
            "type": "array", "items": schema_of(rng, depth + 1), "minItems": rng.randint(0, 2),
            "maxItems": 3,
        }  # fmt: skip
    if kind == "object":
        names = rng.sample(["name", "age", "a b", "ключ", "list"], rng.randint(1, 4))
        return {
            "type": "object", "properties": {name: schema_of(rng, depth + 1) for name in names},
            "required": rng.sample(names, rng.randint(0, len(names))),
            "additionalProperties": False,
        }  # fmt: skip
    bounds = {
        "string": {"maxLength": rng.randint(1, 9)},
        "integer": {"minimum": -5, "maximum": 99},
        "number": {"minimum": -1.5, "maximum": 1e6},  # or 1e999 would do, which Python cannot read
    }
    return {"type": kind} | bounds.get(kind, {})


def test_200_schemas(run: Run) -> None:
    completed = 0
    for seed in range(200):
        schema = schema_of(random.Random(seed))
        grammar = GRAMMARS.compile("json_schema", json.dumps(schema))
        (outputs,) = written(run, grammar)
        if outputs[-1].finish_reason == "stop":
            jsonschema_rs.validate(schema, json.loads(text_of(outputs)))
            completed += 1
        assert outputs[-1].finish_reason in ("stop", "length")
    assert completed > 180


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_kind(run: Run, temperature: float) -> None:
    for kind, source, pattern in (
        ("regex", "[ab]{2,4}-[0-9]", "[ab]{2,4}-[0-9]"),
        ("choice", '["yes", "no", "may\\n\\"be\\""]', 'yes|no|may\n"be"'),
        ("lark", 'start: "<" /[a-c]/ ">"', "<[a-c]>"),
        ("lark", 'root ::= "<" word ">"\nword ::= "yes" | [0-9]', "<(yes|[0-9])>"),
        ("lark", 'start: "::=" /[a-c]/', "::=[a-c]"),
        ("json_object", "", r"\{.*\}"),
    ):
        for outputs in written(run, GRAMMARS.compile(kind, source), 3, temperature=temperature):
            assert outputs[-1].finish_reason == "stop"
            assert re.fullmatch(pattern, text_of(outputs), re.DOTALL), kind


def test_copies_follow_the_grammar_each_on_its_own(run: Run) -> None:
    texts = {text_of(outputs) for outputs in written(run, GRAMMARS.compile("regex", "[a-z]{5}"), 8)}
    assert len(texts) == 8
    assert all(re.fullmatch("[a-z]{5}", text) for text in texts)


def test_other_rules_may_leave_nothing(run: Run) -> None:
    outputs = written(run, GRAMMARS.compile("regex", "a"), allowed_token_ids=(98,))[0]
    assert outputs[-1].finish_reason == "error"
    assert "leave no token" in str(outputs[-1].stop_reason)


@pytest.mark.parametrize(
    ("kind", "source", "message"),
    [
        ("json_schema", "{", "Expecting property name"),
        ("json_schema", '{"type": "nope"}', "nope"),
        ("json_schema", '{"type": "array", "uniqueItems": true}', "uniqueItems"),
        ("json_schema", '{"$ref": "#/nowhere"}', "nowhere"),
        ("regex", "(", "unclosed"),
        ("lark", "start: nothing", "nothing"),
        ("choice", "[]", "list of texts"),
        ("choice", '["a", 1]', "list of texts"),
        ("choice", "yes", "Expecting value"),
        ("regex", "a" * (MAX_SOURCE + 1), "65537"),
        ("json_schema", '{}}, {"lark_grammar": "start: x"}', "Extra data"),
        ("json_schema", "[]", "JSON object"),
        ("json_schema", '{"anyOf":[' * 5000 + "]}" * 5000, "recursion"),
        ("json_schema", '{"$ref": "#"}', "NoExtension"),
    ],
)
def test_what_cannot_be_compiled_is_refused(kind: Any, source: str, message: str) -> None:
    with pytest.raises(InvalidGrammar, match=message) as refusal:
        GRAMMARS.compile(kind, source)
    assert refusal.value.param == kind


def test_compiled_once() -> None:
    assert GRAMMARS.compile("regex", "x") is GRAMMARS.compile("regex", "x")
