"""What each kind of user sends. Both drivers, the open loop and locust, take their requests here.

Questions are seeded: request `number` of a kind is the same in every run.
"""

import json
import random
from typing import Any, NamedTuple

SUBJECTS = ("lists", "lambdas", "modules", "slices", "classes", "imports", "strings", "loops")
FAQ = [f"What should I know about {it}?" for it in SUBJECTS]
WORDS = ["the", "of", "and", "to", "in", "a", "is", "that", "for", "it", "as", "was", "with", "be"]
POLICY = " ".join(f"Rule {n}: be brief, kind and exact." for n in range(40))


class Sent(NamedTuple):
    """`is_welcome` false: the server ought to refuse it, and a refusal is what it should get."""

    path: str
    body: bytes
    is_stream: bool = True
    is_welcome: bool = True


def prose(characters: int, rng: random.Random) -> str:
    """Words of the language, so that tokenizers find about as many tokens as in real text."""
    return " ".join(rng.choices(WORDS, k=characters // 3 + 1))[:characters]


def request(
    user: str, family: str, number: int, prompt: int = 0, output: int = 32, salt: str = ""
) -> Sent:
    """Request `number` of a user: `prompt` characters where it matters, `output` tokens at most.

    Only who asks what others ask leaves out the `salt`, so that no answer is known from another
    run. Raises KeyError for a kind that nobody knows.
    """
    rng = random.Random(f"{user} {number}")
    if user == "embeddings":
        body = {"model": family, "input": [f"{salt} {prose(120, rng)}" for _ in range(4)]}
        return Sent("/v1/embeddings", json.dumps(body).encode(), is_stream=False)
    if user == "hostile":
        return hostile(family, rng)
    subject = f"{rng.choice(SUBJECTS)} ({number} {salt})"
    questions = {
        "chat": lambda: [_says(f"Tell me about {subject}.")],
        "rag": lambda: [_says(f"How do {subject} work in Python?")],
        "cached": lambda: [_says(rng.choice(FAQ))],
        "prefix": lambda: [_says(POLICY, "system"), _says(f"Tell me about {subject}.")],
        "long": lambda: [_says(f"{number} {salt} {prose(prompt, rng)}")],
        "replay": lambda: [_says(f"{number} {salt} {prose(prompt, rng)}"[: max(prompt, 1)])],
    }
    chat: dict[str, Any] = {"model": family, "messages": questions[user](), "max_tokens": output}
    chat |= {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    if user == "replay":
        chat["ignore_eos"] = True  # vLLM's: the answer gets the length that the trace says
    return Sent("/v1/chat/completions", json.dumps(chat).encode())


def _says(text: str, role: str = "user") -> dict[str, str]:
    return {"role": role, "content": text}


def hostile(family: str, rng: random.Random) -> Sent:
    """Broken JSON, names that nobody has, numbers out of range, nesting without end."""
    ask = {"model": family, "messages": [_says("hi")]}
    bodies = (
        b'{"model": "' + family.encode(),
        json.dumps(ask | {"model": f"m{rng.getrandbits(64):x}"}).encode(),
        json.dumps(ask | {"max_tokens": -1}).encode(),
        json.dumps(ask | {"messages": "hi"}).encode(),
        b'{"model":' + b"[" * 10_000,
    )
    return Sent("/v1/chat/completions", rng.choice(bodies), is_stream=False, is_welcome=False)
