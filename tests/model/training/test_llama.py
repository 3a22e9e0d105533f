"""The whole network's gradients: by a direction in float64, by PyTorch's autograd, by PEFT."""

import json
from pathlib import Path

import numpy as np
import pytest

from model.network.batch import Batch
from model.network.llama import reference_forward
from model.network.lora import Adapter
from model.training.llama import Pack, TrainableLlama
from model.training.losses import Loss, PreferenceLoss, negative_log_likelihood, perplexity
from model.training.operations import Array
from model.training.saving import hugging_name, save_adapter
from model.weights.safetensors_file import read_safetensors
from tests.model.training.small import CONFIG, NETWORK, PACK, SEQUENCES, adapted, whole

GOLDENS = Path(__file__).parents[2] / "goldens"


def gradients(network: TrainableLlama, loss: Loss = negative_log_likelihood) -> tuple[float, Array]:
    found = network.trained.zeros()
    return loss(network, [PACK], found), found.vector


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_the_loss_rises_along_a_direction_as_its_gradient_says(kind: str) -> None:
    network, base = whole(np.float64), whole(np.float64)
    network.trained.vector[:] *= 1.1
    loss = negative_log_likelihood if kind == "sft" else PreferenceLoss(base)
    _, gradient = gradients(network, loss)
    direction = np.random.default_rng(0).standard_normal(len(gradient))
    kept, h, values = network.trained.vector.copy(), 1e-6, []
    for sign in (1, -1):
        network.trained.vector[:] = kept + sign * h * direction
        values.append(gradients(network, loss)[0])
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(float(gradient @ direction), rel=1e-5)


def golden_name(name: str) -> str:
    place, _, factor = name.rpartition(".")
    if factor in ("A", "B"):
        return f"base_model.model.{hugging_name(place)}.lora_{factor}.default.weight"
    return f"{hugging_name(name)}.weight"


@pytest.mark.parametrize("kind", ["full", "adapter", "dpo"])
def test_pytorch_finds_the_same_loss_and_gradients(kind: str) -> None:
    golden = np.load(GOLDENS / "training.npz")
    network = whole() if kind == "full" else adapted()
    loss = PreferenceLoss(network.without_adapter()) if kind == "dpo" else negative_log_likelihood
    value, gradient = gradients(network, loss)
    assert value == pytest.approx(float(golden[f"{kind} loss"]), rel=1e-5)
    named = network.trained.zeros()
    named.vector[:] = gradient
    for name, ours in named.items():
        theirs = golden[f"{kind} {golden_name(name)}"]
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1e-3, np.abs(theirs).max()))


def test_computing_again_instead_of_keeping_changes_no_bit() -> None:
    for network, other in (
        (whole(), whole(keeps_activations=False)),
        (adapted(), adapted(keeps_activations=False)),
    ):
        np.testing.assert_array_equal(gradients(network)[1], gradients(other)[1])


def test_how_a_step_is_cut_changes_nothing() -> None:
    network = adapted()
    _, together = gradients(network)
    apart = network.trained.zeros()
    packs = [Pack.of(SEQUENCES[:1]), Pack.of(SEQUENCES[1:])]
    negative_log_likelihood(network, packs, apart)
    np.testing.assert_allclose(apart.vector, together, atol=1e-6)


def test_only_counted_tokens_matter() -> None:
    network = whole()
    targets = [(seq, i) for seq, (_, weights) in enumerate(SEQUENCES) for i, w in enumerate(weights)
               if w]  # fmt: skip
    assert PACK.targets.tolist() == [SEQUENCES[seq][0][i] for seq, i in targets]
    logits = [reference_forward(NETWORK, ids) for ids, _ in SEQUENCES]
    by_hand = [float(row[i - 1][SEQUENCES[seq][0][i]] - np.log(np.exp(row[i - 1]).sum()))
               for seq, i in targets for row in [logits[seq]]]  # fmt: skip
    np.testing.assert_allclose(network.score(PACK), by_hand, rtol=1e-5)
    np.testing.assert_allclose(network.log_likelihood(PACK)[0], by_hand, rtol=1e-5)
    expected = np.exp(-np.average(by_hand, weights=PACK.weights))
    assert perplexity(network, [PACK]) == pytest.approx(expected, rel=1e-5)


def served_logits(adapter: Adapter | None) -> Array:
    """Of the first sequence, as the model server computes them."""
    ids = np.asarray(SEQUENCES[0][0], np.int32)
    T = len(ids)
    NETWORK.adapters = {"a": adapter} if adapter else {}
    kv = NETWORK.new_kv(1, 32)
    batch = Batch(
        token_ids=ids, positions=np.arange(T, dtype=np.int32), slots=np.arange(T, dtype=np.int32),
        query_starts=np.array([0, T], np.int32), context_lens=np.array([T], np.int32),
        block_tables=np.zeros((1, 1), np.int32), logit_rows=np.arange(T, dtype=np.int32),
        adapters=("a",) if adapter else (),
    )  # fmt: skip
    return NETWORK.forward(batch, kv)


def read_adapter(folder: Path) -> Adapter:
    settings = json.loads((folder / "adapter_config.json").read_text())
    tensors = read_safetensors(folder / "adapter_model.safetensors")
    return Adapter.from_peft(CONFIG, settings, {k: t.dequantize() for k, t in tensors.items()})


def test_what_we_save_peft_and_the_server_read_alike(tmp_path: Path) -> None:
    network = adapted()
    save_adapter(network, tmp_path, "small")
    logits = served_logits(read_adapter(tmp_path))
    np.testing.assert_allclose(logits, np.load(GOLDENS / "training.npz")["ours in peft"], atol=1e-5)
    ids, rows = np.array(SEQUENCES[0][0][1:]), np.arange(len(SEQUENCES[0][0]) - 1)
    ours = network.score(Pack.of([(SEQUENCES[0][0], [1.0] * 8)]))
    theirs = logits[:-1][rows, ids] - np.log(np.exp(logits[:-1]).sum(axis=1))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_what_peft_saves_we_read_alike() -> None:
    logits = served_logits(read_adapter(GOLDENS / "peft"))
    np.testing.assert_allclose(logits, np.load(GOLDENS / "training.npz")["theirs"], atol=1e-5)


def test_a_fresh_adapter_changes_nothing_and_starts_at_ln_2() -> None:
    fresh = adapted(seed=None)
    base = fresh.without_adapter()
    np.testing.assert_array_equal(fresh.score(PACK), base.score(PACK))
    value, _ = gradients(fresh, PreferenceLoss(base))
    assert value == pytest.approx(np.log(2), abs=1e-6)


def test_a_merged_adapter_is_the_adapter() -> None:
    network = adapted()
    merged = TrainableLlama(CONFIG, network.merged(), {"nothing": np.zeros(0, np.float32)})
    np.testing.assert_allclose(merged.score(PACK), network.score(PACK), atol=1e-5)
