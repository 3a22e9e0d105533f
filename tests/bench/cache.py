"""What the answer cache finds, what it finds wrongly, and how long it looks: `make bench-cache`.

    python -m tests.bench.cache [--no-latency]

The semantic look-up is a classifier: here are its hits and its false hits over thresholds, with
exact 95 % intervals, on questions written for this project and on banking77 where it is there. A
false hit is one of a look-up to which no kept question is right. The last line of standard output
is one JSON object, `threshold` being the shipped one; `false_hit_upper` is the worse set's.
"""

import argparse
import asyncio
import csv
import json
import random
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any, NamedTuple

import numpy as np

from gateway.answer_cache import AnswerCache
from gateway.answer_key import Policy, Question, Scope, ask, is_reworded
from gateway.answer_vectors import Vectors
from gateway.config import Cache
from gateway.routing.frames import DONE_FRAME, Frame, read_event
from model.protocol.sse import Event, encode_event
from tests.bench.ranking import exact_interval
from tests.bench.retrieval import model_server, searching

ROOT = Path(__file__).parents[2]
PARAPHRASES = ROOT / "tests" / "goldens" / "paraphrases.jsonl"
BANKING = ROOT.parent / "shared" / "data" / "banking77"
KEPT = 10  # questions that banking77 has of each intent in the cache
THRESHOLDS = np.arange(80, 100) / 100
BOUND = 0.01
Encode = Callable[[list[str]], Any]  # texts → unit vectors [N, D]


class Set(NamedTuple):
    """Texts, kept and asked, and what each means; to some that are asked no kept one is right."""

    kept: list[tuple[str, str]]
    asked: list[tuple[str, str]]


class Look(NamedTuple):
    """One look-up: from which similarity down it is a hit; 0: never."""

    similarity: float
    is_right: bool
    has_right: bool


class Rates(NamedTuple):
    """Of all look-ups: the share, and its interval."""

    hits: float
    wrong: float  # hits of another entry than the right one
    false: float
    false_upper: float


def paraphrases() -> Set:
    groups = [json.loads(line) for line in PARAPHRASES.read_text().splitlines()]
    kept = [(group["same"][0], str(i)) for i, group in enumerate(groups)]
    asked = [(text, str(i)) for i, group in enumerate(groups) for text in group["same"][1:]]
    return Set(kept, asked + [(text, "") for group in groups for text in group["other"]])


