"""Several workers that share, join, stop and die while records flow and clusters fail: nothing lost, nothing twice, fair shares."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from replicator.coordinator.sharing import Sharer
from replicator.core.connector import Connector
from replicator.core.task import Cluster
from replicator.worker.supervisor import FAILED_RETRY_SECONDS
from tests.simulation.loop import VirtualLoop, run
from tests.simulation.world import World

QUEUES = 6
FLOWS = 2
FEW = 6
"""So few that they weigh nothing."""
LEASE_SECONDS = 12.0
JOIN_SECONDS_MAX = 5.0
STOP_SECONDS_MAX = 2.0
KILL_SECONDS_MAX = 20.0
HEALED_SECONDS_MAX = 10.0
SEEDS = int(os.environ.get("REPLICATOR_SIMULATION_SEEDS", "12"))
POLL_SECONDS = 0.05


class Shared:
    """A world in which a coordinator shares."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stop = asyncio.Event()
        self.sharing = asyncio.create_task(Sharer(world.store, "coordinator", LEASE_SECONDS, world.loop.time).run(self.stop))

    def copying(self) -> dict[int, str]:
        """{assignment: worker} of what is copied now, as the workers themselves know it."""
        return {
            assignment_id: process.instance
            for process in self.world.processes
            for assignment_id, running in process.worker._running.items()
            if running.copier.state == "running" and not running.copier.stopping
        }

    def moved_since(self, before: dict[int, str]) -> set[int]:
        return {key for key, worker in self.copying().items() if worker != before[key]}

    async def until_shared(self, seconds_max: float) -> float:
        """Waits until all is copied and everybody has a share; returns the seconds it took."""
        began = self.world.loop.time()
        names = {process.instance for process in self.world.processes}
        while True:
            counts = Counter(self.copying().values())
            if counts.keys() == names and sum(counts.values()) == QUEUES * FLOWS:
                return self.world.loop.time() - began
            assert self.world.loop.time() - began < seconds_max, f"seed {self.world.seed}: after {seconds_max} s: {counts}"
            await asyncio.sleep(POLL_SECONDS)

    async def end(self) -> None:
        for process in list(self.world.processes):
            process.stop.set()
            await process.task
        self.stop.set()
        await self.sharing


async def calm(world: World) -> None:
    """One change at a time: who is not concerned goes on undisturbed."""
    await world.declare()
    shared = Shared(world)
    world.start_process()
    await shared.until_shared(KILL_SECONDS_MAX)
    for _ in range(2):
        before = shared.copying()
        joined = world.start_process()
        await shared.until_shared(JOIN_SECONDS_MAX)
        after = shared.copying()
        shares = Counter(after.values()).values()
        assert max(shares) - min(shares) <= 1
        assert {after[key] for key in before if after[key] != before[key]} == {joined.instance}
    world.produce(FEW)
    before = shared.copying()
    leaver = world.processes.pop(0)
    leaver.stop.set()
    await asyncio.gather(leaver.task, shared.until_shared(STOP_SECONDS_MAX))
    assert shared.moved_since(before) == {key for key, worker in before.items() if worker == leaver.instance}
    world.start_process()
    await shared.until_shared(JOIN_SECONDS_MAX)
    world.produce(FEW)
    before = shared.copying()
    victim = world.processes[0]
    world.kill(victim)
    await shared.until_shared(KILL_SECONDS_MAX)
    assert shared.moved_since(before) == {key for key, worker in before.items() if worker == victim.instance}
    world.produce(FEW)
    await world.until_caught_up()
    await shared.end()
    await world.check()


async def out_of_reach(world: World) -> None:
    """Leases of which nothing can be opened stay where they are, are shown, and can be moved on like any other."""
    await world.declare()
    shared = Shared(world)
    world.produce(FEW)
    world.clusters["shanghai"].cut()
    first = world.start_process()
    await asyncio.sleep(15.0)
    before = {one.assignment_id: one for one in await world.store.assignments()}
    assert {one.holder for one in before.values()} == {first.instance}
    assert {one.state for one in before.values()} == {"unreachable"}
    assert all("does not answer" in one.error for one in before.values())
    await asyncio.sleep(30.0)
    assert {one.assignment_id: one.token for one in await world.store.assignments()} == {key: one.token for key, one in before.items()}
    second = world.start_process()
    await asyncio.sleep(15.0)
    after = await world.store.assignments()
    assert Counter(one.holder for one in after) == {first.instance: QUEUES * FLOWS / 2, second.instance: QUEUES * FLOWS / 2}
    assert all(one.token - before[one.assignment_id].token == (one.holder == second.instance) for one in after)
    world.clusters["shanghai"].heal()
    await shared.until_shared(HEALED_SECONDS_MAX)
    await world.until_caught_up()
    await shared.end()
    await world.check()


async def broken(world: World) -> None:
    """A connector with a bug: shown as such, and tried again."""
    await world.declare()
    shared = Shared(world)
    world.produce(FEW)
    process = world.start_process()
    really, mended_at = process.worker._flows._connect, world.loop.time() + 20.0

    def connect(cluster: Cluster) -> Connector:
        if world.loop.time() < mended_at:
            raise RuntimeError("a bug")
        return really(cluster)

    process.worker._flows._connect = connect
    await asyncio.sleep(15.0)
    assert {(one.state, one.error) for one in await world.store.assignments()} == {("failed", "RuntimeError: a bug")}
    await shared.until_shared(FAILED_RETRY_SECONDS)
    await world.until_caught_up()
    await shared.end()
    await world.check()


async def _change(world: World) -> None:
    kind = world.random.randrange(6)
    if kind == 0 and len(world.processes) < 5:
        world.start_process()
    elif kind == 1 and len(world.processes) > 1:
        process = world.processes.pop(world.random.randrange(len(world.processes)))
        process.stop.set()
        await process.task
    elif kind == 2 and len(world.processes) > 1:
        world.kill(world.random.choice(world.processes))
    elif kind == 3:
        cluster = world.clusters[world.random.choice(world.task.clusters)]
        cluster.cut(mode=world.random.choice(("refused", "silent")))
        world.loop.call_later(world.random.choice((0.2, 2.0, 12.0)), cluster.heal)
    elif kind == 4:
        world.store.available = False
        world.loop.call_later(world.random.choice((0.5, 3.0, 20.0)), setattr, world.store, "available", True)
    else:
        world.clusters[world.random.choice(world.task.clusters)].lose_next_answer()


async def rough(world: World) -> None:
    await world.declare()
    shared = Shared(world)
    for _ in range(3):
        world.start_process()
    for _ in range(25):
        world.produce(world.random.randrange(0, 30))
        if world.random.random() < 0.6:
            await _change(world)
        await asyncio.sleep(world.random.choice((0.0, 0.1, 1.0, 5.0)))
    for cluster in world.clusters.values():
        cluster.heal()
    world.store.available = True
    await world.until_caught_up()
    await shared.until_shared(60.0)
    await shared.end()
    await world.check()


@pytest.mark.parametrize("scenario", [calm, out_of_reach, rough])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_workers_share(seed: int, scenario: Callable[[World], Awaitable[None]]) -> None:
    loop = VirtualLoop()
    run(scenario(World(seed, loop, queue_count=QUEUES)), loop)


@pytest.mark.parametrize("seed", range((SEEDS + 2) // 3))
def test_a_bug_of_ours_is_shown_and_tried_again(seed: int) -> None:
    loop = VirtualLoop()
    run(broken(World(seed, loop, queue_count=QUEUES)), loop)
