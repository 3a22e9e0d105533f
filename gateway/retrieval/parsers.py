"""From a file's bytes to a Document: plain text, Markdown, HTML, Python source, pydoc's topics.

Every parser only says where sections begin; what a passage is, `passages` decides.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from html.parser import HTMLParser
from itertools import accumulate
from pathlib import Path, PurePath
from pydoc_data.topics import topics

from gateway.errors import BadRequest
from gateway.retrieval.passages import Document, Section, digest

TOPICS = "pydoc:topics"
SUFFIXES = {".md", ".markdown", ".html", ".htm", ".py", ".txt", ".rst"}
_ATX = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_FENCE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[^\n]*$|\Z)", re.MULTILINE | re.DOTALL)
_UNDERLINED = re.compile(r"^(\S.*)\n([*=\-~^])\2{2,}[ \t]*$", re.MULTILINE)
_BLOCKS = {
    "article", "blockquote", "br", "dd", "div", "dt", "hr", "li", "ol", "p", "pre", "section",
    "table", "tr", "ul",
}  # fmt: skip
_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
_HIDDEN = {"script", "style", "template", "noscript"}

Mark = tuple[int, int, int, str]  # start of the heading, end of it, level, name


def parse(source: str, raw: bytes) -> Document:
    """By the suffix of `source`. Raises BadRequest for what is no text."""
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        message = f"{source} is not UTF-8 text"
        raise BadRequest(message, param="file", code="unsupported_file") from error
    if source.startswith(TOPICS):
        return _topic(source, text)
    name = PurePath(source).name
    match PurePath(source).suffix.lower():
        case ".md" | ".markdown":
            return _with_sections(source, name, text, _markdown_marks(text))
        case ".html" | ".htm":
            return _html(source, name, text)
        case ".py":
            return _python(source, name, text)
        case ".rst":
            return _with_sections(source, name, text, _underlined_marks(text))
    return Document(source, name, text, (Section((), 0, len(text)),))


def documents(path: str) -> Iterator[tuple[str, str | Path]]:
    """(source, where to read it) of a file, a folder, or `pydoc:topics`."""
    if path == TOPICS:
        yield from ((f"{TOPICS}/{name}", name) for name in sorted(topics))
        return
    root = Path(path)
    if not root.exists():
        raise BadRequest(f"there is no {path}", param="path")
    files = sorted(it for it in root.rglob("*") if it.suffix.lower() in SUFFIXES)
    for file in [root] if root.is_file() else files:
        yield (file.name if root.is_file() else file.relative_to(root).as_posix()), file


def read(where: str | Path) -> bytes:
    """The bytes of what `documents` named."""
    return where.read_bytes() if isinstance(where, Path) else topics[where].encode()


def _topic(source: str, text: str) -> Document:
    """Topics quote one another at length: a section stays with the shortest that has it."""
    name = source.rpartition("/")[2]
    marks = list(_underlined_marks(text))
    whole = _with_sections(source, marks[0][3] if marks else name, text, marks)
    mine = [it for it in whole.sections if _owners().get(_essence(text, it), name) == name]
    return Document(source, whole.title, text, tuple(mine))


@cache
def _owners() -> dict[str, str]:
    """What a section says → the topic that it stays with."""
    owners: dict[str, str] = {}
    for name in sorted(topics, key=lambda name: (len(topics[name]), name)):
        text = topics[name]
        for section in _with_sections(name, name, text, _underlined_marks(text)).sections:
            owners.setdefault(_essence(text, section), name)
    return owners


def _essence(text: str, section: Section) -> str:
    return digest(" ".join(text[section.start : section.end].split()))


def _with_sections(source: str, title: str, text: str, marks: Iterable[Mark]) -> Document:
    """Sections between the marks; a heading stays on the path until one of its level or above."""
    sections: list[Section] = []
    path: list[tuple[int, str]] = []
    start = 0
    for begins, ends, level, name in [*marks, (len(text), len(text), 0, "")]:
        if text[start:begins].strip():
            sections.append(Section(tuple(it for _, it in path), start, begins))
        path = [it for it in path if it[0] < level] + [(level, name)]
        start = ends
    return Document(source, title, text, tuple(sections))


def _markdown_marks(text: str) -> Iterator[Mark]:
    fences = [it.span() for it in _FENCE.finditer(text)]
    for it in _ATX.finditer(text):
        if not any(start <= it.start() < end for start, end in fences):
            yield it.start(), it.end(), len(it[1]), it[2]


def _underlined_marks(text: str) -> Iterator[Mark]:
    """The level of an underline is the order in which its character first comes."""
    levels: dict[str, int] = {}
    for it in _UNDERLINED.finditer(text):
        yield it.start(), it.end(), levels.setdefault(it[2], len(levels) + 1), it[1]


class _Reader(HTMLParser):
    """The visible text, a line for each block, and where its headings are."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self.text = ""
        self.marks: list[Mark] = []
        self._parts: list[str] = []
        self._size = 0
        self._hidden = 0
        self._open = ""  # the heading, or title, that is being read
        self._began = self._first = 0  # where it does, in characters and in parts

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in _HIDDEN
        if tag == "title" or tag in _HEADINGS:
            self._break()
            self._open, self._began, self._first = tag, self._size, len(self._parts)
        elif tag in _BLOCKS:
            self._break()

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in _HIDDEN and self._hidden > 0
        if tag == self._open and tag in _HEADINGS:
            name = " ".join("".join(self._parts[self._first :]).split())
            self._break()
            self.marks.append((self._began, self._size, int(tag[1]), name))
        if tag == self._open:
            self._open = ""
        elif tag in _BLOCKS:
            self._break()

    def handle_data(self, data: str) -> None:
        if self._open == "title":
            self.title += data
        elif not self._hidden:
            self._add(data)

    def _break(self) -> None:
        if self._parts and not self._parts[-1].endswith("\n"):
            self._add("\n")

    def _add(self, piece: str) -> None:
        self._parts.append(piece)
        self._size += len(piece)

    def close(self) -> None:
        super().close()
        self.text = "".join(self._parts)


def _html(source: str, name: str, text: str) -> Document:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    title = " ".join(reader.title.split()) or name
    return _with_sections(source, title, reader.text, reader.marks)


def _python(source: str, name: str, text: str) -> Document:
    """A section for each function and method, and for what lies between them."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Document(source, name, text, (Section((), 0, len(text)),))
    starts = [0, *accumulate(map(len, text.splitlines(keepends=True)))]
    sections: list[Section] = []
    at = 0
    for path, first, last in _definitions(tree, ()):
        if text[at : starts[first]].strip():
            sections.append(Section(path[:-1], at, starts[first]))
        sections.append(Section(path, starts[first], starts[last]))
        at = starts[last]
    if text[at:].strip():
        sections.append(Section((), at, len(text)))
    return Document(source, name, text, tuple(sections))


def _definitions(
    node: ast.AST, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """(path, first line, line after the last), counted from 0, of functions at any class depth."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _definitions(child, (*path, child.name))
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([child.lineno, *(it.lineno for it in child.decorator_list)])
            yield (*path, child.name), first - 1, child.end_lineno or child.lineno
