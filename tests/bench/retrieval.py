"""How well and how fast passages are found: `make bench-retrieval`.

    python -m tests.bench.retrieval [--tldr 3000] [--no-latency] [--dump FILE]

Quality on the golden questions over Python's own topics, and on tldr pages where they are there;
latency of a whole hybrid search at 10^4 and 10^5 passages, the question's embedding by a model
server over HTTP included. `--dump` writes what `retrieval_check.py` compares with other people's
programs. The last line of standard output is one JSON object.
"""

import argparse
import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import sqlalchemy as sa

from gateway.config import Deadlines, Index
from gateway.metrics import Metrics
from gateway.retrieval import documents as docs
from gateway.retrieval.embedder import UpstreamEmbedder
from gateway.retrieval.files import File, put_file
from gateway.retrieval.fusion import min_max, reciprocal_rank
from gateway.retrieval.index import How, Searcher, find
from gateway.retrieval.ingest import Run
from gateway.retrieval.parsers import TOPICS
from gateway.retrieval.passages import Passage
from gateway.retrieval.stores import create_store, new_store, scope_of
from gateway.routing.balance import Pool
from gateway.setup import pulled_tokenizer
from gateway.store import Store
from gateway.store.tables import documents, files, passages
from gateway.upstream import Client, Target
from tests.bench import ranking

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "goldens" / "topics.jsonl"
TLDR = ROOT.parent / "shared" / "data" / "tldr_pages" / "tldr_en.jsonl"
ARMS = ("bm25", "vectors", "rrf", "minmax")
SHIPPED = Index(store="").fusion.replace("-", "")
DEPTH = 50
Ranked = dict[str, list[int]]


