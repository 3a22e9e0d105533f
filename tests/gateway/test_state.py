"""A changed config file: swapped whole while streams run, or refused with the old one in use."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway import moves
from gateway import state as module
from gateway.config_file import ConfigError, load
from gateway.setup import make_setup
from gateway.store.audit import By

pytestmark = pytest.mark.anyio


def write(path: Path, url: str, extra: str = "", sampling: str = "") -> None:
    path.write_text(
        f"""
        [server]
        drain_s = 0.5
        [upstreams.up]
        base_url = "{url}/v1"
        model = "up-model"
        [families.town]
        labels = {{ production = "town-1" }}
        [releases.town-1]
        family = "town"
        upstream = "up"
        sampling = {{ {sampling} }}
        [retries]
        backoff_s = 0.001
        backoff_max_s = 0.01
        [store]
        url = "sqlite:///{path.parent}/store.db"
        journal = "{path.parent}/journal"
        {extra}
        """
    )


NEW = """
[releases.town-2]
family = "town"
upstream = "up"
[families.city]
labels = { production = "city-1" }
[releases.city-1]
family = "city"
upstream = "up"
"""


async def test_a_good_change_is_taken_and_drops_no_stream(
    open_house: Any, upstream: Any, say: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_S", 0.01)
    go = asyncio.Event()
    upstream.pieces = [say.word("Par"), go, say.FINISH, say.DONE]
    async with open_house() as house:
        write(tmp_path / "gateway.toml", upstream.url)
        house.state.setup = make_setup(load(tmp_path / "gateway.toml", env={}))
        reply = await house.chat(stream=True)
        write(tmp_path / "gateway.toml", upstream.url, NEW)
        async with asyncio.timeout(5):
            while "city" not in house.state.mirror.labels:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await house.chat(model="city")).headers["x-glassgate-release"] == "city-1"
        go.set()
        assert (await reply.text()).endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("extra", "sampling", "path"),
    [
        ("", "temperature = 0.5", "releases.town-1"),
        ("[nonsense]", "", "nonsense"),
        ("[local]", "", "local"),
        ("[breaker]\nsilences = 2", "", "breaker"),
        ("[releases.town-2]\nfamily='town'\nupstream='down'", "", "releases.town-2.upstream"),
        ("[upstreams.new]\nbase_url='http://u'\nmodel='m'\napi_key_env='NO'", "", "upstreams.new"),
        (
            "[upstreams.new]\nbase_url='http://u'\nmodel='m'\ntokenizer='/nowhere.json'",
            "",
            "upstreams.new.tokenizer",
        ),
    ],
)
async def test_a_bad_change_is_refused_whole(
    open_house: Any, upstream: Any, tmp_path: Path, extra: str, sampling: str, path: str
) -> None:
    async with open_house() as house:
        write(tmp_path / "gateway.toml", upstream.url)
        house.state.setup = old = make_setup(load(tmp_path / "gateway.toml", env={}))
        write(tmp_path / "gateway.toml", upstream.url, extra, sampling)
        with pytest.raises(ConfigError) as caught:
            await house.state.reload()
        assert str(caught.value).startswith(f"{path}:")
        assert house.state.setup is old


async def test_a_reload_undoes_no_promotion(open_house: Any, upstream: Any, tmp_path: Path) -> None:
    async with open_house() as house:
        write(tmp_path / "gateway.toml", upstream.url, NEW)
        house.state.setup = make_setup(load(tmp_path / "gateway.toml", env={}))
        await house.state.store.write(
            moves.promote,
            By("me", "test"),
            house.state.setup.config,
            "town",
            "production",
            "town-2",
        )
        await house.state.mirror.refresh()
        await house.state.reload()
        await house.state.mirror.refresh()
        assert (await house.chat()).headers["x-glassgate-release"] == "town-2"
