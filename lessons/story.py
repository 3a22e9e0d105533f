"""What a lesson is made of: claims with the interval that holds them, exercises with answers.

A lesson is one module in a chapter folder: a docstring that asks the question, functions with
doctests, `run() -> Result`, and `EXERCISES`. Folder and file begin with a digit, so that a listing
is a table of contents; such names cannot be imported, so `load` reads them by path.
"""

import doctest
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Claim:
    """A number that the lesson states, and the interval [low, high] that it stays in."""

    value: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        return f"{self.value:.4g}  in [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, slots=True)
class Exercise:
    """A question, the answer that a reader should reach, and the code that reaches it."""

    ask: str
    answer: Any
    solve: Callable[[], Any]


Result = dict[str, Claim]


def lessons(chapter: str = "") -> list[Path]:
    """The lesson files in the order of the course, of one chapter or of all."""
    return sorted(path for path in FOLDER.glob("[0-9]*/[0-9]*.py") if chapter in str(path.parent))


def load(path: Path) -> ModuleType:
    """Import a lesson by its path. The name is registered, as dataclasses and doctest need it."""
    name = f"lessons.{path.parent.name}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a lesson: {path}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def doctest_failures(module: ModuleType) -> int:
    return doctest.testmod(
        module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    ).failed


def tell(module: ModuleType, with_answers: bool) -> bool:
    """Print one lesson as a story; True when every claim holds."""
    title, _, text = (module.__doc__ or "").strip().partition("\n")
    print(f"\n{title}\n{'=' * len(title)}\n{text.strip()}\n")
    result: Result = module.run()
    for name, claim in result.items():
        print(f"  {'✓' if claim.holds else '✗'} {name:<44} {claim}")
    for number, exercise in enumerate(module.EXERCISES, 1):
        print(f"\n  {number}. {exercise.ask}")
        if with_answers:
            print(f"     → {exercise.answer}")
    return all(claim.holds for claim in result.values())