@contextlib.asynccontextmanager
async def model_server(model: str = "tiny-random") -> AsyncIterator[str]:
    """The URL of a model server with the real embedder, as a child."""
    words = [sys.executable, "-m", "model", "serve", "--model", model]
    words += ["--embedder", "minilm", "--port", "0", "--parent-pipe"]
    child = await asyncio.create_subprocess_exec(
        *words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stderr is not None
    try:
        while line := (await child.stderr.readline()).decode():
            if found := re.search(r"http://[0-9.]+:\d+", line):
                yield f"{found[0]}/v1"
                return
        raise SystemExit("the model server did not start")
    finally:
        child.terminate()
        await child.wait()


@contextlib.asynccontextmanager
async def searching(url: str) -> AsyncIterator[Searcher]:
    """An empty store with the embedder at `url`."""
    client = Client()
    pool = Pool(client)
    target = Target(
        name="embedder", model="minilm", base_urls=(url,), deadlines=Deadlines(total=60),
        tokenizer=pulled_tokenizer("minilm"),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(f"sqlite:///{folder}/bench.db")
        searcher = Searcher(store, Metrics())
        searcher.embedder = UpstreamEmbedder(target, "minilm-1", pool)
        yield searcher
        store.close()
    await pool.close()
    await client.close()


async def arms_of(searcher: Searcher, name: str, questions: Sequence[str]) -> list[Ranked]:
    """Each question's rankings of passages, by every arm and fusion; and the best cosine."""
    kept = await searcher.store.read(find, "", name)
    scope = scope_of(kept)
    assert searcher.embedder is not None
    vectors = await searcher.embedder.embed(questions)

    def search(connection: sa.Connection) -> list[Ranked]:
        found = []
        for question, vector in zip(questions, vectors, strict=True):
            words = searcher.arms.by_words(connection, scope, question, DEPTH)
            meaning = searcher.arms.by_meaning(connection, scope, vector, DEPTH)
            both = [words, meaning]
            found.append({
                "bm25": list(words), "vectors": list(meaning),
                "rrf": list(reciprocal_rank(both)), "minmax": list(min_max(both)),
                "cosine": [max(meaning.values())],
            })  # fmt: skip
        return found

    return await searcher.store.read(search)


def golden() -> list[dict[str, Any]]:
    return [json.loads(line) for line in GOLDEN.read_text().splitlines()]


def relevant_passages(connection: sa.Connection, spans: Sequence[str]) -> set[int]:
    """Passages that hold at least half of a span, wherever in the topics it stands."""
    query = (
        sa.select(passages.c.id, files.c.filename, passages.c.start, passages.c.end)
        .join(documents, documents.c.id == passages.c.document)
        .join(files, files.c.id == documents.c.file)
    )
    rows = connection.execute(query).all()
    found = set()
    for span in spans:
        pattern = re.compile(r"\s+".join(map(re.escape, span.split())))
        for name, text in topics.items():
            for it in pattern.finditer(text):
                half = (it.end() - it.start()) / 2
                found |= {
                    passage
                    for passage, source, start, end in rows
                    if source == f"{TOPICS}/{name}"
                    and min(end, it.end()) - max(start, it.start()) >= half
                }
    return found


def scores(found: Sequence[Ranked], relevant: Sequence[set[Any]]) -> dict[str, Any]:
    """Means by arm, and the interval of the shipped fusion minus the better arm."""
    by_arm = {
        arm: [ranking.ndcg(it[arm], right) for it, right in zip(found, relevant, strict=True)]
        for arm in ARMS
    }
    result: dict[str, Any] = {f"ndcg10_{arm}": np.mean(by_arm[arm]) for arm in ARMS}
    for arm in ARMS:
        pairs = [(it[arm], right) for it, right in zip(found, relevant, strict=True)]
        result[f"recall10_{arm}"] = np.mean([ranking.recall(*pair) for pair in pairs])
        result[f"recall50_{arm}"] = np.mean([ranking.recall(*pair, k=50) for pair in pairs])
        result[f"mrr_{arm}"] = np.mean([ranking.reciprocal_rank(*pair) for pair in pairs])
    better = max(("bm25", "vectors"), key=lambda arm: result[f"ndcg10_{arm}"])
    low, high = ranking.paired_interval(by_arm[SHIPPED], by_arm[better])
    return result | {"hybrid_gain_lo": low, "hybrid_gain_hi": high}


async def on_topics(searcher: Searcher, dump: Path | None) -> dict[str, Any]:
    start = time.perf_counter()
    summary = await Run(searcher, "", TOPICS, lambda done, total: None).ingest("topics")
    seconds = time.perf_counter() - start
    questions = golden()
    found = await arms_of(searcher, "topics", [it["question"] for it in questions])
    able = [i for i, it in enumerate(questions) if it["spans"]]
    relevant = await searcher.store.read(
        lambda c: [relevant_passages(c, questions[i]["spans"]) for i in able]
    )
    result = scores([found[i] for i in able], relevant)
    for kind in ("answerable", "paraphrase", "multi-passage"):
        mine = [n for n, i in enumerate(able) if questions[i]["kind"] == kind]
        part = scores([found[able[n]] for n in mine], [relevant[n] for n in mine])
        print(kind, {k: round(v, 3) for k, v in part.items() if k.startswith("ndcg")})
    yes = [found[i]["cosine"][0] for i in able]
    no = [it["cosine"][0] for i, it in enumerate(found) if i not in set(able)]
    for threshold in np.arange(0.2, 0.6, 0.05):
        passing = [np.mean(np.array(it) >= threshold) for it in (yes, no)]
        print("at threshold {:.2f} pass: answerable {:.3f}, unanswerable {:.3f}".format(
            threshold, *passing))  # fmt: skip
    result["answerable_auc"] = ranking.area_under(yes, no)
    result["ingest_passages_per_s"] = summary.passages / seconds
    if dump is not None:
        await write_dump(searcher, dump, [questions[i] for i in able], [found[i] for i in able],
                         relevant, result)  # fmt: skip
    return result


async def write_dump(
    searcher: Searcher, path: Path, questions: Any, found: Any, relevant: Any, result: Any
) -> None:
    def texts(connection: sa.Connection) -> dict[int, str]:
        query = sa.select(passages.c.id, passages.c.heading, passages.c.text)
        return {row[0]: f"{row[1]}\n{row[2]}" for row in connection.execute(query)}

    rows = [
        {"question": q["question"], "found": f, "relevant": sorted(r)}
        for q, f, r in zip(questions, found, relevant, strict=True)
    ]
    whole = {"passages": await searcher.store.read(texts), "rows": rows, "ours": result}
    await asyncio.to_thread(path.write_text, json.dumps(whole, default=float))


async def on_tldr(searcher: Searcher, count: int) -> dict[str, Any]:
    """Pages without the lines that are asked, so that no question stands in its own answer."""
    pages = [json.loads(line) for line in TLDR.read_text().splitlines()]
    asked = []
    with tempfile.TemporaryDirectory() as folder:
        for number, page in enumerate(pages):
            lines = page["text"].splitlines()
            asked += [(it[2:].rstrip(":"), number) for it in lines if it.startswith("- ")]
            kept = "\n".join(it for it in lines if not it.startswith("- "))
            (Path(folder) / f"{number:05}.md").write_text(kept)
        await Run(searcher, "", folder, lambda done, total: None).ingest("tldr")
    picked = random.Random(0).sample(asked, min(count, len(asked)))
    found = await arms_of(searcher, "tldr", [question for question, _ in picked])

    def owners(connection: sa.Connection) -> dict[int, int]:
        query = sa.select(passages.c.id, files.c.filename).select_from(
            passages.join(documents, documents.c.id == passages.c.document).join(
                files, files.c.id == documents.c.file
            )
        )
        return {row[0]: int(Path(row[1]).stem) for row in connection.execute(query)
                if row[1].endswith(".md")}  # fmt: skip

    page_of = await searcher.store.read(owners)
    by_page = [
        {arm: list(dict.fromkeys(page_of[it] for it in ranked[arm])) for arm in ARMS}
        for ranked in found
    ]
    result = scores(by_page, [{number} for _, number in picked])
    return {f"tldr_{name}": value for name, value in result.items()}


async def latency(searcher: Searcher, count: int) -> dict[str, float]:
    """p50 and p99 [ms] of a whole search among `count` made passages with made vectors."""
    words = sorted(set(re.findall(r"[a-z]{2,}", " ".join(topics.values()).lower())))
    rng = np.random.default_rng(0)
    frequent = (1 / np.arange(1, len(words) + 1)) / np.sum(1 / np.arange(1, len(words) + 1))
    order = rng.permutation(len(words))
    name = f"made-{count}"

    def fill(connection: sa.Connection) -> None:
        assert searcher.embedder is not None
        kept = create_store(connection, new_store("", name, searcher.embedder.name, {}))
        for at in range(0, count, 1000):
            file = File(id=f"file-{count}-{at}", tenant="", filename=str(at), purpose="assistants",
                        hash=str(at), bytes=1, created_at=1)  # fmt: skip
            put_file(connection, file, b"x")
            picked = order[rng.choice(len(words), (1000, 110), p=frequent)]
            made = [Passage(f"made {at}", " ".join(words[i] for i in row), 0, 1) for row in picked]
            vectors = rng.standard_normal((1000, 384), np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            document = docs.attach(connection, kept, file, "", {})
            docs.finish(connection, searcher.arms, document, made, vectors)
            docs.publish(connection, kept.id, [document.id])

    await searcher.store.write(fill)
    questions = [it["question"] for it in golden()]
    how = How()
    for question in questions[:20]:
        await searcher.search("", name, question, how)
    times = []
    for question in questions * 2:
        start = time.perf_counter()
        found = await searcher.search("", name, question, how)
        times.append(time.perf_counter() - start)
        assert found.mode == "hybrid"
    size = f"1e{round(np.log10(count))}"
    p50, p99 = np.quantile(times, [0.5, 0.99]) * 1e3
    return {f"p50_ms_{size}": p50, f"p99_ms_{size}": p99}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tldr", type=int, default=3000, help="questions on tldr pages; 0: none")
    parser.add_argument("--no-latency", action="store_true")
    parser.add_argument("--dump", type=Path)
    args = parser.parse_args()
    async with model_server() as url, searching(url) as searcher:
        result = await on_topics(searcher, args.dump)
        if args.tldr and TLDR.exists():
            result |= await on_tldr(searcher, args.tldr)
        for count in () if args.no_latency else (10_000, 100_000):
            result |= await latency(searcher, count)
    print(json.dumps({name: round(float(value), 4) for name, value in result.items()}))


if __name__ == "__main__":
    asyncio.run(main())
