"""What holds for search on both databases: arms, snapshots, epochs, filters, tenants, fallbacks."""

from typing import Any

import pytest

from gateway.errors import BadRequest, NotFound
from gateway.retrieval import documents as docs
from gateway.retrieval.embedder import HashedWords
from gateway.retrieval.index import How, Searcher, find

pytestmark = pytest.mark.anyio


async def names(searcher: Searcher, question: str, name: str = "shelf", **how: Any) -> list[str]:
    tenant = how.pop("tenant", "")
    found = await searcher.search(tenant, name, question, How(**how))
    return [hit.filename for hit in found.hits]


async def test_both_arms_find_and_say_where(searcher: Any, shelf: Any, texts: Any) -> None:
    kept = shelf.store()
    for name in ("fox", "tea", "moon"):
        await shelf.put(kept, f"{name}.txt", getattr(texts, name))
    found = await searcher.search("", "shelf", "how long should green tea steep?", How(top_k=2))
    assert (found.mode, found.snapshot, found.store) == ("hybrid", 3, kept.id)
    best = found.hits[0]
    assert (best.filename, best.text) == ("tea.txt", texts.tea)
    assert texts.tea[best.start : best.end] == best.text
    assert best.score == pytest.approx(1.0)
    assert best.relevance is not None
    assert best.relevance > 0.2
    assert len(found.hits) == 2


@pytest.mark.parametrize("fusion", ["rrf", "min-max"])
async def test_hits_are_ordered_by_score(
    fusion: Any, searcher: Any, shelf: Any, texts: Any
) -> None:
    kept = shelf.store()
    for name, text in vars(texts).items():
        await shelf.put(kept, name, text)
    found = await searcher.search("", "shelf", "the moon and the river", How(fusion=fusion))
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


async def test_words_are_data_not_syntax(searcher: Any, shelf: Any, texts: Any) -> None:
    await shelf.put(shelf.store(), "fox", texts.fox)
    for question in ('"', "fox* AND (", "NEAR(a b)", "'; DROP", "store:vs", "a\0b", "-", "", "é ß"):
        await searcher.search("", "shelf", question, How())


async def test_a_snapshot_is_what_it_was(searcher: Any, shelf: Any, texts: Any) -> None:
    kept = shelf.store()
    file = await shelf.put(kept, "a.txt", texts.fox)
    await shelf.put(kept, "b.txt", texts.tea)
    await shelf.put(kept, "a.txt", texts.moon, file_id=file)
    now = await searcher.search("", "shelf", "fox moon", How())
    assert now.snapshot == 3
    assert {hit.text for hit in now.hits} == {texts.tea, texts.moon}
    then = await searcher.search("", "shelf@1", "fox moon", How())
    assert [hit.text for hit in then.hits] == [texts.fox]
    assert {hit.text for hit in (await searcher.search("", "shelf@2", "x", How())).hits} == {
        texts.fox,
        texts.tea,
    }
    with pytest.raises(BadRequest, match="no snapshot 4"):
        await searcher.search("", "shelf@4", "fox", How())


async def test_deleted_means_gone_from_every_snapshot(
    searcher: Any, shelf: Any, texts: Any
) -> None:
    kept = shelf.store()
    file = await shelf.put(kept, "a.txt", texts.fox)
    await shelf.put(kept, "b.txt", texts.tea)
    assert "a.txt" in await names(searcher, "quick fox")
    await searcher.store.write(docs.detach, searcher.arms, "", kept.id, file)
    for name in ("shelf", "shelf@1", "shelf@2"):
        found = await searcher.search("", name, "quick brown fox", How())
        assert "a.txt" not in [hit.filename for hit in found.hits]
        assert found.epoch == 1
    assert (await searcher.store.read(find, "", "shelf")).epoch == 1


