"""How does one word look at another?

By three projections of each token: what it asks (query), what it answers to (key), what it hands
over (value). The dot product of a query with every earlier key, softmaxed, says how much of each
value flows in. Here one head of the first layer is computed by hand, and it must equal what the
network computes. Then all 270 heads are asked where they look: mostly at the very first token,
which is where a head looks that has nothing to say.
"""

from functools import cache

import numpy as np

from lessons.story import Claim, Exercise, Result
from model.network.functional import attention, rms_norm, rope, rope_table, softmax, swiglu
from model.network.linear import Floats
from model.weights import load_llama
from model.weights.checkpoint import Checkpoint

TEXT = "The old bridge over the river is closed, so we have to walk around the lake today."


@cache
def checkpoint() -> Checkpoint:
    return load_llama("smollm2")


def queries_keys_values(layer: int, x: Floats) -> tuple[Floats, Floats, Floats]:
    """q [T, H, Dh], k and v [T, K, Dh] of the tokens x [T, D], positions already turned in."""
    network = checkpoint().network
    config, weights = network.config, network.weights.layers[layer]
    T = len(x)
    normed = rms_norm(x, weights.input_norm, config.rms_eps)
    cos, sin = rope_table(T, config.head_dim, config.rope_base)
    q = (normed @ weights.q_proj.dense().T).reshape(T, config.num_heads, config.head_dim)
    k = (normed @ weights.k_proj.dense().T).reshape(T, config.num_kv_heads, config.head_dim)
    v = (normed @ weights.v_proj.dense().T).reshape(T, config.num_kv_heads, config.head_dim)
    return rope(q, cos, sin), rope(k, cos, sin), v


def looks(q: Floats, k: Floats) -> Floats:
    """How much each token looks at each earlier one: [T, Dh], [T, Dh] → [T, T], rows sum to 1.

    >>> same = np.ones((2, 4), np.float32)
    >>> looks(same, same).tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    scores = q @ k.T / np.sqrt(np.float32(q.shape[1]))
    future = np.triu(np.ones(scores.shape, bool), k=1)
    return softmax(np.where(future, np.float32(-np.inf), scores))


def one_head_by_hand(text: str = TEXT, head: int = 4) -> float:
    """The largest difference between our head and the network's own, in layer 0."""
    network = checkpoint().network
    token_ids = checkpoint().tokenizer.encode(text)
    q, k, v = queries_keys_values(0, network.weights.embed_tokens.rows(np.array(token_ids)))
    group = head // (network.config.num_heads // network.config.num_kv_heads)
    by_hand = looks(q[:, head], k[:, group]) @ v[:, group]
    theirs = attention(q, k, v, np.arange(len(token_ids)))[:, head]
    return float(np.abs(by_hand - theirs).max())


@cache
def share_on_first_token(text: str = TEXT) -> tuple[float, ...]:
    """For each layer: how much the last token looks at the first one, averaged over its heads."""
    network = checkpoint().network
    config = network.config
    token_ids = checkpoint().tokenizer.encode(text)
    x = network.weights.embed_tokens.rows(np.array(token_ids))
    T, shares = len(x), []
    for index, layer in enumerate(network.weights.layers):
        q, k, v = queries_keys_values(index, x)
        per_group = config.num_heads // config.num_kv_heads
        heads = [looks(q[:, h], k[:, h // per_group]) for h in range(config.num_heads)]
        shares.append(float(np.mean([head[-1, 0] for head in heads])))
        mixed = attention(q, k, v, np.arange(T)).reshape(T, -1)
        x = x + mixed @ layer.o_proj.dense().T
        normed = rms_norm(x, layer.post_norm, config.rms_eps)
        inner = swiglu(normed @ layer.gate_proj.dense().T, normed @ layer.up_proj.dense().T)
        x = x + inner @ layer.down_proj.dense().T
    return tuple(shares)


def depends_on_absolute_position() -> bool:
    """Rotary positions turn q and k by their position, so the product knows only the distance."""
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 1, 1, 64)).astype(np.float32)
    cos, sin = rope_table(200, 64, 1e5)
    near = float((rope(q, cos[7:8], sin[7:8]) * rope(k, cos[3:4], sin[3:4])).sum())
    far = float((rope(q, cos[107:108], sin[107:108]) * rope(k, cos[103:104], sin[103:104])).sum())
    return abs(near - far) > 1e-3


def run() -> Result:
    shares = share_on_first_token()
    even = 1 / len(checkpoint().tokenizer.encode(TEXT))
    return {
        "largest difference, head by hand": Claim(one_head_by_hand(), 0, 1e-5),
        "share on the first token, if heads looked evenly": Claim(even, 0.03, 0.1),
        "share on the first token, first layer": Claim(shares[0], 0, 0.3),
        "share on the first token, middle layers": Claim(float(np.mean(shares[10:20])), 0.3, 1),
    }


EXERCISES = (
    Exercise(
        "Nine heads ask, three answer (grouped-query attention). How many query heads share a key?",
        3,
        lambda: checkpoint().network.config.num_heads // checkpoint().network.config.num_kv_heads,
    ),
    Exercise(
        "How many heads has the whole network?",
        270,
        lambda: checkpoint().network.config.num_heads * checkpoint().network.config.num_layers,
    ),
    Exercise(
        "Shift every position by 100: does q·k of two tokens change (beyond rounding)?",
        False,
        depends_on_absolute_position,
    ),
)
