"""Adapters behind HTTP: several and none at once, in and out of memory, and who may bring one."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from model.network.llama_weights import PROJECTIONS, shapes
from model.server.adapters import LoraSettings
from model.weights.tiny import tiny_llama

from .conftest import MODEL, running

KEY = {"authorization": "Bearer secret"}


def write_adapter(folder: Path, seed: int) -> Path:
    """A folder as PEFT writes it, for the tiny network."""
    config, rng, tensors = tiny_llama().network.config, np.random.default_rng(seed), {}
    for name, (out, inputs) in ((n, s) for n, s in shapes(config).items() if len(s) == 2):
        _, _, projection = name.rpartition(".")
        if projection in PROJECTIONS:
            room = "self_attn" if projection[0] in "qkvo" else "mlp"
            prefix = f"base_model.model.model.{name.replace(projection, f'{room}.{projection}')}"
            for factor, shape in (("A", (4, inputs)), ("B", (out, 4))):
                values = rng.standard_normal(shape, np.float32) / 2
                tensors[f"{prefix}.lora_{factor}.weight"] = values
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("a", "b", "late", "sub/deep")):
        write_adapter(root / name, seed)
    (root / "outside").symlink_to("/etc")
    (root / "broken").mkdir()
    return root


@pytest.fixture(scope="module")
def server(root: Path):
    loras = LoraSettings({"a": root / "a", "b": root / "b"}, 2, root, "secret")
    with running(loras=loras) as one:
        yield one


def ask(http: httpx.Client, model: str) -> Any:
    body = {"model": model, "prompt": "once", "temperature": 0, "max_tokens": 24}
    reply = http.post("/v1/completions", json=body | {"ignore_eos": True, "logprobs": 0})
    assert reply.status_code == 200, reply.text
    assert reply.json()["model"] == model
    return reply.json()["choices"][0]["logprobs"]["token_logprobs"]


def load(server: Any, name: str, path: str, headers: dict[str, str] = KEY) -> httpx.Response:
    body = {"lora_name": name, "lora_path": path}
    reply: httpx.Response = server.http.post("/v1/load_lora_adapter", json=body, headers=headers)
    return reply


def unload(server: Any, name: str) -> httpx.Response:
    reply: httpx.Response = server.http.post(
        "/v1/unload_lora_adapter", json={"lora_name": name}, headers=KEY
    )
    return reply


def test_several_and_the_base_at_once(server):
    alone = {name: ask(server.http, name) for name in (MODEL, "a", "b")}
    assert alone[MODEL] != alone["a"] != alone["b"] != alone[MODEL]
    names = [MODEL, "a", "b"] * 4
    with ThreadPoolExecutor(len(names)) as pool:
        together = pool.map(lambda name: ask(server.http, name), names)
        for name, answer in zip(names, together, strict=True):
            assert answer == pytest.approx(alone[name], abs=1e-4)  # also: no prefix is shared


def test_they_are_listed_with_what_they_change(server, root):
    cards = {card["id"]: card for card in server.http.get("/v1/models").json()["data"]}
    assert (cards["a"]["parent"], cards["a"]["root"]) == (MODEL, str(root / "a"))
    assert cards[MODEL]["parent"] is None
    reply = server.http.post("/v1/completions", json={"model": "nobody", "prompt": "x"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


def test_one_comes_goes_and_makes_room(server):
    before = ask(server.http, "a")
    assert load(server, "late", "late").status_code == 200
    assert len(server.served.adapters._loaded) == 2
    assert "b" not in server.served.adapters._loaded  # it was not asked for as lately as "a"
    late = ask(server.http, "late")
    assert ask(server.http, "a") == before
    assert ask(server.http, "b") != late  # read again
    assert load(server, "late", "late").json()["error"]["param"] == "lora_name"
    assert unload(server, "late").status_code == 200
    assert unload(server, "late").status_code == 404
    assert load(server, "late", "sub/deep").status_code == 200
    assert ask(server.http, "late") != late  # nothing of the first one's cache
    assert unload(server, "late").status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("../..", 403), ("/etc", 403), ("outside", 403), ("late/../../..", 403), ("gone", 404),
        ("broken", 400), ("a\0b", 404), ("x" * 5000, 404),
    ],
)  # fmt: skip
def test_only_what_lies_below_the_root(server, path, status):
    reply = load(server, "new", path)
    assert reply.status_code == status, reply.text
    assert reply.json()["error"]["param"] == "lora_path"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}])
def test_only_an_admin(server, headers):
    assert load(server, "new", "late", headers).status_code == 401


def test_without_a_root_nobody(server, root):
    with running(loras=LoraSettings({"a": root / "a"})) as one:
        assert load(one, "new", "late").status_code == 403
        assert one.http.get("/metrics").text.count('max_lora="8"') <= 1


def test_the_metric_names_who_runs(server):
    body = {"model": "a", "prompt": "x", "max_tokens": 1500, "ignore_eos": True, "stream": True}
    with server.http.stream("POST", "/v1/completions", json=body) as reply:
        lines = reply.iter_lines()
        next(lines)
        shown = server.http.get("/metrics").text
        assert 'running_lora_adapters="a"' in shown
        assert unload(server, "a").status_code == 503  # it is in use
    server.wait_for("num_requests_running", 0)
    assert 'running_lora_adapters=""' in server.http.get("/metrics").text
