"""One emulated model server for all of chaos, a gateway for each case, and the table at the end."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .town import HEAD, House, Load, Row, model_server

ROWS: list[Row] = []


@pytest.fixture(scope="session")
def model_url() -> Iterator[str]:
    with model_server() as (url, _):
        yield url


@pytest.fixture
def move_in(tmp_path: Path, model_url: str) -> Iterator[Callable[..., House]]:
    """`move_in()`: a running gateway; options as those of House."""
    with ExitStack() as stack:

        def moved_in(**options: Any) -> House:
            house = House(tmp_path, options.pop("upstreams", [model_url]), **options)
            house.start()
            stack.callback(house.stop)
            return house

        yield moved_in


@pytest.fixture
def note() -> Callable[[str, House, Load, Load], None]:
    """Hold the books against what was seen, and write a line of the table."""

    def noted(what: str, house: House, healthy: Load, load: Load) -> None:
        ROWS.append(Row(what, healthy, load, house.books()))
        assert load.log_each <= 10_000

    return noted


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if ROWS:
        terminalreporter.section("chaos")
        terminalreporter.write_line(HEAD)
        for row in ROWS:
            terminalreporter.write_line(row.shown())
