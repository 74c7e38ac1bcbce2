"""Bringing a database to this release's schema, and telling whether it is there.

Revisions are numbers. A newer schema is fine as long as it only expanded (``meta.oldest_code``); an older one never is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

import replicator
from replicator.core.errors import ReplicatorError
from replicator.store.driver import CONNECT_SECONDS_MAX, wrapped_errors

_MIGRATION_LOCK = 0x7265706C
"""Advisory lock: of several processes that start at once, one migrates and the others find it done."""


class SchemaTooOld(ReplicatorError):
    """The database has not been brought to this release's schema."""


class SchemaTooNew(ReplicatorError):
    """The database has the schema of a later release that this one cannot work with."""


def _config() -> Config:
    # migrations/ stands beside the package, in the source tree and where the wheel is installed.
    config = Config()
    folder = Path(replicator.__file__).parent.parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config


@cache
def head() -> str:
    """The revision this release is written for."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


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


async def check(connection: AsyncConnection) -> None:
    """Raises ``SchemaTooOld`` or ``SchemaTooNew`` unless this release can work on the database."""
    wanted = head()
    exists = (await connection.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL"))).scalar_one()
    found = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar() if exists else None
    if found == wanted:
        return
    if found is None or int(found) < int(wanted):
        raise SchemaTooOld(
            f"the database has schema {found or 'none'}, this release needs {wanted}", hint="run: replicator db upgrade"
        )
    oldest = (await connection.execute(text("SELECT oldest_code FROM meta"))).scalar_one()
    if int(wanted) < oldest:
        raise SchemaTooNew(
            f"the database has schema {found}, this release knows {wanted} and the schema allows {oldest:04d} or later",
            hint="use the newer release",
        )
