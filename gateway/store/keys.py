"""The life of a key: made, rotated, revoked; what it may do, and that nobody hands out more.

The whole key is returned once, by `create` and `rotate`; the store has its SHA-256. Checking a key
that a client sent is `gateway.auth`'s.
"""

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import Meta

from gateway.call import Principal
from gateway.errors import BadRequest, Forbidden, NotFound
from gateway.store import key_format
from gateway.store.audit import By, record
from gateway.store.changes import note
from gateway.store.rows import DAY_MS, now_ms, put_absent
from gateway.store.tables import keys
from gateway.store.teams import find_team

ROUTES = frozenset({"chat", "completions", "embeddings", "responses"})
SCOPES = ROUTES | {"infer", "files", "pin", "metrics", "admin"}


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A row. No families = all of them; the old hash is good until `old_until`."""

    id: str
    name: str
    team: str
    scopes: tuple[str, ...]
    families: tuple[str, ...]
    limits: str
    hash: str
    old_hash: str | None = None
    old_until: int | None = None
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None

    def state(self, now: int) -> str:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    def principal(self) -> Principal:
        return Principal(
            key_id=self.id,
            team=self.team,
            scopes=frozenset(self.scopes),
            families=frozenset(self.families),
            limits=self.limits,
        )


Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+\Z")]


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for; `days` is how long it lives, None = until revoked."""

    name: Name
    team: str = ""
    scopes: tuple[str, ...] = ("infer",)
    families: tuple[str, ...] = ()
    limits: str = ""
    days: Annotated[float, Meta(gt=0, le=36_500)] | None = None


OPERATOR = Principal(scopes=SCOPES)  # who runs the CLI on the store itself


def is_allowed(scopes: frozenset[str], scope: str) -> bool:
    """`infer` stands for every route that a model answers."""
    return scope in scopes or (scope in ROUTES and "infer" in scopes)


def create(connection: sa.Connection, by: By, maker: Principal, new: NewKey) -> tuple[Key, str]:
    """The key and its text. Raises Forbidden for what `maker` does not have, BadRequest."""
    now = now_ms()
    expires_at = None if new.days is None else now + int(new.days * DAY_MS)
    _check_grant(connection, maker, new, expires_at)
    if new.team and find_team(connection, new.team) is None:
        raise BadRequest(f"there is no team {new.team!r}", param="team", code="unknown_team")
    key_id, text = key_format.mint()
    key = Key(
        id=key_id,
        name=new.name,
        team=new.team,
        scopes=new.scopes,
        families=new.families,
        limits=new.limits,
        hash=key_format.digest(text),
        created_at=now,
        expires_at=expires_at,
    )
    insert_key(connection, key)
    record(connection, by, "key.create", key_id, after=f"{new.name}: {' '.join(new.scopes)}")
    return key, text


def insert_key(connection: sa.Connection, key: Key) -> bool:
    """Whether the id was free."""
    row = msgspec.structs.asdict(key) | {"version": note(connection, "keys")}
    return put_absent(connection, keys, row)


def _check_grant(
    connection: sa.Connection, maker: Principal, new: NewKey, expires_at: int | None
) -> None:
    if unknown := set(new.scopes) - SCOPES:
        raise BadRequest(f"no such scope: {', '.join(sorted(unknown))}", param="scopes")
    if missing := [scope for scope in new.scopes if not is_allowed(maker.scopes, scope)]:
        raise Forbidden(f"your key does not have: {', '.join(missing)}", param="scopes")
    if maker.families and not (new.families and set(new.families) <= maker.families):
        have = ", ".join(sorted(maker.families))
        raise Forbidden(f"your key is for these families only: {have}", param="families")
    if maker.key_id:
        limit = find(connection, maker.key_id).expires_at
        if limit is not None and (expires_at is None or expires_at > limit):
            raise Forbidden("a key cannot outlive the key that makes it", param="days")