async def test_what_is_not_published_is_not_seen(searcher: Any, shelf: Any, texts: Any) -> None:
    from gateway.retrieval.files import File, put_file
    from gateway.retrieval.parsers import parse
    from gateway.retrieval.passages import cut

    kept = shelf.store()
    await shelf.put(kept, "b.txt", texts.tea)
    file = File(
        id="file-x", tenant="", filename="x.txt", purpose="assistants", hash="h", bytes=1,
        created_at=1,
    )  # fmt: skip
    found = cut(parse("x.txt", texts.fox.encode()), searcher.embedder.pieces)
    vectors = await searcher.embedder.embed([it.indexed for it in found])
    with searcher.store.begin(write=True) as connection:
        put_file(connection, file, b"x")
        document = docs.attach(connection, kept, file, "", {})
        assert docs.finish(connection, searcher.arms, document, found, vectors)
        assert not docs.finish(connection, searcher.arms, document, found, vectors)
    assert await names(searcher, "quick brown fox") == ["b.txt"]
    with searcher.store.begin(write=True) as connection:
        docs.publish(connection, kept.id, [document.id])
    assert (await names(searcher, "quick brown fox"))[0] == "x.txt"


FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({"type": "eq", "key": "lang", "value": "en"}, {"fox", "tea"}),
    ({"type": "ne", "key": "lang", "value": "en"}, {"moon", "bare"}),
    ({"type": "gt", "key": "year", "value": 2000}, {"tea", "moon"}),
    ({"type": "gte", "key": "year", "value": 1999.5}, {"fox", "tea", "moon"}),
    ({"type": "lt", "key": "year", "value": 2001}, {"fox"}),
    ({"type": "lte", "key": "year", "value": 2001}, {"fox", "tea"}),
    ({"type": "gt", "key": "lang", "value": "en"}, {"moon"}),
    ({"type": "eq", "key": "draft", "value": True}, {"fox"}),
    ({"type": "ne", "key": "draft", "value": True}, {"tea", "moon", "bare"}),
    ({"type": "eq", "key": "year", "value": "2000"}, set()),
    ({"type": "eq", "key": "draft", "value": 1}, set()),
    ({"type": "in", "key": "lang", "value": ["en", "fr"]}, {"fox", "tea", "moon"}),
    ({"type": "nin", "key": "lang", "value": ["en"]}, {"moon", "bare"}),
    ({"type": "in", "key": "lang", "value": []}, set()),
    ({"type": "eq", "key": "odd 'key.$[0]", "value": "x"}, {"fox"}),
    ({"type": "eq", "key": "lang' OR 1=1 --", "value": "en"}, set()),
    (
        {
            "type": "and",
            "filters": [
                {"type": "eq", "key": "lang", "value": "en"},
                {
                    "type": "or",
                    "filters": [
                        {"type": "gt", "key": "year", "value": 2000},
                        {"type": "eq", "key": "draft", "value": False},
                    ],
                },
            ],
        },
        {"tea"},
    ),
]


async def test_filters_hold_inside_the_query(searcher: Any, shelf: Any, texts: Any) -> None:
    kept = shelf.store()
    await shelf.put(
        kept, "fox", texts.fox, lang="en", year=2000, draft=True, **{"odd 'key.$[0]": "x"}
    )
    await shelf.put(kept, "tea", texts.tea, lang="en", year=2001, draft="no")
    await shelf.put(kept, "moon", texts.moon, lang="fr", year=2002.5, draft=False)
    await shelf.put(kept, "bare", "A passage about the lazy moon tea of nobody.")
    for given, expected in FILTERS:
        found = await names(searcher, "lazy moon tea", filters=given, top_k=10)
        assert set(found) == expected, given


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({}, "filters"),
        ({"type": "eq", "key": 'a"', "value": 1}, "filters"),
        ({"type": "eq", "key": "a", "value": [1]}, "filters.value"),
        ({"type": "in", "key": "a", "value": 1}, "filters.value"),
        ({"type": "gt", "key": "a", "value": True}, "filters.value"),
        ({"type": "and", "filters": []}, "filters"),
        (
            {"type": "or", "filters": [{"type": "like", "key": "a", "value": 1}]},
            "filters.filters[0]",
        ),
    ],
)
async def test_a_wrong_filter_is_refused(given: Any, param: str, searcher: Any, shelf: Any) -> None:
    shelf.store()
    with pytest.raises(BadRequest) as raised:
        await searcher.search("", "shelf", "x", How(filters=given))
    assert raised.value.param == param


