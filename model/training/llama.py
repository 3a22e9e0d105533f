"""A llama that can be trained: forward over sequences laid end to end, and backward through it.

Which weights are trained is a set of names: all of them, or the factors of a low-rank adapter over
a frozen base, for whose own weights no gradient is ever computed. Leaves out files and losses.
Alphabet as in `operations`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.network.config import NetworkConfig
from model.network.functional import rope_table
from model.network.llama import Llama
from model.network.llama_weights import PROJECTIONS, shapes
from model.training import operations as op
from model.training.operations import Array
from model.training.parameters import Parameters

Backward = Callable[[Array, Parameters], Array]  # adds gradients, hands on the input's


@dataclass(frozen=True, slots=True)
class LowRankSettings:
    """An adapter in PEFT's words: the change of a weight is alpha / rank · B · A."""

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = PROJECTIONS

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class Pack:
    """Sequences end to end, and what counts of them.

    token_ids and positions [T]; sequence b is starts[b] … starts[b + 1]. The logits of `rows` [R]
    should give `targets` [R], each with its weight.
    """

    token_ids: Array
    positions: Array
    starts: list[int]
    rows: Array
    targets: Array
    weights: Array

    @classmethod
    def of(cls, sequences: Sequence[tuple[Sequence[int], Sequence[float]]]) -> "Pack":
        """From (token ids, weight of each id as something to predict); the first has no weight."""
        starts = np.cumsum([0, *(len(ids) for ids, _ in sequences)]).tolist()
        token_ids = np.concatenate([np.asarray(ids, np.intp) for ids, _ in sequences])
        weights = np.concatenate([[0.0, *weights[1:]] for _, weights in sequences])
        positions = np.concatenate([np.arange(len(ids)) for ids, _ in sequences])
        counted = np.flatnonzero(weights)
        counts = weights[counted].astype(np.float32)
        return cls(token_ids, positions, starts, counted - 1, token_ids[counted], counts)


