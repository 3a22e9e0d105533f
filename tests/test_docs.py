"""The documents say what the code does: README's map, and the reference page."""

import importlib.util
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parent.parent / "docs"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_maps_every_file() -> None:
    make_map = load("make_map")
    assert make_map.README.read_text() == make_map.page(), "run `make docs`"


def test_reference_is_written_from_this_code() -> None:
    reference = load("make_reference")
    assert reference.PAGE.read_text() == reference.page(), "run `make docs`"
