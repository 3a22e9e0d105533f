"""Who changed what, when and why. Written in the transaction of the change, never altered."""

import msgspec
import sqlalchemy as sa

from gateway.errors import BadRequest
from gateway.store.rows import now_ms
from gateway.store.tables import audit


class By(msgspec.Struct, frozen=True):
    """Who makes a change, and the reason given."""

    actor: str
    why: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """`action` is "label.promote", "key.create", …; `before` and `after` are short texts."""

    id: int
    at: int
    actor: str
    action: str
    subject: str
    before: str
    after: str
    why: str


def record(
    connection: sa.Connection, by: By, action: str, subject: str, before: str = "", after: str = ""
) -> None:
    connection.execute(
        audit.insert().values(
            at=now_ms(),
            actor=by.actor,
            action=action,
            subject=subject,
            before=before,
            after=after,
            why=by.why,
        )
    )


def entries(
    connection: sa.Connection, subject: str = "", before: str = "", limit: int = 100
) -> list[Entry]:
    """The youngest first; `before` is the id of the last one seen. Raises BadRequest."""
    query = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
    if subject:
        query = query.where(audit.c.subject == subject)
    if before:
        if not before.isascii() or not before.isdigit():
            raise BadRequest("an audit id is a number", param="before")
        query = query.where(audit.c.id < int(before))
    return [Entry(**row._mapping) for row in connection.execute(query)]
