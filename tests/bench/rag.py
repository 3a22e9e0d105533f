"""What passages do to the answers of a small model: `make bench-rag`.

    python -m tests.bench.rag [--rerank 60] [--every 1]

The golden questions over Python's own topics go to the shipped model: bare, and with the shipped
prompt and passages, the best first and the best last. An answer is scored by the words of the gold
span that it has, and by whether it has the span itself. The unanswerable ones tell what the
threshold is worth, and `--rerank` so many questions what a new order by query likelihood gains. The
last line of standard output is one JSON object; each gain is paired, with its 95 % interval.
"""

import argparse
import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec
import numpy as np

from gateway.config import Deadlines, Index
from gateway.config_file import load
from gateway.counting import counts
from gateway.prompt_file import load_folder
from gateway.prompts import Given, compose
from gateway.retrieval import augment
from gateway.retrieval.arms import STOP
from gateway.retrieval.citations import verify
from gateway.retrieval.found import Context
from gateway.retrieval.index import How, Searcher
from gateway.retrieval.ingest import Run
from gateway.retrieval.parsers import TOPICS
from gateway.retrieval.rerank import UpstreamReranker
from gateway.routing.balance import Pool
from gateway.setup import pulled_tokenizer
from gateway.upstream import Client, Target
from model.protocol.templates import Renderer
from tests.bench import ranking
from tests.bench.retrieval import ROOT, golden, model_server, relevant_passages, searching

MODEL = "smollm2"
SHIPPED = load(ROOT / "ops" / "gateway.toml").config
INDEX = SHIPPED.indexes["python-docs"]
RELEASE = SHIPPED.releases["python-docs-1"]
AT_ONCE = 4
ORDERS = ("best_first", "best_last")
Question = dict[str, Any]


def words(text: str) -> set[str]:
    return {it for it in re.findall(r"\w+", text.lower()) if not STOP.fullmatch(it)}


def told(answer: str, spans: Sequence[str]) -> float:
    """The share of a gold span's words that the answer has; of several spans the best."""
    return max(len(words(span) & words(answer)) / len(words(span)) for span in spans)


def holds(answer: str, spans: Sequence[str]) -> bool:
    said, *sought = (" ".join(re.findall(r"\w+", it.lower())) for it in (answer, *spans))
    return any(span in said for span in sought)


class Answers:
    """The shipped model behind the shipped prompt."""

    def __init__(self, url: str, http: aiohttp.ClientSession, renderer: Renderer) -> None:
        self._url = f"{url}/chat/completions"
        self._http = http
        self._renderer = renderer
        self._prompt = load_folder(ROOT / "ops" / "prompts")[RELEASE.prompt]
        self._room = asyncio.Semaphore(AT_ONCE)

    async def ask(self, question: str, context: Context | None) -> str:
        """Without a context: the bare question."""
        messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
        if context is not None:
            given = Given(messages=messages, context=context.text)
            messages = await asyncio.to_thread(compose, self._prompt, given, self._renderer)
        body = {"model": MODEL, "messages": messages, "temperature": 0}
        body["max_tokens"] = RELEASE.default_max_tokens
        async with self._room, self._http.post(self._url, json=body) as reply:
            reply.raise_for_status()
            said = (await reply.json())["choices"][0]["message"]["content"]
            return str(said)


async def context_of(searcher: Searcher, question: str, index: Index) -> Context:
    tokenizer = pulled_tokenizer(MODEL)
    return await augment.retrieve(
        question, index, RELEASE.context_budget, searcher, lambda texts: counts(texts, tokenizer)
    )


