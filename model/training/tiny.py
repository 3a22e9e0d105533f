"""`tiny`: a llama of a million weights, trained from nothing in minutes by its shipped recipe.

Knows the recipe, the tokenizer it trains, and the folder that comes out. What it is taught is in
`tiny_text`; how it is served, `model.weights` knows as of any other folder.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from model.engine.clock import WallClock
from model.engine.config import EngineConfig
from model.engine.engine import Engine
from model.engine.runners import NetworkRunner
from model.engine.sequence import Request, SamplingParams
from model.network.config import NetworkConfig
from model.network.llama_weights import shapes
from model.tokenizer import CUTS, Tokenizer
from model.training.llama import Pack, TrainableLlama
from model.training.loop import Progress, Run
from model.training.losses import negative_log_likelihood, perplexity
from model.training.operations import Array
from model.training.parameters import Pace
from model.training.saving import save_llama
from model.training.tiny_text import (
    CHAT_TEMPLATE,
    END,
    SKILLS,
    Message,
    conversations,
    questions_of,
)
from model.weights import load_llama
from model.weights.checkpoint import Checkpoint
from model.weights.load import SHIPPED

TOKENIZER_TEXTS = 3000  # conversations that the vocabulary is made from
HELD_OUT_TEXTS = 400
SCORED = 50  # held-out questions of a skill


class Recipe(NamedTuple):
    """recipe.toml and words.toml of one folder."""

    values: Mapping[str, Any]
    words: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path = SHIPPED) -> "Recipe":
        names = ("recipe.toml", "words.toml")
        return cls(*(tomllib.loads((folder / name).read_text("utf-8")) for name in names))

    @property
    def config(self) -> NetworkConfig:
        return NetworkConfig(**self.values["sizes"])

    @property
    def pace(self) -> Pace:
        names = ("num_steps", "learning_rate", "num_warmup", "weight_decay")
        return Pace(**{name: self.values[name] for name in names})

    def texts(self, part: str, size: int, held_out: bool = False) -> Iterator[list[Message]]:
        """`size` conversations of a part that is named, always the same."""
        return islice(conversations(self.words, f"{self.values['seed']} {part}", held_out), size)


class TinyRun:
    """The making of `tiny` in a folder; goes on from its checkpoint."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe = recipe
        self.folder = folder
        self.tokenizer = train_tokenizer(recipe)
        network = TrainableLlama(recipe.config, {}, first_weights(recipe))
        self.run = Run(network, recipe.pace, folder / "run", recipe._asdict())

    def train(self, report: Callable[[Progress], None]) -> None:
        self.run.train(negative_log_likelihood, self.packs, 100, report)

    def packs(self, step: int) -> list[Pack]:
        size = self.recipe.values["conversations_per_step"]
        weight = self.recipe.values["question_weight"]
        return [self.pack(self.recipe.texts(f"step {step}", size), weight)]

    def pack(self, texts: Iterator[list[Message]], question_weight: float) -> Pack:
        return Pack.of([encode(self.tokenizer, text, question_weight) for text in texts])

    def perplexity(self, question_weight: float = 1.0) -> float:
        """Of conversations whose last question was held out; with 0, of the answers alone."""
        texts = self.recipe.texts("held out", HELD_OUT_TEXTS, held_out=True)
        return perplexity(self.run.network, [self.pack(texts, question_weight)])

    def scores(self) -> dict[str, float]:
        """Of each skill: the share of held-out questions whose greedy answer is exactly right.

        The saved folder answers, as it will be served.
        """
        checkpoint = load_llama(str(self.folder))
        shares = {}
        for skill in SKILLS.keys() - {"story"}:  # no story is the right one
            asked = questions_of(self.recipe.words, skill, SCORED)
            answers = answer(checkpoint, [question for question, _ in asked])
            right = [said == wanted for said, (_, wanted) in zip(answers, asked, strict=True)]
            shares[skill] = float(np.mean(right))
        return dict(sorted(shares.items()))

    def save(self) -> None:
        """The folder that `model.weights` loads."""
        stop = self.tokenizer.eos_id
        self.tokenizer.backend.save(str(self.folder / "tokenizer.json"))
        save_llama(self.recipe.config, dict(self.run.network.trained), self.folder, {
            "tokenizer_config.json": {"chat_template": CHAT_TEMPLATE, "eos_token": END},
            "generation_config.json": {"eos_token_id": stop, "temperature": 0.3, "top_p": 0.9},
        })  # fmt: skip


def first_weights(recipe: Recipe) -> dict[str, Array]:
    """Norms are one; matrices normal, those that write into the residual stream smaller."""
    rng = np.random.default_rng(recipe.values["seed"])
    weights: dict[str, Array] = {}
    depth = (2 * recipe.config.num_layers) ** -0.5
    for name, shape in shapes(recipe.config).items():
        scale = depth if name.endswith(("o_proj", "down_proj")) else 1.0
        random = 0.04 * scale * rng.standard_normal(shape)
        weights[name] = (random if len(shape) > 1 else np.ones(shape)).astype(np.float32)
    return weights


def train_tokenizer(recipe: Recipe) -> Tokenizer:
    """Byte-level BPE over the recipe's own text; digits stand alone, as in SmolLM2."""
    backend = tokenizers.Tokenizer(models.BPE())
    cuts = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in CUTS["smollm"]]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, to_bytes])
    backend.decoder = decoders.ByteLevel()
    specials: list[str | AddedToken] = ["<|im_start|>", END]
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.config.vocab_size, special_tokens=specials, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    texts = recipe.texts("tokenizer", TOKENIZER_TEXTS)
    backend.train_from_iterator(
        (f"{m['role']}\n{m['content']}\n" for t in texts for m in t), trainer
    )
    return Tokenizer(backend, eos_id=backend.token_to_id(END))


def encode(
    tokenizer: Tokenizer, messages: Sequence[Message], question_weight: float
) -> tuple[list[int], list[float]]:
    """A conversation in ChatML: its ids, and what each counts; answers and their end count 1."""
    ids: list[int] = []
    weights: list[float] = []
    for message in messages:
        is_answer = message["role"] == "assistant"
        for text, weight in (
            (f"<|im_start|>{message['role']}\n", question_weight),
            (f"{message['content']}{END}", 1.0 if is_answer else question_weight),
            ("\n", question_weight),
        ):
            piece = tokenizer.encode(text)
            ids += piece
            weights += [weight] * len(piece)
    return ids, weights


def answer(checkpoint: Checkpoint, questions: Sequence[str]) -> list[str]:
    """The greedy answers, in one batch of the engine."""
    network, tokenizer = checkpoint.network, checkpoint.tokenizer
    config = EngineConfig(context_length=1024, stop_ids=checkpoint.stop_ids)
    kv = network.new_kv(config.num_blocks, config.block_size)
    engine = Engine(NetworkRunner(network, kv), tokenizer, config, WallClock())
    params = SamplingParams(temperature=0.0, max_tokens=100)
    for index, question in enumerate(questions):
        ids, _ = encode(tokenizer, [{"role": "user", "content": question}], 0.0)
        ids += tokenizer.encode("<|im_start|>assistant\n")
        engine.add(Request(id=str(index), prompt_ids=ids, params=params))
    texts = [""] * len(questions)
    while engine.has_work:
        for output in engine.step():
            texts[int(output.request_id)] += output.text
    return texts
