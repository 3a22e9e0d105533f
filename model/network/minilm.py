"""The sentence encoder: a BERT whose token vectors are averaged into one unit vector per text.

Knows the arithmetic. Leaves out files (`model.weights` assembles it) and fairness: a caller that
must not block for long goes in `steps`, a layer at a time.

The sequences of a batch are laid end to end without padding: each matrix product runs over all
tokens at once, attention over one sequence after the other. Where BLAS is bound to one thread
(OPENBLAS_NUM_THREADS=1) batches run side by side: threads that share nothing wait for one another
once a layer, those of one product several times.
Alphabet: T tokens of the batch, L of one sequence, B sequences, D width, H heads, Dh head width.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.network import functional
from model.network.linear import Floats
from model.network.minilm_kernels import Norm, add_norm, bias_gelu, num_threads, softmax

BATCH_TOKENS = 1024  # the activations of one pass take a few MB
Lengths = NDArray[np.integer]
SELF_ATTENTION = ("attention.self.query", "attention.self.key", "attention.self.value")


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The sizes of a BERT. `max_tokens` bounds a text with its [CLS] and [SEP]."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    num_positions: int
    norm_eps: float
    max_tokens: int


class Encodes(Protocol):
    """What turns a text into ids and cuts it to max_tokens."""

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """The ids of `text`."""
        ...


def shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every weight, as in the files of a BertModel."""
    D, F = config.hidden_size, config.intermediate_size
    linears = {
        **dict.fromkeys((*SELF_ATTENTION, "attention.output.dense"), (D, D)),
        "intermediate.dense": (F, D),
        "output.dense": (D, F),
    }
    found: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, D),
        "embeddings.position_embeddings.weight": (config.num_positions, D),
        "embeddings.token_type_embeddings.weight": (2, D),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{i}" for i in range(config.num_layers)):
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        for name, shape in linears.items():
            found[f"{layer}.{name}.weight"] = shape
            found[f"{layer}.{name}.bias"] = shape[:1]
    return found | {f"{norm}.{part}": (D,) for norm in norms for part in ("weight", "bias")}


def waves(sequences: Sequence[Sequence[int]], width: int) -> list[list[list[Sequence[int]]]]:
    """Waves of at most `width` batches, in order; all of about equal length, and none of much more
    than BATCH_TOKENS but for a longer sequence."""
    num_tokens = sum(map(len, sequences))
    count = math.ceil(num_tokens / (BATCH_TOKENS * width)) * width
    batches: list[list[Sequence[int]]] = [[] for _ in range(count)]
    start = 0
    for ids in sequences:
        batches[(2 * start + len(ids)) * count // (2 * num_tokens)].append(ids)  # by its middle
        start += len(ids)
    cut = (batches[at : at + width] for at in range(0, count, width))
    return [filled for wave in cut if (filled := [batch for batch in wave if batch])]


class MiniLM:
    """Texts to unit vectors. `weights` has the names and shapes of `shapes(config)`."""

    def __init__(
        self, config: EncoderConfig, weights: Mapping[str, Floats], tokenizer: Encodes
    ) -> None:
        self.config = config
        self.weights = weights
        self.tokenizer = tokenizer
        self._width = num_threads() if os.environ.get("OPENBLAS_NUM_THREADS") == "1" else 1
        self._pool = ThreadPoolExecutor(self._width, thread_name_prefix="embed")
        layers = [f"encoder.layer.{i}" for i in range(config.num_layers)]
        self._qkv = [self._columns(*(f"{at}.{name}" for name in SELF_ATTENTION)) for at in layers]
        self._out = [self._columns(f"{at}.attention.output.dense") for at in layers]
        self._up = [self._columns(f"{at}.intermediate.dense") for at in layers]
        self._down = [self._columns(f"{at}.output.dense") for at in layers]
        self._mid_norm = [self._norm(f"{at}.attention.output.LayerNorm") for at in layers]
        self._norms = [self._norm(f"{at}.output.LayerNorm") for at in layers]

    def _columns(self, *names: str) -> tuple[Floats, Floats]:
        """Linear layers side by side as one: weight [in, Σ out] and bias."""
        rows = np.concatenate([self.weights[f"{name}.weight"] for name in names])
        bias = np.concatenate([self.weights[f"{name}.bias"] for name in names])
        return np.ascontiguousarray(rows.T), bias

    def _norm(self, name: str) -> Norm:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], self.config.norm_eps

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids with [CLS] and [SEP], at most max_tokens a text; their number is the usage."""
        return [self.tokenizer.encode(text, add_special_tokens=True) for text in texts]

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Unit vectors [B, D] of the texts."""
        return self.embed(self.tokenize(texts))

    def embed(self, sequences: Sequence[Sequence[int]]) -> Floats:
        """Unit vectors [B, D] of sequences of 1 to num_positions ids, else ValueError."""
        *_, vectors = self.steps(sequences)
        assert vectors is not None  # noqa: S101  (the last are the vectors)
        return vectors

    def steps(self, sequences: Sequence[Sequence[int]]) -> Iterator[Floats | None]:
        """As `embed`: None after each layer of each wave, and at last the vectors."""
        lengths = [len(ids) for ids in sequences]
        if lengths and not 0 < min(lengths) <= max(lengths) <= self.config.num_positions:
            raise ValueError(f"a sequence has 1 to {self.config.num_positions} ids")
        means = [np.empty((0, self.config.hidden_size), np.float32)]
        for wave in waves(sequences, self._width):
            run = self._pool.map if len(wave) > 1 else map
            sizes = [np.array([len(ids) for ids in batch]) for batch in wave]
            states = list(run(self._embeddings, wave))
            for i in range(self.config.num_layers):
                list(run(self._layer, repeat(i), states, sizes))
                yield None
            means += map(_unit_means, states, sizes)
        yield np.concatenate(means)

    def _layer(self, i: int, x: Floats, lengths: Lengths) -> None:
        """x [T, D] ← layer i of x."""
        weight, bias = self._qkv[i]
        mixed = self._attend(x @ weight + bias, lengths)
        weight, bias = self._out[i]
        add_norm(x, mixed @ weight, bias, self._mid_norm[i])
        weight, bias = self._up[i]
        wide: Floats = x @ weight
        bias_gelu(wide, bias)
        weight, bias = self._down[i]
        add_norm(x, wide @ weight, bias, self._norms[i])

    def _embeddings(self, sequences: Sequence[Sequence[int]]) -> Floats:
        """Word + position + type vectors, normalised: [T, D]."""
        ids = np.fromiter(chain.from_iterable(sequences), np.intp)
        positions = np.concatenate([np.arange(len(ids)) for ids in sequences])
        x: Floats = self.weights["embeddings.word_embeddings.weight"][ids]
        placed = self.weights["embeddings.position_embeddings.weight"][positions]
        type_zero = self.weights["embeddings.token_type_embeddings.weight"][0]
        add_norm(x, placed, type_zero, self._norm("embeddings.LayerNorm"))
        return x

    def _attend(self, qkv: Floats, lengths: Lengths) -> Floats:
        """Every token of a sequence sees every other: qkv [T, 3·D] → [T, D]."""
        T, H = len(qkv), self.config.num_heads
        Dh = self.config.hidden_size // H
        q, k, v = qkv.reshape(T, 3, H, Dh).transpose(1, 2, 0, 3)  # each [H, T, Dh]
        mixed: Floats = np.empty((T, H, Dh), np.float32)
        start = 0
        for L in lengths:
            rows = slice(start, start + L)
            scores = q[:, rows] @ k[:, rows].transpose(0, 2, 1)
            softmax(scores.reshape(H * L, L), Dh**-0.5)
            np.matmul(scores, v[:, rows], out=mixed[rows].transpose(1, 0, 2))
            start += L
        return mixed.reshape(T, H * Dh)