async def end_to_end(
    searcher: Searcher, answers: Answers, questions: Sequence[Question]
) -> dict[str, float]:
    """Answerable questions: what is told without passages, and with them in either order."""

    async def all_of(index: Index | None) -> list[tuple[str, Context | None]]:
        texts = [it["question"] for it in questions]
        contexts = [await context_of(searcher, it, index) if index else None for it in texts]
        said = await asyncio.gather(*map(answers.ask, texts, contexts))
        return list(zip(said, contexts, strict=True))

    said = {"bare": await all_of(None)}
    for order in ORDERS:
        said[order] = await all_of(msgspec.structs.replace(INDEX, order=order))
    result: dict[str, float] = {}
    for measure in (told, holds):
        scored = {
            name: [float(measure(it[0], q["spans"])) for it, q in zip(rows, questions, strict=True)]
            for name, rows in said.items()
        }
        result |= {f"{measure.__name__}_{name}": np.mean(row) for name, row in scored.items()}
        for name, ours, theirs in (
            ("rag", INDEX.order, "bare"),
            ("last_over_first", "best_last", "best_first"),
        ):
            low, high = ranking.paired_interval(scored[ours], scored[theirs])
            result |= {f"{measure.__name__}_gain_{name}_lo": low}
            result |= {f"{measure.__name__}_gain_{name}_hi": high}
    return result | citing(said)


def citing(said: dict[str, list[tuple[str, Context | None]]]) -> dict[str, float]:
    """What the check of citations says of the answers with passages."""
    result = {}
    for order in ORDERS:
        found = [verify(text, it.given) for text, it in said[order] if it and it.given]
        grounded = [it.groundedness for it in found if it.groundedness is not None]
        result[f"groundedness_{order}"] = float(np.mean(grounded))
        result[f"cited_{order}"] = float(np.mean([bool(it.citations) for it in found]))
        result[f"marks_dropped_{order}"] = float(sum(it.num_unverified for it in found))
    return result


async def abstaining(searcher: Searcher, questions: Sequence[Question]) -> dict[str, float]:
    """The rule that no passage is relevant: how often it is wrong, either way."""
    empty = [not (await context_of(searcher, it["question"], INDEX)).given for it in questions]
    result: dict[str, float] = {"threshold": INDEX.threshold}
    for name, is_answerable in (("false_abstain", True), ("false_answer", False)):
        wrong = [
            is_empty == is_answerable
            for is_empty, it in zip(empty, questions, strict=True)
            if bool(it["spans"]) == is_answerable
        ]
        low, high = ranking.exact_interval(sum(wrong), len(wrong))
        result |= {f"{name}_rate": np.mean(wrong), f"{name}_lo": low, f"{name}_hi": high}
    return result


async def reranking(
    searcher: Searcher, reranker: UpstreamReranker, questions: Sequence[Question]
) -> dict[str, float]:
    """nDCG of what a release gives, as fused and in the order of the questions' likelihood."""
    scored: dict[str, list[float]] = {"fused": [], "reranked": []}
    for it in questions:
        relevant = await searcher.store.read(relevant_passages, it["spans"])
        for name, judge in (("fused", None), ("reranked", reranker)):
            found = await searcher.search("", INDEX.store, it["question"], How(), judge)
            order = [hit.passage for hit in found.hits]
            scored[name].append(ranking.ndcg(order, relevant, How().top_k))
    low, high = ranking.paired_interval(scored["reranked"], scored["fused"])
    means = {f"ndcg{How().top_k}_{name}": float(np.mean(row)) for name, row in scored.items()}
    return means | {"rerank_gain_lo": low, "rerank_gain_hi": high}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rerank", type=int, default=60, help="questions; 0: none")
    parser.add_argument("--every", type=int, default=1, help="ask one question in so many")
    args = parser.parse_args()
    questions = golden()[:: args.every]
    able = [it for it in questions if it["spans"]]
    async with model_server(MODEL) as url, searching(url) as searcher:
        await Run(searcher, "", TOPICS, lambda done, total: None).ingest(INDEX.store)
        result = await abstaining(searcher, questions)
        print(result, flush=True)
        renderer = Renderer()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)) as http:
            result |= await end_to_end(searcher, Answers(url, http, renderer), able)
        renderer.close()
        print(result, flush=True)
        if args.rerank:
            client = Client()
            pool = Pool(client)
            limits = Deadlines(headers=60, first_token=60)
            target = Target(name=MODEL, model=MODEL, base_urls=(url,), deadlines=limits)
            step = max(1, len(able) // args.rerank)
            result |= await reranking(searcher, UpstreamReranker(target, pool), able[::step])
            await pool.close()
            await client.close()
    print(json.dumps({name: round(float(value), 4) for name, value in result.items()}))


if __name__ == "__main__":
    asyncio.run(main())
