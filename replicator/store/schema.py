"""Which schema this release is written for, and whether a database has it.

Revisions are numbers. A newer schema is fine as long as it only expanded (``meta.oldest_code``); an older one never is.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

import replicator
from replicator.core.errors import ReplicatorError


class SchemaTooOld(ReplicatorError):
    """The database has not been brought to this release's schema."""


class SchemaTooNew(ReplicatorError):
    """The database has the schema of a later release that this one cannot work with."""


def migrations() -> Path:
    """Beside the package, in the source tree and where the wheel is installed."""
    return Path(replicator.__file__).parent.parent / "migrations"


@cache
def head() -> str:
    """The revision this release is written for: the last of its files, which are named after their numbers."""
    return max(file.name.partition("_")[0] for file in (migrations() / "versions").glob("[0-9]*_*.py"))


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
