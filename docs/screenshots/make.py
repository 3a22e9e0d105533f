"""Writes the pictures beside this file from a stack that runs: `python docs/screenshots/make.py`.

It starts `glassgate serve` as shipped, on free ports and in a folder of its own, waits until the
documents are read, and looks at it with Debian's Chromium (`apt-get install chromium fonts-inter`).
The chats are real; the month behind the usage page is drawn from a seed, for nobody waits a month.
"""

# ruff: noqa: S603, S311, T201 - starts this project's own programs; draws a picture, keeps no secret

import math
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from gateway.store import Store, usage

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CONFIG = ROOT / "ops" / "gateway.toml"
PATIENCE_S = 300.0
DAY_MS = 86_400_000
WIDE = {"width": 1100, "height": 1270}
PHONE = {"width": 390, "height": 800}
QUESTIONS = {
    "light": "What does the with statement do?",
    "dark": "What does the pass statement do?",
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as it:
        return int(it.getsockname()[1])


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The URL of a gateway that is ready and has read its documents."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    ports = ["--port", str(port), "--model-port", str(free_port())]
    words = [sys.executable, "-m", "gateway", "serve", "--config", str(CONFIG), *ports]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=log)
        try:
            until(lambda: is_read(folder / "log"), "the documents are read")
            yield url
        finally:
            server.terminate()
            server.wait()


def until(is_so: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"never: {what}")
        time.sleep(0.5)


def is_read(log: Path) -> bool:
    """Has the gateway said that its documents are in the store?"""
    return b"passages are new" in log.read_bytes()


def glassgate(folder: Path, *words: str) -> str:
    """What a command says, run beside the store."""
    command = [sys.executable, "-m", "gateway", *words, "--config", str(CONFIG)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True)
    return done.stdout


def draw_month(folder: Path, now: int) -> None:
    """Thirty days of requests that never were: weekdays and a slow rise."""
    rng = random.Random(7)
    rows = []
    for day in range(30):
        begun = now - (29 - day) * DAY_MS
        is_weekend = (begun // DAY_MS + 4) % 7 in (0, 6)
        for i in range(int((110 + 4 * day) * (0.35 if is_weekend else 1) * rng.uniform(0.85, 1.1))):
            prompt, completion = int(rng.lognormvariate(6, 0.5)), int(rng.lognormvariate(4.6, 0.4))
            team = rng.choices(("search", "support", "research"), (5, 3, 1))[0]
            family = "python-docs" if rng.random() < 0.6 else "smollm2"
            rows.append(
                usage.Row(
                    id=f"{begun:012x}{i:06x}",
                    request_id=f"drawn-{day}-{i}",
                    started_at=begun,
                    route="chat",
                    team=team,
                    family=family,
                    release=f"{family}-1",
                    prompt_tokens=prompt,
                    cached_tokens=prompt // 3,
                    completion_tokens=completion,
                    cost=math.ceil(prompt * 2_500 + completion * 10_000),
                    outcome="upstream_error" if rng.random() < 0.012 else "ok",
                )
            )
    store = Store.open(f"sqlite:///{folder}/var/glassgate.db")
    with store.begin(write=True) as connection:
        usage.post(connection, rows)
    store.close()


def chat(browser: Browser, url: str, scheme: str, size: dict[str, int], name: str) -> None:
    page = open_page(browser, f"{url}/", scheme, size)
    page.locator("#family option").first.wait_for(state="attached")
    page.select_option("#family", "python-docs")
    page.fill("#question", QUESTIONS[scheme])
    page.press("#question", "Enter")
    page.locator(".facts").wait_for()
    page.evaluate("document.activeElement.blur()")
    keep(page, name)


def usage_page(browser: Browser, url: str, scheme: str, key: str, name: str) -> None:
    page = open_page(browser, f"{url}/usage", scheme, WIDE)
    page.fill("#key-input", key)
    page.press("#key-input", "Enter")
    page.get_by_text("30 days").click()
    page.locator("figcaption", has_text="Requests a day").wait_for()
    page.evaluate("document.activeElement.blur()")
    keep(page, name, is_whole=True)


def open_page(browser: Browser, url: str, scheme: str, size: dict[str, int]) -> Page:
    page: Page = browser.new_context(color_scheme=scheme, viewport=size).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(120_000)
    page.goto(url)
    return page


def keep(page: Page, name: str, is_whole: bool = False) -> None:
    path = HERE / f"{name}.png"
    page.screenshot(path=path, full_page=is_whole, animations="disabled")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="glassgate-"))
    with serving(folder) as url, sync_playwright() as playwright:
        flags = ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        for scheme in ("light", "dark"):
            chat(browser, url, scheme, WIDE, f"chat-{scheme}")
        chat(browser, url, "light", PHONE, "chat-phone")
        draw_month(folder, int(time.time() * 1000))
        glassgate(folder, "budgets", "set", "global", "month", "--soft", "8", "--hard", "12")
        key = glassgate(folder, "keys", "create", "operator", "--scope", "admin").split()
        key_text = next(word for word in key if word.startswith("sk-gg-"))
        for scheme in ("light", "dark"):
            usage_page(browser, url, scheme, key_text, f"usage-{scheme}")
        browser.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
