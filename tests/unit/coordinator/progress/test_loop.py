"""The loop as the coordinator runs it: by the lease, each task in its interval, down when it is told to."""

import asyncio

from tenacity import AsyncRetrying, retry_if_result, stop_after_delay, wait_fixed

from replicator.core.errors import NotConnected
from replicator.core.task import ProgressSpec
from tests.unit.coordinator.progress.conftest import leave, make

WAIT_SECONDS = 15.0


async def until(is_so):
    async def asked():
        return is_so()

    retrying = AsyncRetrying(retry=retry_if_result(lambda found: not found), wait=wait_fixed(0.05), stop=stop_after_delay(WAIT_SECONDS))
    await retrying(asked)


async def test_the_coordinator_syncs_by_itself_until_it_is_told_to_stop():
    world = await make(ProgressSpec(interval_seconds=1))
    stop = asyncio.Event()
    running = asyncio.create_task(world.coordinator.run(stop))
    try:
        world.commit("hz", "pay", 4)
        await until(lambda: world.stands("sh", "pay") == 4)
        world.groups["sh"].away = NotConnected("gone")
        asked = world.groups["hz"].calls["group_offsets"]
        await until(lambda: world.groups["hz"].calls["group_offsets"] > asked + 1)
        told = await world.coordinator.leading()
        assert told["lease_held"]
        assert told["progress"]["t"]["sync_age_seconds"] > 1, "an interval without an answer is not a sync"
        assert (told["progress"]["t"]["groups_split"], told["progress"]["t"]["groups_refused"]) == (0, 0)
        assert not running.done()
    finally:
        stop.set()
        await asyncio.wait_for(running, 5)
        await leave(world)


async def test_without_the_lease_nothing_is_read():
    world = await make(ProgressSpec(interval_seconds=1))
    await world.store.hold_coordinator("another", 3600)
    stop = asyncio.Event()
    loop = world.coordinator._progress
    running = asyncio.create_task(loop.run(stop))
    try:
        world.commit("hz", "pay", 4)
        held = await loop.hold()
        await asyncio.wait({running}, timeout=1.5)
        assert not held
        assert await world.coordinator.leading() == {"lease_held": False, "progress": {}}
        assert world.groups["hz"].calls["group_offsets"] == 0
    finally:
        stop.set()
        await asyncio.wait_for(running, 5)
        await leave(world)
