"""Files and vector stores, as OpenAI's own client uses them, and what a tenant cannot do."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest

from gateway.retrieval.api import ROUTES
from gateway.retrieval.embedder import HashedWords
from gateway.retrieval.ingest import Ingester
from gateway.store.audit import By
from gateway.store.keys import OPERATOR, NewKey, create
from gateway.store.teams import put_team

pytestmark = pytest.mark.anyio

FOX = b"# Animals\n\nThe quick brown fox jumps over the lazy dog near the river bank.\n"
TEA = b"Green tea should steep for two minutes in water that does not boil."


@asynccontextmanager
async def client_of(house: Any, key: str = "none") -> Any:
    house.state.searcher.embedder = house.state.searcher.embedder or HashedWords()
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=0) as client:
        yield client


async def add_key(house: Any, name: str, team: str = "", **more: Any) -> str:
    def write(connection: Any) -> str:
        if team:
            put_team(connection, By("test"), team)
        new = NewKey(name=name, team=team, scopes=("files",), **more)
        return create(connection, By("test"), OPERATOR, new)[1]

    text = await house.state.store.write(write)
    await house.state.mirror.refresh()
    return text


async def ready(client: Any, store: str) -> Any:
    """The store, once nothing in it is in progress."""
    async with asyncio.timeout(10):
        while True:
            found = await client.vector_stores.retrieve(store)
            if found.status == "completed":
                return found
            await asyncio.sleep(0.01)


async def test_files_come_and_go(open_house: Any) -> None:
    async with open_house() as house, client_of(house) as client:
        made = await client.files.create(file=("fox ü.md", FOX), purpose="assistants")
        assert (made.bytes, made.filename, made.status) == (len(FOX), "fox ü.md", "processed")
        other = await client.files.create(file=("tea.txt", TEA), purpose="user_data")
        assert [it.id async for it in client.files.list(limit=1)] == [other.id, made.id]
        assert [it.id async for it in client.files.list(purpose="assistants")] == [made.id]
        assert (await client.files.retrieve(made.id)) == made
        assert (await client.files.content(made.id)).content == FOX
        assert (await client.files.delete(made.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(made.id)


async def test_a_store_from_upload_to_search(open_house: Any) -> None:
    async with open_house() as house, client_of(house) as client:
        fox = await client.files.create(file=("fox.md", FOX), purpose="assistants")
        tea = await client.files.create(file=("tea.txt", TEA), purpose="assistants")
        store = await client.vector_stores.create(
            name="things", file_ids=[fox.id], metadata={"a": "b"}
        )
        added = await client.vector_stores.files.create(
            store.id, file_id=tea.id, attributes={"kind": "drink", "hot": True, "n": 2.5}
        )
        assert (added.id, added.vector_store_id) == (tea.id, store.id)
        store = await ready(client, store.id)
        assert (store.name, store.metadata, store.file_counts.completed) == (
            "things", {"a": "b"}, 2,
        )  # fmt: skip
        assert store.usage_bytes > 0
        page = await client.vector_stores.search(store.id, query="how long does green tea steep?")
        best = page.data[0]
        assert (best.file_id, best.filename) == (tea.id, "tea.txt")
        assert best.content[0].text.encode() == TEA
        assert best.attributes == {"kind": "drink", "hot": True, "n": 2.5}
        assert 0 < best.score <= 1
        page = await client.vector_stores.search(
            store.id,
            query=["fox", "tea"],
            filters={"type": "eq", "key": "kind", "value": "drink"},
            max_num_results=1,
        )
        assert [it.file_id for it in page.data] == [tea.id]
        page = await client.vector_stores.search(
            store.id, query="fox", ranking_options={"score_threshold": 1.0}
        )
        assert [it.file_id for it in page.data] == [fox.id]
        files = [it async for it in client.vector_stores.files.list(store.id, limit=1)]
        assert {it.id for it in files} == {fox.id, tea.id}
        content = await client.vector_stores.files.content(fox.id, vector_store_id=store.id)
        assert "quick brown fox" in content.data[0].text
        changed = await client.vector_stores.files.update(
            fox.id, vector_store_id=store.id, attributes={"kind": "animal"}
        )
        assert changed.attributes == {"kind": "animal"}
        gone = await client.vector_stores.files.delete(fox.id, vector_store_id=store.id)
        assert gone.deleted
        page = await client.vector_stores.search(store.id, query="quick brown fox")
        assert fox.id not in [it.file_id for it in page.data]
        assert [it.id async for it in client.vector_stores.list()] == [store.id]
        assert (await client.vector_stores.update(store.id, name="new")).name == "new"
        assert (await client.vector_stores.delete(store.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.vector_stores.search(store.id, query="tea")


async def test_batches(open_house: Any) -> None:
    async with open_house() as house, client_of(house) as client:
        store = await client.vector_stores.create()
        ids = [
            (await client.files.create(file=(name, raw), purpose="assistants")).id
            for name, raw in (("a.md", FOX), ("b.txt", TEA), ("c.bin", b"\xff\xfe\0"))
        ]
        batch = await client.vector_stores.file_batches.create(store.id, file_ids=ids)
        assert batch.file_counts.total == 3
        await ready(client, store.id)
        batch = await client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id)
        assert (batch.status, batch.file_counts.completed, batch.file_counts.failed) == (
            "completed", 2, 1,
        )  # fmt: skip
        listed = client.vector_stores.file_batches.list_files(
            batch.id, vector_store_id=store.id, filter="failed"
        )
        failed = [it async for it in listed]
        assert [it.id for it in failed] == [ids[2]]
        assert "not UTF-8" in failed[0].last_error.message


async def test_attributes_of_a_batch_are_for_all_of_it(open_house: Any) -> None:
    async with open_house() as house, client_of(house) as client:
        store = await client.vector_stores.create()
        ids = [
            (await client.files.create(file=(name, FOX), purpose="assistants")).id
            for name in ("a.md", "b.md")
        ]
        files: Any = [{"file_id": ids[0]}, {"file_id": ids[1], "attributes": {"kind": "tale"}}]
        given: Any = {"kind": "fact", "year": 1}
        await client.vector_stores.file_batches.create(store.id, files=files, attributes=given)
        found = {it.id: it.attributes async for it in client.vector_stores.files.list(store.id)}
        assert found == {ids[0]: {"kind": "fact", "year": 1}, ids[1]: {"kind": "tale", "year": 1}}


async def test_a_cancelled_batch_is_not_ingested(open_house: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(Ingester, "wake", lambda self: None)
    async with open_house() as house, client_of(house) as client:
        store = await client.vector_stores.create()
        file = await client.files.create(file=("a.md", FOX), purpose="assistants")
        batch = await client.vector_stores.file_batches.create(store.id, file_ids=[file.id])
        batch = await client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id)
        assert (batch.status, batch.file_counts.cancelled) == ("cancelled", 1)


async def test_passages_are_cut_one_way(open_house: Any) -> None:
    async with open_house() as house, client_of(house) as client:
        cut = {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 40}
        file = await client.files.create(file=("a.md", FOX), purpose="assistants")
        store = await client.vector_stores.create()
        shown = await client.vector_stores.files.create(
            store.id, file_id=file.id, chunking_strategy={"type": "static", "static": cut}
        )
        assert shown.chunking_strategy.to_dict()["static"] == cut
        cut["max_chunk_size_tokens"] = 800
        with pytest.raises(openai.BadRequestError, match="passages have 200 tokens"):
            await client.vector_stores.create(chunking_strategy={"type": "static", "static": cut})


async def test_a_store_whose_time_is_over(open_house: Any) -> None:
    async with open_house() as house, client_of(house) as client:
        store = await client.vector_stores.create(
            expires_after={"anchor": "last_active_at", "days": 1}
        )
        assert store.expires_at == store.last_active_at + 86_400
        await house.state.store.write(
            lambda c: c.exec_driver_sql("UPDATE vector_stores SET last_active_at = 1")
        )
        assert (await client.vector_stores.retrieve(store.id)).status == "expired"
        with pytest.raises(openai.BadRequestError) as raised:
            await client.vector_stores.search(store.id, query="x")
        assert raised.value.code == "vector_store_expired"


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/v1/vector_stores", {"nothing": 1}, "nothing"),
        ("POST", "/v1/vector_stores", {"name": 7}, "name"),
        ("POST", "/v1/vector_stores", {"file_ids": ["file-none"]}, "file_id"),
        ("POST", "/v1/vector_stores", {"chunking_strategy": {"type": "static"}},
         "chunking_strategy"),
        ("POST", "/v1/vector_stores/vs_none/search", {}, "query"),
        ("POST", "/v1/vector_stores/vs_none/search", {"query": "x", "max_num_results": 51},
         "max_num_results"),
        ("POST", "/v1/vector_stores/vs_none/search", {"query": "x", "rewrite_query": True},
         "rewrite_query"),
        ("POST", "/v1/vector_stores/vs_none/file_batches", {}, "file_ids"),
        ("GET", "/v1/files?limit=0", None, "limit"),
        ("GET", "/v1/files?order=up", None, "order"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(
    method: str, path: str, body: Any, param: str, open_house: Any
) -> None:
    async with open_house() as house:
        reply = await house.ask(method, path, json=body)
        error = (await reply.json())["error"]
        assert 400 <= reply.status < 500
        assert error["param"] == param, error


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"{}", "application/json"),
        (b"--x", "multipart/form-data; boundary=x"),
        (b"--x\r\n\r\nno\r\n--x--", "multipart/form-data; boundary=x"),
        (b"--x\r\nnothing\r\n--x--", "multipart/form-data; boundary=x"),
        (b"--x\r\n" * 40, "multipart/form-data; boundary=x"),
        (b"", "multipart/form-data"),
    ],
)
async def test_a_broken_form_is_a_400(raw: bytes, kind: str, open_house: Any) -> None:
    async with open_house() as house:
        reply = await house.ask("POST", "/v1/files", data=raw, headers={"content-type": kind})
        assert reply.status == 400, await reply.text()


async def test_no_field_of_an_upload_is_dropped_in_silence(open_house: Any) -> None:
    async with open_house() as house, client_of(house) as client:
        file = {"file": ("a.md", FOX), "purpose": "assistants"}
        with pytest.raises(openai.BadRequestError, match="expires_after") as caught:
            await client.files.create(
                **file, expires_after={"anchor": "created_at", "seconds": 3600}
            )
        assert caught.value.param == "expires_after"
        form = aiohttp.FormData([("purpose", "assistants")])
        for content in (FOX, TEA):
            form.add_field("file", content, filename="a.md")
        reply = await house.ask("POST", "/v1/files", data=form)
        assert (reply.status, (await reply.json())["error"]["param"]) == (400, "file")
        assert not (await client.files.list()).data


async def test_there_is_so_much_room(open_house: Any) -> None:
    over = {"retrieval": {"max_files": 1, "max_bytes": 100}}
    async with open_house(over) as house, client_of(house) as client:
        with pytest.raises(openai.BadRequestError, match="there is room"):
            await client.files.create(file=("big", b"x" * 101), purpose="assistants")
        await client.files.create(file=("a", b"x"), purpose="assistants")
        with pytest.raises(openai.BadRequestError, match="there is room"):
            await client.files.create(file=("b", b"x"), purpose="assistants")


async def test_another_tenants_things_are_not_there(open_house: Any) -> None:
    """Each route that names a file, a store or a batch, asked with those of another team."""
    async with open_house() as house:
        ours, theirs = await add_key(house, "a", "red"), await add_key(house, "b", "blue")
        alone = await add_key(house, "c")
        async with client_of(house, theirs) as client:
            file = await client.files.create(file=("secret.md", FOX), purpose="assistants")
            store = await client.vector_stores.create(name="secret", file_ids=[file.id])
            await ready(client, store.id)
            batch = await client.vector_stores.file_batches.create(store.id, file_ids=[file.id])
        bodies = {"search": {"query": "quick brown fox"}, "files": {"file_id": file.id},
                  "file_batches": {"file_ids": [file.id]}, "file": {"attributes": {}}}  # fmt: skip
        names = {"file": file.id, "store": store.id, "batch": batch.id}
        for key in (ours, alone):
            for method, path, _ in ROUTES:
                if "{" not in path:
                    continue
                last = path.rpartition("/")[2].strip("{}")
                reply = await house.ask(
                    method,
                    path.format(**names),
                    json=bodies.get(last, {}) if method == "POST" else None,
                    headers={"authorization": f"Bearer {key}"},
                )
                text = await reply.text()
                assert reply.status == 404, (method, path, text)
                assert "brown" not in text
            for path in ("/v1/files", "/v1/vector_stores"):
                reply = await house.ask("GET", path, headers={"authorization": f"Bearer {key}"})
                assert (await reply.json())["data"] == []
            async with client_of(house, key) as client:
                with pytest.raises(openai.NotFoundError):
                    await client.vector_stores.create(file_ids=[file.id])
                mine = await client.vector_stores.create(name="mine")
                with pytest.raises(openai.NotFoundError):
                    await client.vector_stores.files.create(mine.id, file_id=file.id)
                page = await client.vector_stores.search(mine.id, query="quick brown fox")
                assert page.data == []
                await client.vector_stores.delete(mine.id)
        async with client_of(house, theirs) as client:
            page = await client.vector_stores.search(store.id, query="quick brown fox")
            assert [it.file_id for it in page.data] == [file.id]


async def test_requests_count_against_the_limits(open_house: Any) -> None:
    over = {"limits": {"small": {"requests_per_minute": 2}}, "server": {"key_limits": "small"}}
    async with open_house(over) as house:
        key = {"authorization": f"Bearer {await add_key(house, 'a')}"}
        statuses = [(await house.ask("GET", "/v1/files", headers=key)).status for _ in range(3)]
        assert statuses == [200, 200, 429]
