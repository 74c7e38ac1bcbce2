"""Fixtures for every folder of tests that wants a real Postgres: one server a session, one database a test."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
import structlog
from hypothesis import settings
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from replicator.store import migrating
from replicator.store.embedded import EmbeddedPostgres

TEMPLATE = "replicator_template"

# A traceback drawn with every local variable costs as much as a second of simulated faults.
structlog.configure(processors=[structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs no broker comes first: a mistake shows early, and idle brokers take a good part of a core from whatever runs beside."""
    items.sort(key=lambda item: item.get_closest_marker("rocketmq") is not None)


# How long an example takes says how busy the machine is, nothing about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def with_database(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


@asynccontextmanager
async def administration(url: str):
    engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_server(tmp_path_factory) -> AsyncIterator[EmbeddedPostgres]:
    """A running server; holds an upgraded database to copy, ``TEMPLATE``."""
    async with EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        async with administration(server.url) as connection:
            await connection.execute(text(f"CREATE DATABASE {TEMPLATE}"))
        await migrating.upgrade(with_database(server.url, TEMPLATE))
        yield server


@pytest_asyncio.fixture
async def postgres_url(postgres_server) -> AsyncIterator[str]:
    """The address of an own, upgraded database."""
    name = f"test_{secrets.token_hex(6)}"
    async with administration(postgres_server.url) as connection:
        await connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
    yield with_database(postgres_server.url, name)
    async with administration(postgres_server.url) as connection:
        await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
