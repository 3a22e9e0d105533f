"""The house rules, held by the syntax tree: floors, circles, names, size.

Every import counts, those inside functions too. What the rules are for is in README, "The floors".
"""

import ast
import io
import tokenize
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUDGET = {"model": 8600, "gateway": 13500, "loadtests": 1260}  # lines; CHANGELOG says why one rises
BANNED = {"utils", "helpers", "common", "misc", "manager", "base"}

# A room may import itself and what is named here; the longest matching prefix speaks for a module.
FLOORS = {
    "model": {"model"},
    "model.protocol": set(),
    "model.network": set(),
    "model.tokenizer": set(),
    "model.weights": {"model.network", "model.tokenizer"},
    "model.engine": {"model.network", "model.tokenizer"},
    "model.server": {
        "model.engine", "model.network", "model.tokenizer", "model.weights", "model.protocol",
    },
    "model.training": {
        "model.engine", "model.network", "model.tokenizer", "model.weights", "model.protocol",
    },
    "gateway": {"gateway", "model.protocol"},
    "loadtests": {"loadtests"},
    "lessons": {"lessons", "gateway", "model"},
}  # fmt: skip
REQUEST_PATH = ("gateway.chat", "gateway.responses", "gateway.routing", "gateway.limits")
OFF_THE_PATH = ("gateway.evals", "gateway.jobs", "gateway.web")


def source_files() -> dict[str, Path]:
    """Module name → file, for every package of the project."""
    files = {}
    for package in ("gateway", "model", "loadtests", "lessons"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


FILES = source_files()


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def imports(module: str) -> Iterator[str]:
    """The project's own modules that `module` imports, at any depth of its code."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) + 1 - node.level]
            source = ".".join(parent * (node.level > 0) + [node.module] * bool(node.module))
            names = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else source for name in names]
        else:
            continue
        yield from (
            name
            for name in names
            if name.partition(".")[0] in ("gateway", "model", "loadtests", "lessons")
        )


GRAPH = {module: set(imports(module)) - {module} for module in FILES}


def reached(module: str) -> set[str]:
    seen: set[str] = set()
    todo = [module]
    while todo:
        for name in GRAPH.get(todo.pop(), ()):
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return seen


@pytest.mark.parametrize("module", FILES)
def test_floors(module: str) -> None:
    room = max((room for room in FLOORS if within(module, room)), key=len)
    allowed = FLOORS[room] | {room}
    broken = {name for name in GRAPH[module] if not any(within(name, ok) for ok in allowed)}
    assert not broken, f"{module} may import {sorted(allowed)}, not {sorted(broken)}"


def test_request_path_is_free_of_what_uses_it() -> None:
    for module in FILES:
        if any(within(module, room) for room in REQUEST_PATH):
            off = {n for n in reached(module) if any(within(n, room) for room in OFF_THE_PATH)}
            assert not off, f"{module} reaches {sorted(off)}"


def test_no_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' → '.join(error.args[1])}")


def test_names_say_something() -> None:
    assert not {module for module in FILES if BANNED & set(module.split("."))}


def test_every_package_is_shipped() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    shipped = ("gateway", "model")
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in shipped
        for path in (ROOT / package).rglob("*.py")
    }
    assert {name for name in listed if name.partition(".")[0] in shipped} == folders


def lines_of_code(source: str) -> int:
    """Lines that hold code: no blanks, no comments, no docstrings."""
    quiet = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in quiet:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                lines -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(lines)


@pytest.mark.parametrize("package", BUDGET)
def test_budget(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    size = sum(
        lines_of_code(path.read_text()) for module, path in FILES.items() if within(module, package)
    )
    with capsys.disabled():
        print(f"\n{package}: {size} of {BUDGET[package]} lines of code")
    assert size <= BUDGET[package]
