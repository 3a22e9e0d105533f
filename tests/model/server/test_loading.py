"""What the command line asks for and this machine or model cannot give."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from model.__main__ import main
from model.server.adapters import Adapters, LoraSettings
from model.server.loading import Settings, _real_model


def test_bit_for_bit_is_promised_only_where_it_is_kept():
    with pytest.raises(ValueError, match="compiled"):
        _real_model(Settings(model="tiny-random", batch_invariant=True))


def test_an_emulated_machine_has_no_adapters():
    with pytest.raises(ValueError, match="emulated"):
        Adapters(None, LoraSettings({"a": Path("a")}))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--lora-modules", "nameless"], "NAME=PATH"),
        (["--lora-root", "."], "--admin-key"),
        (["--runner", "emulated"], "--profile"),
    ],
)
def test_what_does_not_go_together(words, told, monkeypatch):
    monkeypatch.delenv("GLASSGATE_MODEL_ADMIN_KEY", raising=False)
    result = CliRunner().invoke(main, ["serve", *words])
    assert result.exit_code == 2
    assert told in result.output
