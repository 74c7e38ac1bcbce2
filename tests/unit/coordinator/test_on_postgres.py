"""The same coordinator on the real store: what it writes comes back as it was meant."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from replicator.coordinator.service import Coordinator
from replicator.store.postgres import PostgresStore
from tests.unit.coordinator.conftest import INSTANCE, LATEST, World, connect, one_way, two_way

pytestmark = pytest.mark.postgres


@pytest_asyncio.fixture
async def world_on_postgres(world, postgres_url) -> AsyncIterator[World]:
    store = PostgresStore(postgres_url)
    await store.open()
    coordinator = Coordinator(store, connect, INSTANCE)
    yield World(store, coordinator, world.memory)
    await coordinator.close()
    await store.close()


async def test_from_applied_to_assigned(world_on_postgres):
    world = world_on_postgres
    world.memory["hz"].add_topic("orders", {"hz-a": 2})
    world.fill("hz", "orders", 5)
    task = two_way("t", "hz", "sh", topics=("orders", "pay"), start=LATEST)
    assert (await world.apply(task))[-1]["result"] == "created"
    assert {row["result"] for row in await world.apply(task)} == {"unchanged"}
    await world.rounds()
    assert await world.starts("hz", "sh") == [5, 5]
    assert await world.starts("sh", "hz") == [0, 0]
    await world.coordinator.close()
    successor = World(world.store, Coordinator(world.store, connect, "coordinator-2"), world.memory)
    world.memory["hz"].add_topic("pay", {"hz-a": 1})
    world.fill("hz", "pay", 5)
    await successor.rounds()
    await successor.coordinator.close()
    assert await world.starts("hz", "sh", "pay") == [0]
    assert (await world.flow("hz", "sh"))["state"] == "waiting-for-worker"


async def test_a_released_pair_is_told_to_its_holder_and_goes_on_later(world_on_postgres):
    world = world_on_postgres
    for topic in ("orders", "pay"):
        world.memory["hz"].add_topic(topic, {"hz-a": 1})
    await world.apply(one_way("t", "hz", "sh", topics=("orders", "pay")))
    await world.rounds()
    held = {a.source_queue.topic: a for a in await world.store.acquire("w", 60.0, 10)}
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    assert await world.store.revoked("w") == [held["pay"].assignment_id]
    assert await world.assigned("hz", "sh", "pay") == []
    assert not await world.store.release_pair(held["pay"].pair_id)
    await world.store.release(held["pay"].assignment_id, held["pay"].token, clean=True)
    await world.apply(one_way("t", "hz", "sh", topics=("orders", "pay")))
    await world.rounds()
    (again,) = await world.store.acquire("w", 60.0, 10)
    assert (again.assignment_id, again.token) == (held["pay"].assignment_id, held["pay"].token + 1)