def _unit_means(x: Floats, lengths: Lengths) -> Floats:
    """The mean over each sequence, at unit length, as the sum has it too: [T, D] → [B, D]."""
    sums: Floats = np.add.reduceat(x, np.cumsum(lengths) - lengths)
    sums /= np.linalg.norm(sums, axis=1, keepdims=True)
    return sums


def reference_embed(network: MiniLM, ids: Sequence[int]) -> Floats:
    """The unit vector [D] of one sequence: slow, obvious, a formula a line."""
    config, weights, L = network.config, network.weights, len(ids)

    def linear(x: Floats, name: str) -> Floats:
        y: Floats = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        return y

    def layer_norm(x: Floats, name: str) -> Floats:
        deviation = np.sqrt(x.var(axis=1, keepdims=True) + np.float32(config.norm_eps))
        normed = (x - x.mean(axis=1, keepdims=True)) / deviation
        y: Floats = normed * weights[f"{name}.weight"] + weights[f"{name}.bias"]
        return y

    def gelu(x: Floats) -> Floats:
        erf: Floats = np.vectorize(math.erf, otypes="f")(x / math.sqrt(2))
        y: Floats = x / np.float32(2) * (1 + erf)
        return y

    def heads(x: Floats) -> Floats:
        return x.reshape(L, config.num_heads, -1).transpose(1, 0, 2)  # [H, L, Dh]

    words = weights["embeddings.word_embeddings.weight"][np.asarray(ids)]
    positions = weights["embeddings.position_embeddings.weight"][:L]
    types = weights["embeddings.token_type_embeddings.weight"][0]
    x = layer_norm(words + positions + types, "embeddings.LayerNorm")
    for at in (f"encoder.layer.{i}" for i in range(config.num_layers)):
        q, k, v = (heads(linear(x, f"{at}.{name}")) for name in SELF_ATTENTION)
        scores = q @ k.transpose(0, 2, 1) / np.float32(math.sqrt(q.shape[-1]))
        mixed = (functional.softmax(scores) @ v).transpose(1, 0, 2).reshape(L, -1)
        attended = linear(mixed, f"{at}.attention.output.dense")
        x = layer_norm(x + attended, f"{at}.attention.output.LayerNorm")
        wide = gelu(linear(x, f"{at}.intermediate.dense"))
        x = layer_norm(x + linear(wide, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    mean: Floats = x.mean(axis=0)
    mean /= np.linalg.norm(mean)
    return mean