def banking() -> Set:
    """Every other intent is kept; the test questions of all are asked."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for name in ("train", "test"):
        with (BANKING / f"{name}.csv").open() as file:
            rows[name] = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    chance = random.Random(0)
    kept: list[tuple[str, str]] = []
    for intent in sorted({intent for _, intent in rows["train"]})[::2]:
        kept += chance.sample([row for row in rows["train"] if row[1] == intent], KEPT)
    return Set(kept, rows["test"])


def question(text: str) -> Question:
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0}
    asked = ask(Scope("chat", "", ""), body, {}, Policy(600.0, threshold=Cache().threshold), "")
    assert asked is not None
    return asked


def look_ups(these: Set, encode: Encode) -> list[Look]:
    """What the nearest kept question of each asked one is, as the cache would find it."""
    vectors = Vectors(len(these.kept))
    meanings: dict[str, str] = {}
    for (text, meaning), row in zip(these.kept, _encoded(these.kept, encode), strict=True):
        it = question(text)
        vectors.add(it.partition, it.key, text, row)
        meanings[it.key] = meaning
    found = []
    for (text, meaning), row in zip(these.asked, _encoded(these.asked, encode), strict=True):
        near = vectors.nearest(question(text).partition, row)
        has_right = meaning in meanings.values()
        if near is None or not is_reworded(text, near.text):
            found.append(Look(0.0, False, has_right))
        else:
            is_right = meanings[near.key] == meaning
            found.append(Look(near.similarity, is_right, has_right))
    return found


def _encoded(rows: Sequence[tuple[str, str]], encode: Encode) -> Any:
    return encode([text for text, _ in rows])


def rates(looks: Iterable[Look], threshold: float) -> Rates:
    with_right = [it for it in looks if it.has_right]
    without = [it for it in looks if not it.has_right]
    hits = [it.is_right for it in with_right if it.similarity >= threshold]
    num_false = sum(it.similarity >= threshold for it in without)
    return Rates(
        hits=sum(hits) / len(with_right),
        wrong=(len(hits) - sum(hits)) / len(with_right),
        false=num_false / len(without),
        false_upper=exact_interval(num_false, len(without))[1],
    )


def quality(sets: dict[str, list[Look]]) -> dict[str, float]:
    """Prints the table; the figures at the shipped threshold."""
    for name, looks in sets.items():
        num_right = sum(it.has_right for it in looks)
        print(f"{name}: {num_right} look-ups with a right entry, {len(looks) - num_right} without")
        for threshold in THRESHOLDS:
            at = rates(looks, threshold)
            low, high = exact_interval(round(at.hits * num_right), num_right)
            print(f"  {threshold:.2f}  hit {at.hits:.3f} [{low:.3f}, {high:.3f}]", end="  ")
            print(f"wrong {at.wrong:.4f}  false {at.false:.4f} (at most {at.false_upper:.4f})")
    safe = [t for t in THRESHOLDS if max(rates(it, t).false_upper for it in sets.values()) <= BOUND]
    shipped = {name: rates(looks, Cache().threshold) for name, looks in sets.items()}
    return {
        "hit_rate": shipped["paraphrases"].hits,
        "false_hit_upper": max(it.false_upper for it in shipped.values()),
        "threshold": Cache().threshold,
        "lowest_safe_threshold": min(safe, default=1.0),
        **{f"hit_rate_{name}": it.hits for name, it in shipped.items()},
        **{f"false_hit_upper_{name}": it.false_upper for name, it in shipped.items()},
    }


def _event(body: dict[str, Any]) -> Frame:
    data = json.dumps(body).encode()
    return read_event(Event(encode_event(data), data))


async def answer(bill: list[Any]) -> AsyncGenerator[list[Frame]]:
    """An upstream's stream of forty pieces."""
    for number in range(40):
        said = {"index": 0, "delta": {"content": f"word {number} "}, "finish_reason": None}
        yield [_event({"object": "chat.completion.chunk", "choices": [said]})]
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    yield [_event({"object": "chat.completion.chunk", "choices": [end]}), DONE_FRAME]


async def latency(embed: Callable[[str], Any]) -> dict[str, float]:
    """p50 [ms] of an exact hit, key and replay included, and of a semantic look-up among 10^4
    questions, its embedding by a model server over HTTP included."""
    cache = AnswerCache(1 << 30)
    rng = np.random.default_rng(0)

    async def made(text: str) -> Any:
        row = rng.standard_normal(384, np.float32)
        return row / np.linalg.norm(row)

    async def serve(text: str, embed: Callable[[str], Any]) -> str:
        served = await cache.serve(question(text), answer, [], embed)
        async for _ in served.frames:
            pass
        return served.status

    async def timed(texts: Sequence[str], status: str) -> float:
        times = []
        for text in texts:
            start = time.perf_counter()
            assert await serve(text, embed) == status, text
            times.append(time.perf_counter() - start)
        return float(np.median(times)) * 1e3

    for letters in islice(product(ascii_lowercase, repeat=4), 10_000):  # numbers would be walls
        await serve(f"who is {''.join(letters)}?", made)
    texts = [text for text, _ in paraphrases().kept if not re.search(r"\d", text)]
    misses = await timed(texts, "miss")
    return {"exact_added_ms": await timed(texts, "hit"), "semantic_p50_ms_1e4": misses}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-latency", action="store_true")
    args = parser.parse_args()
    async with model_server() as url, searching(url) as searcher:
        embedder = searcher.embedder
        assert embedder is not None
        sets = {"paraphrases": paraphrases()} | (
            {"banking77": banking()} if BANKING.exists() else {}
        )
        texts = list({text for it in sets.values() for text, _ in it.kept + it.asked})
        known = dict(zip(texts, await embedder.embed(texts), strict=True))
        looks = {
            name: look_ups(it, lambda these: np.stack([known[text] for text in these]))
            for name, it in sets.items()
        }
        result = quality(looks)

        async def embed(text: str) -> Any:
            return (await embedder.embed([text], is_question=True))[0]

        if not args.no_latency:
            result |= await latency(embed)
    print(json.dumps({name: round(float(value), 4) for name, value in result.items()}))


if __name__ == "__main__":
    asyncio.run(main())
