"""What is sent for the pages, without a browser: headers, files, and what they must not hold."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest

from gateway.web.pages import ASSETS, HERE, KINDS, PAGES

pytestmark = pytest.mark.anyio

VENDOR = HERE / "static" / "vendor"
OWN = [
    path
    for path in sorted(HERE.rglob("*"))
    if path.suffix in {*KINDS, ".html"} and VENDOR not in path.parents
]


async def test_every_asset_is_bound_to_its_origin(open_house: Any) -> None:
    async with open_house() as house:
        for url, asset in ASSETS.items():
            reply = await house.ask("GET", url)
            assert (reply.status, reply.content_type) == (200, asset.kind), url
            assert await reply.read() == asset.content
            policy = dict(
                part.strip().split(" ", 1)
                for part in reply.headers["content-security-policy"].split(";")
            )
            assert policy["default-src"] == "'none'"
            assert {policy[f"{it}-src"] for it in ("script", "style", "connect", "img")} == {
                "'self'"
            }
            assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert policy["require-trusted-types-for"] == "'script'"
            assert "unsafe" not in str(policy)
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["referrer-policy"] == "no-referrer"
            assert "set-cookie" not in reply.headers


async def test_what_a_browser_has_is_not_sent_again(open_house: Any) -> None:
    async with open_house() as house:
        first = await house.ask("GET", "/")
        again = await house.ask("GET", "/", headers={"if-none-match": first.headers["etag"]})
        assert (again.status, await again.read()) == (304, b"")
        other = await house.ask("GET", "/", headers={"if-none-match": '"another"'})
        assert other.status == 200


async def test_nothing_but_the_files_is_served(open_house: Any) -> None:
    async with open_house() as house:
        for path in ("/web/", "/web/pages.py", "/web/../app.py", "/web/vendor/uplot/LICENSE"):
            assert (await house.ask("GET", path)).status == 404, path


@pytest.mark.parametrize("url", PAGES)
def test_no_script_or_style_is_inline(url: str) -> None:
    html = ASSETS[url].content.decode()
    assert all("src=" in tag for tag in re.findall(r"<script\b[^>]*>", html))
    assert not re.search(r"<style\b|\sstyle=|\son\w+=|javascript:", html)


@pytest.mark.parametrize("path", OWN, ids=lambda it: it.name)
def test_own_files_make_no_html_keep_no_cookie_and_go_nowhere(path: Any) -> None:
    text = path.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
    banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.(write|cookie)|\beval\(|Function\("
    assert not re.search(rf"https?://|{banned}", text)


def named(url: str, text: str) -> Iterator[str]:
    """The URLs of our own that a page or module asks for."""
    yield from re.findall(r'(?:src|href)="(/[^"#]*)"', text)
    for name in re.findall(r'from "(\.[^"]+)"', text):
        yield str(PurePosixPath(url).parent / name)


def test_every_file_that_is_named_is_there_and_every_one_there_is_named() -> None:
    asked = {
        name
        for url, asset in ASSETS.items()
        if "vendor" not in url
        for name in named(url, asset.content.decode())
    }
    assert asked == set(ASSETS)


def test_what_others_wrote_is_as_they_published_it() -> None:
    folder = VENDOR / "uplot"
    sums = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert {"LICENSE", *(it.name for it in folder.iterdir() if it.suffix in KINDS)} == set(sums)
    for name, expected in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected


OFFER = {
    "upstreams": {
        "vectors": {"base_url": "http://127.0.0.1:9/v1", "model": "v"},
    },
    "families": {
        "town": {"labels": {"production": "town-1", "canary": "town-2"}},
        "vectors": {"labels": {"production": "vectors-1"}},
        "other": {"labels": {"production": "other-1"}},
    },
    "releases": {
        "town-2": {"family": "town", "upstream": "up", "sampling": {"temperature": 0.5}},
        "vectors-1": {"family": "vectors", "upstream": "vectors"},
        "other-1": {"family": "other", "upstream": "up"},
    },
    "retrieval": {"embedder": "vectors"},
}


async def test_families_that_chat_are_offered_to_whom_they_are_for(
    open_house: Any, make_key: Any
) -> None:
    async with open_house(OFFER) as house:
        found = (await (await house.ask("GET", "/web/families")).json())["data"]
        assert [it["id"] for it in found] == ["town", "other"]
        assert found[0]["production"] == "town-1"
        releases = {it["id"]: it for it in found[0]["releases"]}
        assert releases["town-2"] == {
            "id": "town-2",
            "labels": ["canary"],
            "temperature": 0.5,
            "max_tokens": 512,
            "prompt": "",
            "index": "",
        }
        key = await make_key(house, "infer", families=("other",))
        headers = {"authorization": f"Bearer {key}"}
        reply = await house.ask("GET", "/web/families", headers=headers)
        assert [it["id"] for it in (await reply.json())["data"]] == ["other"]
