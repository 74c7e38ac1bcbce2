"""Bringing a database to a revision of the schema. Only who does that loads Alembic: it takes long."""

from __future__ import annotations

from collections.abc import Callable

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from replicator.store.driver import CONNECT_SECONDS_MAX, wrapped_errors
from replicator.store.schema import head, migrations

_MIGRATION_LOCK = 0x7265706C
"""Advisory lock: of several processes that start at once, one migrates and the others find it done."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    return config


async def upgrade(url: str, *, revision: str = "head") -> None:
    """Brings the database to the revision, in one transaction; does nothing where it is there already, or beyond: a later release
    has been here, and ``check`` says whether this one can work with what it left."""

    def up(config: Config) -> None:
        if not _is_beyond(config.attributes["connection"]):
            command.upgrade(config, revision)

    await _migrate(url, up)


def _is_beyond(connection: Connection) -> bool:
    found = MigrationContext.configure(connection).get_current_revision()
    return found is not None and int(found) > int(head())


async def downgrade(url: str, revision: str) -> None:
    """Back to an earlier revision, ``base`` for an empty database. Data of what is removed is lost."""
    await _migrate(url, lambda config: command.downgrade(config, revision))


async def _migrate(url: str, action: Callable[[Config], None]) -> None:
    def run(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        action(config)

    engine = create_async_engine(url, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": CONNECT_SECONDS_MAX})
    try:
        with wrapped_errors(url):
            async with engine.begin() as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
                await connection.run_sync(run)
    finally:
        await engine.dispose()
