"""The store in Postgres: ``PostgresStore(url)``, put together from its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from replicator.store import schema
from replicator.store.access import Access
from replicator.store.checks import Checks
from replicator.store.declarations import Declarations
from replicator.store.driver import Database
from replicator.store.failovers import Failovers
from replicator.store.groups import Groups
from replicator.store.inspection import Inspection
from replicator.store.leases import Leases
from replicator.store.maps import Maps
from replicator.store.port import LeaseLost
from replicator.store.progress import ProgressWrites
from replicator.store.rebuilding import MapRebuilds
from replicator.store.sharing import coordinator_token
from replicator.store.topics import Topics

_INSUFFICIENT_PRIVILEGE = "42501"
_CONTROL = text("SELECT system_identifier, timeline_id FROM pg_control_system(), pg_control_checkpoint()")


class PostgresStore(Declarations, Topics, Leases, ProgressWrites, Maps, MapRebuilds, Groups, Failovers, Access, Checks, Inspection):
    """``url``: as SQLAlchemy wants it for asyncpg, ``postgresql+asyncpg://…``. Never logged."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)

    def under_lease(self, holder: str) -> PostgresStore:
        guarded = PostgresStore.__new__(PostgresStore)
        guarded._database = _UnderLease(self._database, holder)
        return guarded

    async def open(self) -> None:
        async with self._database.begin() as connection:
            await schema.check(connection)

    async def close(self) -> None:
        await self._database.close()

    async def identity(self) -> tuple[str, int]:
        """The schema's own id changes when the database was emptied, the server's when it was restored elsewhere, the timeline
        when a replica was promoted or the log replayed up to a point in time."""
        async with self._database.begin() as connection:
            own = (await connection.execute(text("SELECT identity FROM meta"))).scalar_one()
            try:
                async with connection.begin_nested():
                    row = (await connection.execute(_CONTROL)).one()
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != _INSUFFICIENT_PRIVILEGE:
                    raise
                # A hosted server that keeps these functions to itself: its restores are not seen.
                return own, 1
        return f"{own}-{row.system_identifier}", row.timeline_id


class _UnderLease(Database):
    """The same engine; each transaction begins by locking the lease of the coordinator."""

    def __init__(self, origin: Database, holder: str) -> None:
        self.notices = origin.notices
        self._origin = origin
        self._holder = holder

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        async with self._origin.begin() as connection:
            if await coordinator_token(connection, self._holder) is None:
                raise LeaseLost("another coordinator reconciles now")
            yield connection

    async def close(self) -> None:
        """The engine is the origin's."""
