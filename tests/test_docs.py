"""The documents say what the code does: README's map, and the reference page."""

import importlib.util
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAPPED = ("gateway", "model", "lessons", "loadtests", "ops")


def tracked() -> set[str]:
    """The files of the rooms that README maps, as git knows or would add them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *MAPPED],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    return {name for name in listed if not name.endswith("__init__.py") and (ROOT / name).exists()}


def test_readme_maps_every_file() -> None:
    text = (ROOT / "README.md").read_text()
    mapped = set(re.findall(rf"^\s*- `((?:{'|'.join(MAPPED)})/[^`]+)`: \S", text, re.MULTILINE))
    assert mapped == tracked()


def test_reference_is_written_from_this_code() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert reference.PAGE.read_text() == reference.page(), "run `make docs`"
