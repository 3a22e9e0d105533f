"""Writes README's map: one line per file, taken from the file itself. Part of `make docs`.

A module says what it is in the first sentence of its docstring, any other file in its first
comment, a prompt in its notes, a dashboard in its description, a scenario in its "about", a page of
text under its heading. What was trained or written by a program is left out. The map stands in
README between its heading and the next one.
"""

import ast
import json
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
ROOMS = {
    "gateway": "the front, asynchronous",
    "model": "the network, its engine and its server",
    "lessons": "the course",
    "loadtests": "traffic over HTTP",
    "ops": "what runs it; no Python",
}
HEADING = "## The map\n"
COMMENT = re.compile(r"(?:(?:#|--|//)[^\n]*\n)+|/\*.*?\*/|<!--.*?-->", re.DOTALL)
NO_FILE_OF_OURS = re.compile(
    r"__init__\.py$|\.jsonl$|/tiny/.*\.(json|safetensors)$|/[_.][^/]*/|/\.|/vendor/"
)
MAP = re.compile(rf"(?<={re.escape(HEADING)}).*?(?=\n## )", re.DOTALL)


def files() -> list[str]:
    """The files of the rooms."""
    paths = (path for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file())
    names = (path.relative_to(ROOT).as_posix() for path in paths)
    return sorted(name for name in names if not NO_FILE_OF_OURS.search(name))


def says(path: Path) -> str:
    """The sentence by which a file introduces itself. Raises ValueError if it has none."""
    content = path.read_text()
    if path.suffix == ".py":
        found = ast.get_docstring(ast.parse(content)) or ""
    elif path.suffix == ".json":
        found = json.loads(content)["description"]
    elif path.parent.name == "scenarios":
        found = tomllib.loads(content)["about"]
    elif path.suffix == ".md" and content.startswith("---"):
        found = yaml.safe_load(content.split("---")[1])["notes"]
    elif path.suffix == ".md":
        found = content.partition("\n\n")[2]
    else:
        comment = COMMENT.match(content)
        found = re.sub(r"(?m)^(#|--|//|/\*|<!--) ?|(\*/|-->)$", "", comment[0] if comment else "")
    sentence = re.split(r"\.(?:\s|$)|:?\n\n", found, maxsplit=1)[0]
    if not sentence:
        raise ValueError(f"{path.relative_to(ROOT)} does not say what it is")
    return " ".join(sentence.split())


def text() -> str:
    """The map, room by room."""
    lines = []
    for room, what in ROOMS.items():
        lines += ["", f"**{room}**: {what}", ""]
        mine = (name for name in files() if name.startswith(f"{room}/"))
        lines += [f"- `{name}`: {says(ROOT / name)}" for name in mine]
    return "\n".join(lines) + "\n"


def page() -> str:
    """README with its map as the files are now."""
    return MAP.sub(lambda _: text(), README.read_text(), count=1)


if __name__ == "__main__":
    README.write_text(page())