class TrainableLlama:
    """Weights under canonical names (`llama_weights.shapes`), those that are trained in a vector.

    `keeps_activations`: remember what every block computed, or only its input and compute it again
    on the way back: a third more arithmetic, a small part of the memory.
    """

    def __init__(
        self,
        config: NetworkConfig,
        frozen: Mapping[str, Array],
        trained: Mapping[str, Array],
        adapter: LowRankSettings | None = None,
        keeps_activations: bool = True,
    ) -> None:
        self.config = config
        self.frozen = frozen
        self.trained = Parameters(trained)
        self.adapter = adapter
        self.keeps_activations = keeps_activations
        self._cos, self._sin = rope_table(
            config.context_length, config.head_dim, config.rope_base, config.rope_factors
        )

    @classmethod
    def with_adapter(
        cls, network: Llama, adapter: LowRankSettings, seed: int, keeps_activations: bool = True
    ) -> "TrainableLlama":
        """A fresh adapter over `network`: A is random, B is zero, so it changes nothing yet."""
        factors: dict[str, Array] = {}
        rng = np.random.default_rng(seed)
        for name, shape in shapes(network.config).items():
            if name.rpartition(".")[2] in adapter.targets:
                bound = shape[1] ** -0.5  # as PEFT draws it
                size = (adapter.rank, shape[1])
                factors[f"{name}.A"] = rng.uniform(-bound, bound, size).astype(np.float32)
                factors[f"{name}.B"] = np.zeros((shape[0], adapter.rank), np.float32)
        frozen = dense_weights(network)
        return cls(network.config, frozen, factors, adapter, keeps_activations)

    def snapshot(self) -> "TrainableLlama":
        """As it is now, sharing the frozen weights; what is trained later does not change it."""
        return TrainableLlama(self.config, self.frozen, self.trained, self.adapter)

    def without_adapter(self) -> "TrainableLlama":
        """The base alone, sharing its weights; nothing of it is trained."""
        return TrainableLlama(self.config, self.frozen, {"nothing": np.zeros(0, np.float32)})

    def merged(self) -> dict[str, Array]:
        """Weights in which the adapter's changes are added up."""
        scale = self.adapter.scale if self.adapter else 0.0
        changes = {
            name: scale * self.trained[f"{name}.B"] @ self.trained[f"{name}.A"]
            for name in self.frozen
            if f"{name}.A" in self.trained
        }
        return {name: it + changes.get(name, 0) for name, it in self.frozen.items()}

    def log_likelihood(self, pack: Pack) -> tuple[Array, Callable[[Array, Parameters], None]]:
        """log p(targets) [R]; and backward, from its gradient [R] into the parameters'."""
        x, embed_back = self._embed(pack)
        blocks = []
        for index in range(self.config.num_layers):
            x, back = self._remembered(index, x, pack)
            blocks.append(back)
        values, head_back = self._head(x, pack)

        def backward(dy: Array, gradients: Parameters) -> None:
            dx = head_back(dy, gradients)
            while blocks:  # what a block remembers is free once its gradients are there
                dx = blocks.pop()(dx, gradients)
            embed_back(dx, gradients)

        return values, backward

    def score(self, pack: Pack) -> Array:
        """log p(targets) [R], without a way back."""
        x, _ = self._embed(pack)
        for index in range(self.config.num_layers):
            x, _ = self._block(index, x, pack)
        x, _ = op.rms_norm(x[pack.rows], self._weight("norm"), self.config.rms_eps)
        return op.score(x, self._weight(self._head_name), pack.targets)

    @property
    def _head_name(self) -> str:
        return "embed_tokens" if self.config.tie_embeddings else "lm_head"

    def _weight(self, name: str) -> Array:
        return self.trained[name] if name in self.trained else self.frozen[name]

    def _embed(self, pack: Pack) -> tuple[Array, Callable[[Array, Parameters], None]]:
        def backward(dy: Array, gradients: Parameters) -> None:
            if "embed_tokens" in self.trained:
                np.add.at(gradients["embed_tokens"], pack.token_ids, dy)

        return self._weight("embed_tokens")[pack.token_ids], backward

    def _remembered(self, index: int, x: Array, pack: Pack) -> tuple[Array, Backward]:
        """One layer, and all that it computed; or x alone, from which it is computed again."""
        y, back = self._block(index, x, pack)
        if self.keeps_activations:
            return y, back

        def backward(dy: Array, gradients: Parameters) -> Array:
            return self._block(index, x, pack)[1](dy, gradients)

        return y, backward

    def _block(self, index: int, x: Array, pack: Pack) -> tuple[Array, Backward]:
        """One layer, [T, D] → [T, D]: x + attention(norm(x)), then x + mlp(norm(x))."""
        normed, norm_back = self._norm(f"layers.{index}.input_norm", x)
        mixed, attend_back = self._attention(f"layers.{index}", normed, pack)
        middle = x + mixed
        normed, post_back = self._norm(f"layers.{index}.post_norm", middle)
        inner, mlp_back = self._mlp(f"layers.{index}", normed)

        def backward(dy: Array, gradients: Parameters) -> Array:
            dmiddle = dy + post_back(mlp_back(dy, gradients), gradients)
            return dmiddle + norm_back(attend_back(dmiddle, gradients), gradients)

        return middle + inner, backward

    def _attention(self, layer: str, x: Array, pack: Pack) -> tuple[Array, Backward]:
        T, heads = len(x), (-1, self.config.head_dim)
        (q, q_back), (k, k_back), (v, v_back) = (
            self._linear(f"{layer}.{name}_proj", x) for name in "qkv"
        )
        cos, sin = self._cos[pack.positions], self._sin[pack.positions]
        turned_q, turn_q_back = op.rope(q.reshape(T, *heads), cos, sin)
        turned_k, turn_k_back = op.rope(k.reshape(T, *heads), cos, sin)
        mixed, mix_back = op.attention(turned_q, turned_k, v.reshape(T, *heads), pack.starts)
        y, o_back = self._linear(f"{layer}.o_proj", mixed.reshape(T, -1))

        def backward(dy: Array, gradients: Parameters) -> Array:
            dq, dk, dv = mix_back(o_back(dy, gradients).reshape(mixed.shape))
            dx = q_back(turn_q_back(dq).reshape(T, -1), gradients)
            dx += k_back(turn_k_back(dk).reshape(T, -1), gradients)
            dx += v_back(dv.reshape(T, -1), gradients)
            return dx

        return y, backward

    def _mlp(self, layer: str, x: Array) -> tuple[Array, Backward]:
        gate, gate_back = self._linear(f"{layer}.gate_proj", x)
        up, up_back = self._linear(f"{layer}.up_proj", x)
        inner, inner_back = op.swiglu(gate, up)
        y, down_back = self._linear(f"{layer}.down_proj", inner)

        def backward(dy: Array, gradients: Parameters) -> Array:
            dgate, dup = inner_back(down_back(dy, gradients))
            return gate_back(dgate, gradients) + up_back(dup, gradients)

        return y, backward

    def _head(self, x: Array, pack: Pack) -> tuple[Array, Backward]:
        """Final norm and logits, for the rows that count."""
        normed, norm_back = self._norm("norm", x[pack.rows])
        name = self._head_name
        likelihood = op.log_likelihood if name in self.trained else op.frozen_log_likelihood
        values, back = likelihood(normed, self._weight(name), pack.targets)

        def backward(dy: Array, gradients: Parameters) -> Array:
            dnormed, *dhead = back(dy)
            _add(gradients, [name], dhead)
            dx = np.zeros_like(x)
            dx[pack.rows] = norm_back(dnormed, gradients)
            return dx

        return values, backward

    def _norm(self, name: str, x: Array) -> tuple[Array, Backward]:
        y, back = op.rms_norm(x, self._weight(name), self.config.rms_eps)

        def backward(dy: Array, gradients: Parameters) -> Array:
            dx, dweight = back(dy)
            if name in self.trained:
                _add(gradients, [name], [dweight])
            return dx

        return y, backward

    def _linear(self, name: str, x: Array) -> tuple[Array, Backward]:
        """The projection `name`, and the change that an adapter adds to it."""
        multiply = op.linear if name in self.trained else op.frozen_linear
        y, back = multiply(x, self._weight(name))
        factors = [f"{name}.A", f"{name}.B"]
        change_back = None
        if self.adapter is not None and factors[0] in self.trained:
            down, up = (self.trained[factor] for factor in factors)
            change, change_back = op.low_rank(x, down, up, self.adapter.scale)
            y += change

        def backward(dy: Array, gradients: Parameters) -> Array:
            dx, *dweight = back(dy)
            _add(gradients, [name], dweight)
            if change_back is not None:
                dchange, *dfactors = change_back(dy)
                _add(gradients, factors, dfactors)
                dx += dchange
            return dx

        return y, backward


def _add(gradients: Parameters, names: list[str], more: list[Array]) -> None:
    for name, gradient in zip(names, more, strict=False):  # a frozen weight has none
        gradients[name][...] += gradient


def dense_weights(network: Llama) -> dict[str, Array]:
    """Every weight of `network` as float32 under its canonical name."""
    weights = network.weights
    found: dict[str, Array] = {}
    for name in shapes(network.config):
        head, _, rest = name.partition(".")
        if head == "layers":
            index, _, part = rest.partition(".")
            weight = getattr(weights.layers[int(index)], part)
        else:
            weight = getattr(weights, name)
        found[name] = weight if isinstance(weight, np.ndarray) else weight.dense()
    return found
