"""Our measures against ir-measures, our keywords against bm25s, and how long the same passages take
sentence-transformers to embed alone, where our ingestion cuts and writes them, too.

    python -m tests.bench.retrieval --dump FILE --tldr 0 --no-latency
    BENCH-VENV/bin/python tests/bench/retrieval_check.py FILE

Runs in the environment of `requirements/bench.txt`; knows nothing of the gateway.
"""

import json
import sys
from pathlib import Path

import bm25s
import ir_measures
from embedding import seconds, sentence_transformer
from ir_measures import RR, R, nDCG

MEASURES = {"ndcg10": nDCG @ 10, "recall10": R @ 10, "mrr": RR}


def main(path: str) -> None:
    dump = json.loads(Path(path).read_text())
    rows = dump["rows"]
    qrels = {str(n): {str(it): 1 for it in row["relevant"]} for n, row in enumerate(rows)}
    worst = 0.0
    for arm in ("bm25", "vectors", "rrf", "minmax"):
        run = {
            str(n): {str(it): -float(place) for place, it in enumerate(row["found"][arm])}
            for n, row in enumerate(rows)
        }
        theirs = ir_measures.calc_aggregate(list(MEASURES.values()), qrels, run)
        for name, measure in MEASURES.items():
            worst = max(worst, abs(theirs[measure] - dump["ours"][f"{name}_{arm}"]))
    ids = list(dump["passages"])
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index(bm25s.tokenize([dump["passages"][it] for it in ids], stopwords="en"))
    asked = bm25s.tokenize([row["question"] for row in rows], stopwords="en")
    places, scores = index.retrieve(asked, k=50)
    run = {
        str(n): {
            ids[place]: float(score)
            for place, score in zip(places[n], scores[n], strict=True)
            if score > 0
        }
        for n in range(len(rows))
    }
    theirs = ir_measures.calc_aggregate([nDCG @ 10], qrels, run)
    network = sentence_transformer()
    per_s = len(ids) / seconds(network.encode, list(dump["passages"].values()))
    result = {
        "largest_difference": worst,
        "ndcg10_bm25s": theirs[nDCG @ 10],
        "ndcg10_bm25": dump["ours"]["ndcg10_bm25"],
        "embed_passages_per_s_sentence_transformers": per_s,
        "ingest_vs_sentence_transformers": dump["ours"]["ingest_passages_per_s"] / per_s,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
