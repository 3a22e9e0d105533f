"""The config fills what the store does not have, and nothing else."""

import pytest

from gateway.config_file import ConfigError, parse
from gateway.store import Store, keys, labels, teams
from gateway.store.audit import By, entries
from gateway.store.key_format import digest
from gateway.store.seeds import config_keys, plant

ME = By("test")
CONFIG = parse(
    {
        "upstreams": {"u": {"base_url": "http://localhost:1/v1", "model": "m"}},
        "families": {
            "chat": {"labels": {"production": "chat-1"}, "weights": {"production": 1.0}},
        },
        "releases": {
            "chat-1": {"family": "chat", "upstream": "u"},
            "chat-2": {"family": "chat", "upstream": "u"},
        },
        "keys": {
            "alice": {"sha256": digest("secret-a"), "team": "search", "scopes": ["infer", "pin"]},
            "bob": {"env": "BOB_KEY"},
        },
    }
)
ENV = {"BOB_KEY": "secret-b"}


def test_planting_again_undoes_nothing(store: Store) -> None:
    with store.begin(write=True) as connection:
        plant(connection, CONFIG, ENV)
        assert keys.find(connection, "bob").hash == digest("secret-b")
        assert keys.find(connection, "alice").scopes == ("infer", "pin")
        assert [team.name for team in teams.all_teams(connection)] == ["search"]
        keys.revoke(connection, ME, "bob")
        labels.promote(connection, ME, "release", "chat", "production", "chat-2")
        labels.set_weights(connection, ME, "chat", {"canary": 1.0})
        plant(connection, CONFIG, ENV)
        assert keys.find(connection, "bob").revoked_at is not None
        assert labels.all_labels(connection)[0].target == "chat-2"
        assert labels.all_weights(connection) == {"chat": {"canary": 1.0}}


def test_a_key_follows_the_file_until_somebody_else_changes_it(store: Store) -> None:
    with store.begin(write=True) as connection:
        plant(connection, CONFIG, ENV)
        plant(connection, CONFIG, {"BOB_KEY": "secret-c"})
        assert keys.find(connection, "bob").hash == digest("secret-c")
        plant(connection, CONFIG, {"BOB_KEY": "secret-c"})
        seen = [it.action for it in entries(connection, "bob")]
        assert seen == ["key.change", "key.create"]
        fewer = parse({"keys": {"alice": {"sha256": digest("secret-a"), "scopes": ["infer"]}}})
        plant(connection, fewer, {})
        assert keys.find(connection, "alice").scopes == ("infer",)
        _, text = keys.rotate(connection, ME, keys.OPERATOR, "bob", 0.0)
        plant(connection, CONFIG, ENV)
        assert keys.find(connection, "bob").hash == digest(text)


def test_keys_of_the_config_are_found_by_digest() -> None:
    assert config_keys(CONFIG, ENV) == {digest("secret-a"): "alice", digest("secret-b"): "bob"}
    with pytest.raises(ConfigError, match=r"keys\.bob\.env"):
        config_keys(CONFIG, {})


def test_unknown_scopes_are_refused(store: Store) -> None:
    config = parse({"keys": {"alice": {"sha256": digest("a"), "scopes": ["fly"]}}})
    with store.begin(write=True) as connection, pytest.raises(ConfigError, match=r"keys\.alice"):
        plant(connection, config, {})
