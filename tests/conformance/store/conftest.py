"""Every test of this folder runs on both stores."""

import time

import pytest
import pytest_asyncio

from replicator.store.memory import MemoryStore
from replicator.store.postgres import PostgresStore

DAY_SECONDS = 86_400.0


def make_memory_store():
    """One that has been up for a day: expired leases count only after one lease time of uptime."""
    offset = 0.0
    store = MemoryStore(lambda: time.time() + offset)
    offset = DAY_SECONDS
    return store


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def unopened_store(request):
    # Not async: a fixture with a running event loop cannot ask for another async one by name.
    return make_memory_store() if request.param == "memory" else PostgresStore(request.getfixturevalue("postgres_url"))


@pytest_asyncio.fixture
async def store(unopened_store):
    await unopened_store.open()
    yield unopened_store
    await unopened_store.close()
