"""What a gateway says when it is ready."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config_file import load
from gateway.serve import greeting
from gateway.setup import make_setup

pytestmark = pytest.mark.anyio


async def test_a_store_that_no_config_names_is_told(open_house: Any, tmp_path: Path) -> None:
    async with open_house() as house:
        (tmp_path / "gateway.toml").write_text("")
        for flags, is_told in (({}, False), ({"store.url": "sqlite:///own.db"}, True)):
            house.state.setup = make_setup(load(tmp_path / "gateway.toml", flags, {}))
            said = "\n".join(greeting(house.state, 1))
            assert ("export GLASSGATE_STORE_URL=sqlite:///own.db" in said) == is_told
