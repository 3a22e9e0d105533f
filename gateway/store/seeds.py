"""What the config file says about things that move: it fills what the store does not have yet.

A row that is there stays as it is, so a reload of the file undoes no rollback and revives no key.
Only a key that nobody but the file has ever changed follows the file: its secret, its scopes.
"""

import os
from collections.abc import Mapping

import sqlalchemy as sa

from gateway.config import Config
from gateway.config_file import ConfigError
from gateway.store import keys, labels
from gateway.store.audit import By, entries, record
from gateway.store.changes import note
from gateway.store.key_format import digest
from gateway.store.rows import now_ms, put_absent
from gateway.store.tables import labels as label_table
from gateway.store.tables import teams as team_table
from gateway.store.tables import weights as weight_table

BY = By("config")


def config_keys(config: Config, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Digest → name. Raises ConfigError for a variable that is not set."""
    for name, it in config.keys.items():
        if it.env and not env.get(it.env):
            raise ConfigError(f"keys.{name}.env: the variable {it.env} is not set")
    return {it.sha256.lower() or digest(env[it.env]): name for name, it in config.keys.items()}


def plant(connection: sa.Connection, config: Config, env: Mapping[str, str] = os.environ) -> None:
    """Keys, their teams, labels and weights. Any number of times, by any number of processes."""
    _plant_keys(connection, config, env)
    plant_traffic(connection, config)


def plant_traffic(connection: sa.Connection, config: Config) -> None:
    """Labels and weights, which need no secret to be at hand."""
    _plant_labels(connection, config)
    _plant_weights(connection, config)


def _plant_keys(connection: sa.Connection, config: Config, env: Mapping[str, str]) -> None:
    for hashed, name in config_keys(config, env).items():
        it = config.keys[name]
        if unknown := set(it.scopes) - keys.SCOPES:
            raise ConfigError(f"keys.{name}.scopes: no such scope: {', '.join(sorted(unknown))}")
        if keys.look_up(connection, name) is not None and not _is_the_files(connection, name):
            continue
        if it.team and put_absent(
            connection, team_table, {"name": it.team, "limits": "", "created_at": now_ms()}
        ):
            note(connection, "teams")
        key = keys.Key(
            id=name,
            name=name,
            team=it.team,
            scopes=it.scopes,
            families=it.families,
            limits=it.limits,
            hash=hashed,
            created_at=now_ms(),
        )
        if keys.insert_key(connection, key):
            record(connection, BY, "key.create", name, after=" ".join(it.scopes))
        else:
            keys.redefine(connection, BY, key)


def _is_the_files(connection: sa.Connection, name: str) -> bool:
    """Whether the last word on this key was the file's, and no rotation's or revocation's."""
    changes = (it for it in entries(connection, name) if it.action.startswith("key."))
    last = next(changes, None)
    return last is not None and last.actor == BY.actor


def _plant_labels(connection: sa.Connection, config: Config) -> None:
    for family, it in config.families.items():
        for label, release in it.labels.items():
            row = {
                "kind": "release",
                "owner": family,
                "label": label,
                "target": release,
                "previous": None,
                "changed_at": now_ms(),
            }
            if put_absent(connection, label_table, row):
                note(connection, "labels")
                record(connection, BY, "label.promote", f"{family}@{label}", after=release)


def _plant_weights(connection: sa.Connection, config: Config) -> None:
    known = labels.all_weights(connection)
    for family, it in config.families.items():
        if family in known:
            continue
        for label, share in it.weights.items():
            if put_absent(
                connection, weight_table, {"family": family, "label": label, "share": share}
            ):
                note(connection, "weights")