def rotate(
    connection: sa.Connection, by: By, maker: Principal, key_id: str, overlap_s: float
) -> tuple[Key, str]:
    """A new secret for the key; the present one stays good for `overlap_s` [s] more.

    Raises NotFound, BadRequest for a revoked key, and Forbidden when `maker` has less than the key:
    who rotates a key holds it.
    """
    version = note(connection, "keys")  # first: its row lock makes two writers queue
    old = find(connection, key_id)
    if old.revoked_at is not None:
        raise BadRequest(f"key {key_id} is revoked", param="id", code="key_revoked")
    same = NewKey(name=old.name, scopes=old.scopes, families=old.families)
    _check_grant(connection, maker, same, old.expires_at)
    _, text = key_format.mint(key_id)
    key = msgspec.structs.replace(
        old,
        hash=key_format.digest(text),
        old_hash=old.hash,
        old_until=now_ms() + int(overlap_s * 1000),
    )
    _update(connection, key, version)
    record(connection, by, "key.rotate", key_id, after=f"old secret good for {overlap_s:g} s")
    return key, text


def revoke(connection: sa.Connection, by: By, key_id: str) -> Key:
    """From now on it opens nothing, on every replica within a second; twice is no error."""
    version = note(connection, "keys")  # first: its row lock makes two writers queue
    old = find(connection, key_id)
    if old.revoked_at is not None:
        return old
    key = msgspec.structs.replace(old, revoked_at=now_ms())
    _update(connection, key, version)
    record(connection, by, "key.revoke", key_id, before=old.name)
    return key


def redefine(connection: sa.Connection, by: By, key: Key) -> None:
    """Secret, team, scopes, families and limits as `key` has them; nothing, if they are so."""
    old = find(connection, key.id)
    same = msgspec.structs.replace(
        old,
        hash=key.hash,
        team=key.team,
        scopes=key.scopes,
        families=key.families,
        limits=key.limits,
    )
    if same != old:
        _update(connection, same, note(connection, "keys"))
        record(connection, by, "key.change", key.id, " ".join(old.scopes), " ".join(key.scopes))


def _update(connection: sa.Connection, key: Key, version: int) -> None:
    row = msgspec.structs.asdict(key) | {"version": version}
    del row["last_used_at"]  # moves by itself
    connection.execute(keys.update().where(keys.c.id == key.id).values(row))


def find(connection: sa.Connection, key_id: str) -> Key:
    key = look_up(connection, key_id)
    if key is None:
        raise NotFound(f"there is no key {key_id!r}", param="id")
    return key


def look_up(connection: sa.Connection, key_id: str) -> Key | None:
    row = connection.execute(_COLUMNS.where(keys.c.id == key_id)).one_or_none()
    return _to_key(row) if row else None


def all_keys(
    connection: sa.Connection, team: str = "", after: str = "", limit: int = 1000
) -> list[Key]:
    """By id, from the one behind `after`."""
    query = _COLUMNS.where(keys.c.id > after).order_by(keys.c.id).limit(limit)
    if team:
        query = query.where(keys.c.team == team)
    return [_to_key(row) for row in connection.execute(query)]


def has_any(connection: sa.Connection) -> bool:
    """Whether a key was ever made: a revoked one counts, so revoking the last opens no door."""
    return connection.execute(sa.select(keys.c.id).limit(1)).first() is not None


def changed_since(connection: sa.Connection, version: int) -> dict[str, int]:
    """Keys that changed after `version` of their topic, each with the version of its change."""
    query = sa.select(keys.c.id, keys.c.version).where(keys.c.version > version)
    return {row.id: row.version for row in connection.execute(query)}


def last_version(connection: sa.Connection) -> int:
    return connection.scalar(sa.select(sa.func.max(keys.c.version))) or 0


def touch(connection: sa.Connection, used: dict[str, int]) -> None:
    """Notes when keys were last used (id → ms). It is no change that anybody must notice."""
    if used:
        statement = keys.update().where(
            keys.c.id == sa.bindparam("key_id"),
            sa.func.coalesce(keys.c.last_used_at, 0) < sa.bindparam("at"),
        )
        rows = [{"key_id": key_id, "at": at} for key_id, at in sorted(used.items())]
        connection.execute(statement.values(last_used_at=sa.bindparam("at")), rows)


_COLUMNS = sa.select(*(column for column in keys.c if column.name != "version"))


def _to_key(row: sa.Row[*tuple[Any, ...]]) -> Key:
    lists = {name: tuple(row._mapping[name]) for name in ("scopes", "families")}
    return Key(**{**row._mapping, **lists})
