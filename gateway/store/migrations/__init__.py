"""The road from any older store to the present tables, in steps that are never changed again."""

from pathlib import Path

import sqlalchemy as sa

from gateway.errors import Unavailable

HEAD = "0004"
LOCK = 0x676C617373  # PostgreSQL's advisory lock: any number that nobody else uses


def upgrade(connection: sa.Connection) -> None:
    """Runs the missing steps inside the caller's transaction; others that start at once wait.

    On SQLite the transaction is the lock. Raises Unavailable on a store of a newer version.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    if sa.inspect(connection).has_table("alembic_version"):
        current = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        if current == HEAD:
            return  # the usual start, which spares the half second of loading alembic
        if current > HEAD:
            raise Unavailable(f"the store is of version {current}, newer than this Glassgate")
    _run_steps(connection)


def _run_steps(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent))
    command.upgrade(config, "head")
