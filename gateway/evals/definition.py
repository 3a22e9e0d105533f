"""An eval as its file says it: TOML that names cases, targets, graders and what is compared."""

import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from jsonschema_rs import Draft202012Validator
from msgspec import Meta

from gateway.config_file import ConfigError
from gateway.evals import graders as by_text
from gateway.evals import probes
from gateway.evals.cases import Case, Strict
from gateway.evals.formats import Formats, grammar

AnyGrader = (
    by_text.Exact | by_text.Contains | by_text.TokenF1 | by_text.RougeL | by_text.Bleu
    | by_text.Regex | by_text.Schema | by_text.Refusal | by_text.Groundedness | by_text.Citations
    | by_text.Sources | probes.Choice | probes.Perplexity | probes.Counterfactual
    | probes.Similarity | probes.Judge
)  # fmt: skip
Share = Annotated[float, Meta(gt=0, lt=1)]


class Target(Strict):
    """Whom the cases are put to: a family, a release (family@release), with or without a prompt."""

    model: str
    prompt: dict[str, str] | None = None  # id, and version or label
    system: str = ""
    body: dict[str, Any] = msgspec.field(default_factory=dict)  # further fields of the request


class Comparison(Strict):
    baseline: str = ""
    candidate: str = ""
    alpha: Share = 0.05
    power: Share = 0.8
    smallest: Share = 0.05  # the difference that would matter


class Eval(Strict):
    """`cases` are read from their file, or several; with `only`, those of these tags."""

    name: str
    targets: dict[str, Target]
    graders: dict[str, AnyGrader]
    cases: tuple[Case, ...]
    labelled: Mapping[str, tuple[probes.Labelled, ...]] = {}  # judge → what it is measured on
    comparison: Comparison = Comparison()
    samples: Annotated[int, Meta(ge=1)] = 1  # answers to each case, with seeds 0, 1, …
    formats: Formats | None = None

    @property
    def hash(self) -> str:
        text = msgspec.json.encode(self, order="deterministic")
        return hashlib.sha256(text).hexdigest()[:16]

    def columns(self) -> list[str]:
        """Names of what is asked: targets, or targets in formats, as NAME#7."""
        if self.formats is None:
            return list(self.targets)
        return [f"{name}#{i}" for name in self.targets for i in range(self.formats.count)]

    def taking(self, case: Case) -> dict[str, AnyGrader]:
        return {name: it for name, it in self.graders.items() if it.takes(case)}


def load(path: Path) -> Eval:
    """Raises ConfigError with the file and the key or line that is wrong."""
    try:
        tree = tomllib.loads(path.read_text())
        if "cases" not in tree:
            raise ConfigError(f"{path}: cases: it is not said which file they are in")
        files = tree.pop("cases")
        files = [files] if isinstance(files, str) else files
        rows = [it for file in files for it in _rows(path.parent / file, Case)]
        only = set(tree.pop("only", ()))
        cases = [it for it in rows if not only or only & set(it.tags)]
        labels = {
            name: list(_rows(path.parent / it["labels"], probes.Labelled))
            for name, it in tree.get("graders", {}).items()
            if "labels" in it
        }
        found = msgspec.convert(tree | {"cases": cases, "labelled": labels}, Eval)
    except ConfigError:
        raise
    except (OSError, ValueError, TypeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    for complaint in _contradictions(found):
        raise ConfigError(f"{path}: {complaint}")
    return found


def _rows(path: Path, kind: type[Any]) -> Iterator[Any]:
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    for number, line in enumerate(text.split("\n"), 1):  # JSON may hold other ends of lines
        if line.strip():
            try:
                yield msgspec.json.decode(line, type=kind)
            except msgspec.MsgspecError as error:
                raise ConfigError(f"{path}:{number}: {error}") from error


def _contradictions(it: Eval) -> Iterator[str]:
    for name in ("cases", "targets"):
        if not getattr(it, name):
            yield f"{name}: there are none"
    unlabelled = (name for name, its in it.labelled.items() if not its)
    yield from (f"graders.{name}.labels: there are none" for name in unlabelled)
    ids = Counter(case.id for case in it.cases)
    yield from (f"case {name}: there are two of this id" for name, n in ids.items() if n > 1)
    yield from (f"case {case.id}: no grader takes it" for case in it.cases if not it.taking(case))
    for case in it.cases:
        if case.choices and (len(case.choices) < 2 or not all(case.choices)):
            yield f"case {case.id}: choices are two or more, and none is empty"
        try:
            re.compile(case.pattern)
            Draft202012Validator(case.schema or {}, offline=True)
        except (re.error, OverflowError, ValueError) as error:
            yield f"case {case.id}: {error}"
    for name in {it.comparison.baseline, it.comparison.candidate} - {"", *it.targets}:
        yield f"comparison: there is no target {name!r}"
    if it.formats is not None:
        yield from _unwritable(it.cases, it.formats)


def _unwritable(cases: Sequence[Case], formats: Formats) -> Iterator[str]:
    inputs = set(formats.task.inputs)
    lacking = (case.id for case in cases if not inputs <= case.fields.keys())
    yield from (f"case {name}: fields of the task are missing" for name in lacking)
    for place, shot in enumerate(formats.task.shots):
        if not inputs <= shot.fields.keys():
            yield f"formats.task.shots[{place}]: fields of the task are missing"
    if formats.count > len(grammar(formats.task)):
        yield "formats.count: the grammar does not make so many"
