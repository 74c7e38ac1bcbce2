"""How far behind a flow is must be known as soon as it runs, also where nothing arrives."""

from __future__ import annotations

import asyncio

from connectors.memory.connector import MemorySettings
from replicator.worker.limits import SAVE_INTERVAL_SECONDS
from tests.simulation.loop import VirtualLoop, run
from tests.simulation.world import World

WATCHED_SECONDS = 60.0
STEP_SECONDS = 0.1


async def figures_of(world: World, key: str) -> list[object]:
    return [flow[key] for flow in await world.store.flow_figures()]


async def idle_start(world: World) -> None:
    await world.declare()
    process = world.start_process()
    deadline = world.loop.time() + WATCHED_SECONDS
    while not all(states == {"running": world.queue_count} for states in await figures_of(world, "queues_by_state")):
        assert world.loop.time() < deadline, await world.store.flow_figures()
        await asyncio.sleep(STEP_SECONDS)
    began = world.loop.time()
    while any(lag != 0 for lag in await figures_of(world, "lag_messages")):
        assert world.loop.time() < deadline, await world.store.flow_figures()
        await asyncio.sleep(STEP_SECONDS)
    waited = world.loop.time() - began
    assert waited <= 2 * SAVE_INTERVAL_SECONDS < MemorySettings(cluster="any").long_poll_seconds
    process.stop.set()
    await process.task


def test_idle_flow_is_known_to_be_caught_up_without_waiting_for_a_record() -> None:
    loop = VirtualLoop()
    run(idle_start(World(3, loop)), loop)