async def test_a_tenant_sees_its_own(searcher: Any, shelf: Any, texts: Any) -> None:
    ours, theirs = shelf.store(tenant="team:a"), shelf.store(tenant="team:b")
    await shelf.put(ours, "ours", texts.fox)
    await shelf.put(theirs, "theirs", texts.fox)
    assert await names(searcher, "quick fox", tenant="team:a") == ["ours"]
    assert await names(searcher, "quick fox", tenant="team:b") == ["theirs"]
    for name in ("shelf", ours.id, theirs.id):
        with pytest.raises(NotFound):
            await names(searcher, "quick fox", name)
    with pytest.raises(NotFound):
        await names(searcher, "quick fox", theirs.id, tenant="team:a")


async def test_without_the_embedder_words_decide_until_it_is_back(
    searcher: Any, shelf: Any, texts: Any
) -> None:
    kept = shelf.store()
    await shelf.put(kept, "fox", texts.fox)
    await shelf.put(kept, "tea", texts.tea)
    searcher.embedder.is_silent = True
    found = await searcher.search("", "shelf", "steep tea", How())
    assert (found.mode, [hit.filename for hit in found.hits]) == ("fallback", ["tea"])
    assert found.hits[0].relevance is None
    searcher.embedder.is_silent = False
    assert (await searcher.search("", "shelf", "steep tea", How())).mode == "hybrid"


async def test_vectors_of_another_model_are_refused(searcher: Any, shelf: Any, texts: Any) -> None:
    await shelf.put(shelf.store(), "fox", texts.fox)
    searcher.embedder = HashedWords(name="hashed-words@2")
    with pytest.raises(BadRequest, match="embedded by hashed-words@1") as raised:
        await searcher.search("", "shelf", "fox", How())
    assert raised.value.code == "embedder_mismatch"


async def test_repeats_are_left_out(searcher: Any, shelf: Any, texts: Any) -> None:
    kept = shelf.store()
    await shelf.put(kept, "one", texts.fox)
    await shelf.put(kept, "two", texts.fox + " ")
    found = await searcher.search("", "shelf", "fox", How())
    assert (len(found.hits), found.num_repeats) == (1, 1)


async def test_a_reranker_has_the_last_word(searcher: Any, shelf: Any, texts: Any) -> None:
    class Backwards:
        async def scores(self, question: str, texts: Any) -> list[float] | None:
            return [float(i) for i in range(len(texts))]

    class Silent:
        async def scores(self, question: str, texts: Any) -> list[float] | None:
            return None

    kept = shelf.store()
    for name, text in vars(texts).items():
        await shelf.put(kept, name, text)
    plain = await searcher.search("", "shelf", "moon river", How())
    turned = await searcher.search("", "shelf", "moon river", How(), Backwards())
    same = await searcher.search("", "shelf", "moon river", How(), Silent())
    assert [it.filename for it in turned.hits] == [it.filename for it in plain.hits][::-1]
    assert same.hits == plain.hits


async def test_a_text_is_as_near_to_a_passage_as_its_vectors_say(
    searcher: Any, shelf: Any, texts: Any
) -> None:
    kept = shelf.store()
    for name in ("fox", "tea"):
        await shelf.put(kept, name, getattr(texts, name))
    found = (await searcher.search("", "shelf", "green tea", How())).hits
    tea, fox = (hit.passage for hit in found)
    same, other, gone = await searcher.nearness([texts.tea] * 3, [tea, fox, 10**9])
    assert same > 0.9 > 0.5 > other
    assert gone is None
    searcher.embedder.is_silent = True
    assert await searcher.nearness([texts.tea], [tea]) == [None]
    searcher.embedder = HashedWords(dimensions=8)
    assert await searcher.nearness([texts.tea], [tea]) == [None]
