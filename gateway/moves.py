"""Changes of the store that must fit the config: what they name has to be defined there.

The admin API and the command line both come through here.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from gateway.call import Principal
from gateway.config import Config
from gateway.errors import BadRequest, NotFound
from gateway.prompt_file import Prompt
from gateway.store import keys, labels, teams
from gateway.store.audit import By


def create_key(
    connection: sa.Connection, by: By, config: Config, maker: Principal, new: keys.NewKey
) -> tuple[keys.Key, str]:
    for family in new.families:
        _check_family(config, family, "families")
    _check_limits(config, new.limits)
    return keys.create(connection, by, maker, new)


def put_team(
    connection: sa.Connection, by: By, config: Config, name: str, limits: str
) -> teams.Team:
    _check_limits(config, limits)
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise BadRequest("a name has 1 to 100 printable characters", param="name")
    return teams.put_team(connection, by, name, limits)


def put_budget(
    connection: sa.Connection, by: By, config: Config, new: teams.NewBudget
) -> teams.Budget:
    """One that is removed may be of a team, key or family that is gone."""
    kind, _, name = new.subject.partition(":")
    if new.soft is not None or new.hard is not None:
        if kind == "family":
            _check_family(config, name, "subject")
        if kind == "team" and teams.find_team(connection, name) is None:
            raise BadRequest(f"there is no team {name!r}", param="subject", code="unknown_team")
        if kind == "key" and keys.look_up(connection, name) is None:
            raise NotFound(f"there is no key {name!r}", param="subject")
    return teams.put_budget(connection, by, new)


def overview(connection: sa.Connection, config: Config) -> list[dict[str, Any]]:
    """Each release: labels that point to it, those that a rollback leads to it, its traffic.

    What the store does not have yet is as the config would seed it.
    """
    found = [it for it in labels.all_labels(connection) if it.kind == "release"]
    weights = labels.all_weights(connection)
    rows = []
    for family, definition in config.families.items():
        mine = [it for it in found if it.owner == family]
        targets = {**definition.labels, **{it.label: it.target for it in mine}}
        shares = weights.get(family) or definition.weights or {"production": 1.0}
        for release in sorted(_releases(config, family)):
            names = [label for label, target in targets.items() if target == release]
            share = sum(shares.get(name, 0) for name in (*names, release))
            rows.append(
                {
                    "family": family,
                    "release": release,
                    "labels": names,
                    "rollback_of": [it.label for it in mine if it.previous == release],
                    "share": round(share / (sum(shares.values()) or 1), 6),
                }
            )
    return rows


def promote(
    connection: sa.Connection, by: By, config: Config, family: str, label: str, release: str
) -> labels.Label:
    _check_family(config, family, "family")
    if release not in _releases(config, family):
        raise NotFound(f"{family} has no release {release!r}", param="release")
    return labels.promote(connection, by, "release", family, label, release)


def rollback(
    connection: sa.Connection, by: By, config: Config, family: str, label: str
) -> labels.Label:
    """Raises BadRequest, too, when the release to go back to is not defined any more."""
    _check_family(config, family, "family")
    label_now = labels.rollback(connection, by, "release", family, label)
    if label_now.target not in _releases(config, family):
        raise BadRequest(f"{label_now.target!r} is no release any more", param="label")
    return label_now


def set_weights(
    connection: sa.Connection, by: By, config: Config, family: str, shares: dict[str, float]
) -> dict[str, float]:
    _check_family(config, family, "family")
    known = _releases(config, family) | {
        it.label for it in labels.all_labels(connection) if it.owner == family
    }
    for name in shares:
        if name not in known:
            raise NotFound(f"neither label nor release of {family}: {name!r}", param="weights")
    return labels.set_weights(connection, by, family, shares)


def prompt_overview(
    connection: sa.Connection, prompts: Mapping[str, Prompt], name: str = ""
) -> list[dict[str, Any]]:
    """Each version, or the one of this name: what it follows, its labels, its content's hash."""
    if name:
        _check_prompt(prompts, name, "name")
    found = [it for it in labels.all_labels(connection) if it.kind == "prompt"]
    return [
        {
            "id": it.front.id,
            "version": str(it.front.version),
            "labels": [f.label for f in found if f"{f.owner}@{f.target}" == it.name],
            "parent": it.front.parent,
            "inputs": list(it.front.inputs),
            "notes": it.front.notes,
            "hash": it.hash,
        }
        for it in prompts.values()
        if name in ("", it.name)
    ]


def label_prompt(
    connection: sa.Connection, by: By, prompts: Mapping[str, Prompt], name: str, label: str
) -> labels.Label:
    _check_prompt(prompts, name, "version")
    prompt, _, version = name.partition("@")
    return labels.promote(connection, by, "prompt", prompt, label, version)


def rollback_prompt(
    connection: sa.Connection, by: By, prompts: Mapping[str, Prompt], prompt: str, label: str
) -> labels.Label:
    label_now = labels.rollback(connection, by, "prompt", prompt, label)
    _check_prompt(prompts, f"{prompt}@{label_now.target}", "label")
    return label_now


def _check_prompt(prompts: Mapping[str, Prompt], name: str, param: str) -> None:
    if name not in prompts:
        raise NotFound(f"there is no prompt {name!r}", param=param)


def _releases(config: Config, family: str) -> set[str]:
    return {name for name, it in config.releases.items() if it.family == family}


def _check_family(config: Config, family: str, param: str) -> None:
    if family not in config.families:
        raise NotFound(f"there is no family {family!r}", param=param)


def _check_limits(config: Config, name: str) -> None:
    if name and name not in config.limits:
        raise BadRequest(f"there is no limit class {name!r}", param="limits")
