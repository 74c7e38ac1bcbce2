"""The connection to Postgres: pool, limits, and the one place where driver errors become ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from replicator.store.notices import Notices
from replicator.store.port import Conflict, StoreUnavailable

CONNECT_SECONDS_MAX = 5.0
STATEMENT_SECONDS_MAX = 8.0
"""Limit of one statement in the server."""
COMMAND_SECONDS_MAX = 10.0
"""Limit of one statement as seen from here: larger, so that the server's comes first unless the network is silent."""
POOL_SECONDS_MAX = 5.0
POSTGRES_PORT = 5432
POOL_SIZE = 5
POOL_OVERFLOW = 5
CONNECTION_AGE_SECONDS_MAX = 1800

# SQLSTATE classes and codes that say "not now": connection, resources, operator intervention, deadlock, lock timeout.
_PASSING_CLASSES = ("08", "53", "57", "58")
_PASSING_CODES = {"40001", "40P01", "55P03", "25006", "25P03", "28P01", "28000", "3D000"}
_UNIQUE_VIOLATION = "23505"
_FOREIGN_KEY_VIOLATION = "23503"
_CLAIMS = {
    "clusters_pkey": "a cluster of this name was declared at the same moment",
    "clusters_cluster_id_key": "another cluster already carries this cluster id",
    "tasks_pkey": "a task of this name was made at the same moment",
    "flows_living": "this task already has a flow between these two clusters",
    "pairs_claim": "another flow already writes this topic",
    "queue_map_entries_queue": "the queue is already in the queue map",
    "assignments_source_queue": "the source queue already has an assignment",
}


def make_engine(url: str) -> AsyncEngine:
    milliseconds = str(int(STATEMENT_SECONDS_MAX * 1000))
    return create_async_engine(
        url,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=POOL_SECONDS_MAX,
        pool_recycle=CONNECTION_AGE_SECONDS_MAX,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "timeout": CONNECT_SECONDS_MAX,
            "command_timeout": COMMAND_SECONDS_MAX,
            "server_settings": {
                "application_name": "replicator",
                "statement_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
            },
        },
    )


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def _constraint(error: DBAPIError) -> str:
    cause = error.orig.__cause__ if error.orig is not None else None
    return str(getattr(cause, "constraint_name", None) or "")


@contextmanager
def wrapped_errors(url: str) -> Iterator[None]:
    """Trouble that passes -> ``StoreUnavailable``, naming the database but not its password; a violated claim -> ``Conflict``;
    anything else is our bug and goes on up."""
    try:
        yield
    except IntegrityError as error:
        if _sqlstate(error) not in (_UNIQUE_VIOLATION, _FOREIGN_KEY_VIOLATION):
            raise
        name = _constraint(error)
        raise Conflict(_CLAIMS.get(name, f"another change came first ({name})")) from error
    except DBAPIError as error:
        code = _sqlstate(error)
        passing = code[:2] in _PASSING_CLASSES or code in _PASSING_CODES
        if not (passing or error.connection_invalidated or (not code and isinstance(error, (OperationalError, InterfaceError)))):
            raise
        raise StoreUnavailable(f"the database {where_of(url)} cannot be used now: {error.orig}") from error
    except (OSError, PoolTimeout) as error:
        # OSError includes the builtin TimeoutError: connect and command time-outs of asyncpg.
        raise StoreUnavailable(f"the database {where_of(url)} cannot be reached: {str(error) or type(error).__name__}") from error


def where_of(url: str) -> str:
    """``host:port/name``."""
    parsed: URL = make_url(url)
    return f"{parsed.host or 'localhost'}:{parsed.port or POSTGRES_PORT}/{parsed.database or ''}"


class Database:
    """One engine; ``begin`` gives a transaction with driver errors wrapped."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine = make_engine(url)
        self.notices = Notices(self._engine)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        with wrapped_errors(self._url):
            async with self._engine.begin() as connection:
                yield connection

    async def close(self) -> None:
        await self.notices.close()
        await self._engine.dispose()
