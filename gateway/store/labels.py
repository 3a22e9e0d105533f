"""Labels and weights: which version a name stands for now, and how traffic is shared.

A label belongs to a family and points to a release (kind "release"), or belongs to a prompt and
points to one of its versions (kind "prompt"). Whether a target exists is the caller's to know: it
is defined in files, not here.
"""

import math
from typing import Literal

import msgspec
import sqlalchemy as sa

from gateway.errors import BadRequest, NotFound
from gateway.store.audit import By, record
from gateway.store.changes import note
from gateway.store.rows import now_ms, put
from gateway.store.tables import labels, weights

Kind = Literal["release", "prompt"]


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """`previous` is where a rollback leads; a label that was rolled back has none."""

    kind: Kind
    owner: str
    label: str
    target: str
    previous: str | None
    changed_at: int


def all_labels(connection: sa.Connection) -> list[Label]:
    query = sa.select(labels).order_by(labels.c.kind, labels.c.owner, labels.c.label)
    return [Label(**row._mapping) for row in connection.execute(query)]


def promote(
    connection: sa.Connection, by: By, kind: Kind, owner: str, label: str, target: str
) -> Label:
    """Points the label to `target`; a label that is not there is made."""
    old = _find(connection, kind, owner, label)
    if old and old.target == target:
        return old
    before = old.target if old else None
    new = Label(
        kind=kind,
        owner=owner,
        label=label,
        target=target,
        previous=before,
        changed_at=now_ms(),
    )
    return _move(connection, by, "label.promote", before or "", new)


def rollback(connection: sa.Connection, by: By, kind: Kind, owner: str, label: str) -> Label:
    """Points the label back to where it was before its last promotion.

    A second rollback is refused, so that two people who answer one alarm do not undo each other.
    """
    old = _find(connection, kind, owner, label)
    if old is None:
        raise NotFound(f"{owner}@{label} does not exist", param="label")
    if old.previous is None:
        raise BadRequest(
            f"{owner}@{label} has nothing to roll back to: promote the target you want",
            param="label",
            code="nothing_to_roll_back",
        )
    new = msgspec.structs.replace(old, target=old.previous, previous=None, changed_at=now_ms())
    return _move(connection, by, "label.rollback", old.target, new)


def _find(connection: sa.Connection, kind: Kind, owner: str, label: str) -> Label | None:
    query = sa.select(labels).filter_by(kind=kind, owner=owner, label=label).with_for_update()
    row = connection.execute(query).one_or_none()
    return Label(**row._mapping) if row else None


def _move(connection: sa.Connection, by: By, action: str, before: str, new: Label) -> Label:
    put(connection, labels, msgspec.structs.asdict(new))
    note(connection, "labels")
    record(connection, by, action, f"{new.owner}@{new.label}", before, new.target)
    return new


def all_weights(connection: sa.Connection) -> dict[str, dict[str, float]]:
    """Family → label → share."""
    shares: dict[str, dict[str, float]] = {}
    for family, label, share in connection.execute(
        sa.select(weights).order_by(weights.c.family, weights.c.label)
    ):
        shares.setdefault(family, {})[label] = share
    return shares


def set_weights(
    connection: sa.Connection, by: By, family: str, shares: dict[str, float]
) -> dict[str, float]:
    """Replaces the family's shares. They need not sum to 1; at least one is above 0."""
    if not all(share >= 0 for share in shares.values()) or not math.isfinite(sum(shares.values())):
        raise BadRequest("a share is a number of at least 0", param="weights")
    if not any(shares.values()):
        raise BadRequest("at least one label needs a share above 0", param="weights")
    note(connection, "weights")  # first: its row lock makes two writers queue
    before = all_weights(connection).get(family, {})
    connection.execute(weights.delete().where(weights.c.family == family))
    for label, share in shares.items():
        put(connection, weights, {"family": family, "label": label, "share": share})
    record(connection, by, "weights.set", family, _spell(before), _spell(shares))
    return shares


def _spell(shares: dict[str, float]) -> str:
    return " ".join(f"{label}={share:g}" for label, share in sorted(shares.items()))
