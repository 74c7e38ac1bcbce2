"""The worker's real logic over memory clusters, with faults drawn from a seed. A failure names its seed:
``pytest tests/simulation -k 'seed and 17'`` runs it again."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.simulation.loop import VirtualLoop, run
from tests.simulation.world import World

SEEDS = int(os.environ.get("REPLICATOR_SIMULATION_SEEDS", "40"))
ROUNDS = 30


async def disturb(world: World) -> None:
    """One fault, drawn from the seed."""
    rnd, name = world.random, world.random.choice(world.task.clusters)
    cluster = world.clusters[name]
    kind = rnd.randrange(9)
    if kind == 0:
        cluster.lose_next_append(waits=rnd.random() < 0.5)
    elif kind == 1:
        cluster.lose_next_answer(waits=rnd.random() < 0.5)
    elif kind == 2:
        held = cluster.hold_next_append()
        world.loop.call_later(rnd.choice((0.5, 4.0, 7.0, 30.0)), held.release)
    elif kind == 3:
        cluster.cut(mode=rnd.choice(("refused", "silent")))
        world.loop.call_later(rnd.choice((0.2, 2.0, 12.0)), cluster.heal)
    elif kind == 4:
        cluster.restart_broker("broker-a")
    elif kind == 5:
        cluster.reset_connections()
    elif kind == 6:
        world.kill(rnd.choice(world.processes))
        await asyncio.sleep(rnd.choice((0.0, 0.5, 8.0)))
        world.start_process()
    elif kind == 7:
        world.store.available = False
        world.loop.call_later(rnd.choice((0.5, 3.0, 20.0)), setattr, world.store, "available", True)
    else:
        process = rnd.choice(world.processes)
        world.processes.remove(process)
        process.stop.set()
        await process.task
        world.start_process()


async def scenario(world: World) -> None:
    await world.declare()
    world.start_process()
    for _ in range(ROUNDS):
        world.produce(world.random.randrange(0, 40))
        if world.random.random() < 0.4:
            await disturb(world)
        await asyncio.sleep(world.random.choice((0.0, 0.1, 1.0, 5.0)))
    for cluster in world.clusters.values():
        cluster.heal()
    world.store.available = True
    await world.until_caught_up()
    for process in list(world.processes):
        process.stop.set()
        await process.task
    await world.check()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_seed(seed: int) -> None:
    loop = VirtualLoop()
    run(scenario(World(seed, loop)), loop)
