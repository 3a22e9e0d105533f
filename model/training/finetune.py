"""`finetune`: a file of examples in, an adapter's folder out.

Puts the parts together; knows no option's text and no progress bar (`commands` does).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from model.protocol.templates import Renderer
from model.training.examples import Encoder, Group, batches, num_steps
from model.training.llama import LowRankSettings, Pack, TrainableLlama
from model.training.loop import Progress, Run
from model.training.losses import Loss, PreferenceLoss, negative_log_likelihood, perplexity
from model.training.parameters import Pace
from model.training.rows import Problem, read_rows
from model.training.saving import ADAPTER, save_adapter, start_from
from model.weights import load_llama

SHOWN = 10  # reasons, where no row is left
RATES = {"sft": 2e-4, "dpo": 5e-5}  # the usual ones for adapters


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line says."""

    file: Path
    folder: Path
    model: str
    method: str
    start: Path | None
    test: Path | None
    epochs: float
    batch_size: int
    learning_rate: float | None
    rank: int
    alpha: float
    beta: float
    max_tokens: int
    pack_tokens: int
    seed: int
    save_every: int
    recompute: bool


class NothingToLearn(ValueError):
    """No row of the file can be used; the message says why, of the first few."""


class Finetuning:
    """A run that is ready to begin or to go on; `problems`: file → rows of it that are left out.

    Raises NothingToLearn, OtherRun, WeightsError, OSError.
    """

    def __init__(self, settings: Settings) -> None:
        checkpoint = load_llama(settings.model)
        with Renderer() as renderer:
            limit = min(settings.max_tokens, checkpoint.network.config.context_length)
            encoder = Encoder(checkpoint, renderer, limit)
            read = {
                path: _read(path, settings.method, encoder)
                for path in (settings.file, settings.test)
                if path is not None
            }
        self.problems = {path: problems for path, (_, problems) in read.items()}
        groups, problems = read[settings.file]
        if not groups:
            reasons = "".join(f"\n  line {it.line}: {it.reason}" for it in problems[:SHOWN])
            raise NothingToLearn(f"{settings.file}: no row can be trained on{reasons}")
        settings.folder.mkdir(parents=True, exist_ok=True)
        self.settings = settings
        self.num_examples = len(groups)
        self.network = TrainableLlama.with_adapter(
            checkpoint.network,
            LowRankSettings(settings.rank, settings.alpha),
            settings.seed,
            keeps_activations=not settings.recompute,
        )
        if settings.start:
            start_from(self.network, settings.start)
        self._base = self.network.snapshot()
        test = read[settings.test][0] if settings.test else []
        self._test = [Pack.of(group[:1]) for group in test]
        self._batches = batches(groups, settings.batch_size, settings.pack_tokens, settings.seed)
        steps = num_steps(groups, settings.batch_size, settings.epochs)
        self.run = Run(
            self.network, _pace(settings, steps), settings.folder / "run", _what(settings)
        )

    def train(self, report: Callable[[Progress], None]) -> None:
        """To the end, and write the adapter."""
        settings = self.settings
        is_dpo = settings.method == "dpo"
        loss: Loss = (
            PreferenceLoss(self._base, settings.beta) if is_dpo else negative_log_likelihood
        )
        self.run.train(loss, self._batches, settings.save_every, report)
        save_adapter(self.network, settings.folder, settings.model)

    def perplexities(self) -> tuple[float, float] | None:
        """Of the test's (chosen) answers, before and after; None without test."""
        if not self._test:
            return None
        return perplexity(self._base, self._test), perplexity(self.network, self._test)


def _read(path: Path, method: str, encoder: Encoder) -> tuple[list[Group], list[Problem]]:
    rows, problems = read_rows(path)
    wanted = [row for row in rows if (row.rejected is not None) == (method == "dpo")]
    lacks = "is a preference: use --method dpo" if method == "sft" else "has no rejected answer"
    taken = {row.line for row in wanted}
    problems += [Problem(row.line, lacks) for row in rows if row.line not in taken]
    groups, unfit = encoder.encode(wanted)
    return groups, sorted(problems + unfit)


def _pace(settings: Settings, steps: int) -> Pace:
    rate = settings.learning_rate
    rate = RATES[settings.method] if rate is None else rate
    return Pace(num_steps=steps, learning_rate=rate, num_warmup=max(1, steps // 20))


def _what(settings: Settings) -> dict[str, object]:
    """What a checkpoint must agree with: all that changes a bit of the result."""
    free = {"file", "folder", "start", "test", "save_every", "recompute"}
    free |= {"beta"} if settings.method == "sft" else set()
    values = {name: value for name, value in asdict(settings).items() if name not in free}
    files = {"data": settings.file}
    if settings.start:
        files["start"] = settings.start / ADAPTER
    return values | {n: hashlib.sha256(it.read_bytes()).hexdigest() for n, it in files.items()}


def release_lines(settings: Settings) -> Sequence[str]:
    """TOML for the end of a config: a release that gets no traffic, as no label points to it."""
    name, family = settings.folder.name, Path(settings.model).stem
    return (
        "[local.loras]", f'"{name}" = "{settings.folder.resolve()}"', "",
        f'[upstreams."{name}"]', 'local = "model"', f'model = "{name}"',
        "deadlines = { headers = 60.0, first_token = 60.0 }", "",
        f'[releases."{name}"]', f'family = "{family}"', f'upstream = "{name}"',
    )  # fmt: skip
