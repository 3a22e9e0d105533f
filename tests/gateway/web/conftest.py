"""A Chromium that looks at a gateway, and notes whatever no page may do."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage"]  # tests may run as root, in a small container
PATIENCE_MS = 20_000

Opener = Callable[..., Any]


@pytest.fixture
def visit() -> Opener:
    """`async with visit(house, "/", key="", **of the browser's context) as page`.

    At its end the test fails if a script or the policy failed, or a request went elsewhere.
    """
    if CHROMIUM is None:
        pytest.skip("there is no chromium here")
    from playwright.async_api import async_playwright

    @asynccontextmanager
    async def opener(house: Any, path: str, key: str = "", **how: Any) -> AsyncIterator[Any]:
        problems: list[str] = []
        async with AsyncExitStack() as stack:
            chromium = (await stack.enter_async_context(async_playwright())).chromium
            browser = await chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            stack.push_async_callback(browser.close)
            still = {"reduced_motion": "reduce"}  # no colour is halfway when axe measures it
            page = await (await browser.new_context(**still, **how)).new_page()
            page.set_default_timeout(PATIENCE_MS)
            _watch(page, house.url, problems)
            await page.goto(house.url + path)
            if key:
                await page.fill("#key-input", key)
                await page.press("#key-input", "Enter")
            yield page
        assert not problems

    return opener


def _watch(page: Any, origin: str, problems: list[str]) -> None:
    def heard(message: Any) -> None:
        is_refusal = message.text.startswith("Failed to load resource")  # the page says it itself
        if message.type in ("error", "warning") and not is_refusal:
            problems.append(message.text)

    def sent(request: Any) -> None:
        if not request.url.startswith(origin + "/"):
            problems.append(f"asked elsewhere: {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", sent)


@pytest.fixture
def check_access() -> Callable[[Any], Any]:
    """`await check_access(page)`: axe-core finds nothing wrong, and the page is not too wide."""
    from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]

    async def check(page: Any) -> None:
        found = (await Axe().run(page)).response["violations"]
        nodes = [(it["id"], node["html"]) for it in found for node in it["nodes"]]
        assert not nodes
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    return check


@pytest.fixture
def make_key() -> Callable[..., Any]:
    """`await make_key(house, "infer", …)`: a new key with these scopes."""
    from gateway.store.audit import By
    from gateway.store.keys import OPERATOR, NewKey, create

    async def made(house: Any, *scopes: str, **more: Any) -> str:
        new = NewKey(name="k", scopes=scopes, **more)
        _, text = await house.state.store.write(create, By("test"), OPERATOR, new)
        await house.state.mirror.refresh()
        return str(text)

    return made
