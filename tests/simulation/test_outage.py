"""The store is away for longer than memory has room for the map: afterwards the map is complete and exact all the same."""

from __future__ import annotations

import asyncio

import pytest

from replicator.worker import journal, recovery
from tests.simulation.loop import VirtualLoop, run
from tests.simulation.world import World

RUNS_KEPT_MAX = 12
PAGE = 7


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(journal, "RUNS_KEPT_MAX", RUNS_KEPT_MAX)
    monkeypatch.setattr(recovery, "RELEARN_OFFSETS_PAGE", PAGE)


async def produce_for(world: World, rounds: int) -> None:
    for _ in range(rounds):
        world.produce(world.random.randrange(0, 9))
        await asyncio.sleep(world.random.choice((0.0, 0.1, 1.0)))


def folded(world: World) -> int:
    journals = [running.copier.journal for process in world.processes for running in process.worker._running.values()]
    for one in journals:
        assert max(len(one._runs), len(one._holes)) <= RUNS_KEPT_MAX
    return sum(one.to_relearn is not None for one in journals)


async def outage(world: World, disturb: str) -> None:
    await world.declare()
    world.start_process()
    await produce_for(world, 5)
    world.store.available = False
    await produce_for(world, 60)
    await asyncio.sleep(5.0)
    assert folded(world) > 0, "too little was copied for this test to say anything"
    world.store.available = True
    await asyncio.sleep(world.random.choice((0.0, 1.0, 1.02, 1.5, 2.5)))
    if disturb == "kill":
        world.kill(world.processes[0])
        world.start_process()
    elif disturb == "reset":
        for cluster in world.clusters.values():
            cluster.reset_connections()
    elif disturb == "again":
        world.store.available = False
        await produce_for(world, 30)
        world.store.available = True
    await produce_for(world, 5)
    await world.until_caught_up()
    for process in list(world.processes):
        process.stop.set()
        await process.task
    await world.check()


@pytest.mark.parametrize("disturb", ["nothing", "kill", "reset", "again"])
@pytest.mark.parametrize("seed", range(4))
def test_the_map_is_complete_after_a_long_outage(little_memory, seed: int, disturb: str) -> None:
    loop = VirtualLoop()
    run(outage(World(seed, loop), disturb), loop)


async def lost_tail(world: World) -> None:
    """The destination loses copies while part of the map is only in its log: what it kept is not copied again."""
    await world.declare()
    process = world.start_process()
    await produce_for(world, 5)
    world.store.available = False
    await produce_for(world, 60)
    await asyncio.sleep(5.0)
    assert folded(world) > 0
    shanghai = world.clusters["shanghai"]
    queue = shanghai.queues("orders")[0]
    shanghai.truncate(queue, shanghai.log(queue).readable_end - 3)
    kept = [record.body for record in shanghai.records(queue)]
    shanghai.reset_connections()
    world.store.available = True
    world.produce(20)
    await asyncio.sleep(60.0)
    process.stop.set()
    await process.task
    bodies = [record.body for record in shanghai.records(queue)]
    assert bodies[: len(kept)] == kept
    born = world.produced[("hangzhou", queue)]
    copies = [body for body in bodies if body.startswith(b"hangzhou-")]
    assert sorted(copies) == sorted(born)


@pytest.mark.parametrize("seed", range(3))
def test_a_tail_lost_during_the_outage_is_mended_without_copying_the_rest_again(little_memory, seed: int) -> None:
    loop = VirtualLoop()
    run(lost_tail(World(seed, loop)), loop)
