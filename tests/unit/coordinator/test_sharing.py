"""The coordinator's choice of workers, over the memory store with a clock of its own."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest_asyncio

from replicator.coordinator.operations import get
from replicator.coordinator.sharing import REBALANCE_SECONDS, RETURN_SECONDS, SAMPLE_SECONDS, Sharer
from replicator.core.placement import weight_of
from replicator.store.limits import WORKER_GONE_SECONDS
from replicator.store.memory import MemoryStore
from replicator.store.port import Checkpoint, Progress
from tests.conformance.store.scene import put_assignments

LEASE_SECONDS = 5.0
DAY_SECONDS = 86_400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.clock.now += DAY_SECONDS
        self.passed = 0.0
        self.sharer = Sharer(self.store, "c1", LEASE_SECONDS, lambda: self.passed)

    async def seen(self, *workers: str, near: str = "") -> None:
        for worker in workers:
            await self.store.worker_seen(worker, {"near": near})

    async def turn(self) -> Counter[str]:
        """How many assignments each worker was chosen for."""
        await self.sharer.turn()
        return Counter(share.chosen for share in await self.store.shares())

    async def choice(self) -> dict[int, str]:
        return {share.assignment_id: share.chosen for share in await self.store.shares()}


@pytest_asyncio.fixture
async def world() -> World:
    made = World()
    await put_assignments(made.store, 9)
    return made


async def test_nothing_is_chosen_without_workers_or_without_the_lease(world):
    assert await world.turn() == {"": 9}
    await world.seen("w1")
    other = Sharer(world.store, "c2", LEASE_SECONDS)
    await other.turn()
    assert set((await world.choice()).values()) == {""}, "c1 holds the lease"
    assert await world.turn() == {"w1": 9}


async def test_workers_that_join_and_leave_are_followed_at_once(world):
    await world.seen("w1")
    await world.turn()
    await world.seen("w2", "w3")
    assert await world.turn() == {"w1": 3, "w2": 3, "w3": 3}
    before = await world.choice()
    await world.store.worker_left("w2")
    after = await world.turn()
    assert set(after) == {"w1", "w3"}
    assert all(after_worker == before[key] for key, after_worker in (await world.choice()).items() if before[key] != "w2")


async def test_a_silent_worker_is_replaced_and_gets_its_share_when_it_is_back(world):
    await world.seen("w1", "w2")
    await world.turn()
    world.clock.now += WORKER_GONE_SECONDS + 0.5
    await world.seen("w1")
    assert await world.turn() == {"w1": 9}
    await world.seen("w2")
    assert await world.turn() == {"w1": 9}, "it may fall silent again"
    world.passed += RETURN_SECONDS + 1
    assert set(await world.turn()) == {"w1", "w2"}


async def test_if_all_had_been_silent_all_count(world):
    await world.seen("w1", "w2")
    await world.turn()
    world.clock.now += WORKER_GONE_SECONDS + 0.5
    await world.turn()
    await world.seen("w1", "w2")
    assert set(await world.turn()) == {"w1", "w2"}


async def test_silence_proves_nothing_while_the_database_has_just_come_up(world):
    await world.seen("w1", "w2")
    shared = await world.turn()
    world.store.available = False
    world.clock.now += 60.0
    world.store.available = True
    await world.seen("w1")
    assert await world.turn() == shared, "w2 could not tell of itself"
    await put_assignments(world.store, 2, task="more", topic="more")
    assert await world.turn() == shared + Counter(w1=2)
    world.clock.now += WORKER_GONE_SECONDS
    await world.seen("w1")
    assert await world.turn() == {"w1": 11}


async def test_one_chosen_that_never_came_leaves_it_with_its_holder(world):
    await world.seen("w1", "w2")
    held = await world.store.acquire("w1", LEASE_SECONDS, 100)
    assert len(held) == 9
    assert await world.turn() == {"w1": 5, "w2": 4}
    await world.store.worker_left("w2")
    assert await world.turn() == {"w1": 9}


async def test_new_queues_are_given_out_at_once_and_nothing_else_moves(world):
    await world.seen("w1", "w2", "w3")
    await world.turn()
    before = await world.choice()
    await put_assignments(world.store, 3, task="more", topic="more")
    assert await world.turn() == {"w1": 4, "w2": 4, "w3": 4}
    after = await world.choice()
    assert {key: after[key] for key in before} == before


async def test_near_workers_come_first(world):
    await world.seen("w1")
    await world.turn()
    await world.seen("w2", near="shanghai")
    assert await world.turn() == {"w2": 9}


async def test_a_load_that_stays_uneven_is_evened_out_after_a_while_and_a_small_one_never(world):
    await world.seen("w1", "w2")
    await world.store.acquire("w1", LEASE_SECONDS, 100)
    shared = await world.turn()
    before = await world.choice()

    async def report(worker: str, rate: float) -> None:
        rows = [row for row in await world.store.assignments() if row.worker == worker]
        items = [Progress(row.assignment_id, row.token, Checkpoint(), rate_per_second=rate) for row in rows]
        assert await world.store.save_progress(items) == set()

    await report("w1", 0.2)
    world.passed += REBALANCE_SECONDS
    assert await world.turn() == shared
    await report("w1", 1000.0)
    for _ in range(int(REBALANCE_SECONDS / SAMPLE_SECONDS) - 1):
        world.passed += SAMPLE_SECONDS
        assert await world.turn() == shared, "not for what may pass in a moment"
    world.passed += SAMPLE_SECONDS
    assert await world.turn() != shared
    loads = Counter()
    for share in await world.store.shares():
        loads[share.chosen] += weight_of(1000.0 if before[share.assignment_id] == "w1" else 0.0)
    assert max(loads.values()) < 2 * min(loads.values())


async def test_get_shows_near_and_weight(world):
    await world.seen("w1", near="shanghai")
    await world.turn()
    held = await world.store.acquire("w1", LEASE_SECONDS, 1)
    await world.store.save_progress([Progress(held[0].assignment_id, held[0].token, Checkpoint(), rate_per_second=40.0)])
    (worker,) = await get(world.store, "workers", None)
    assert (worker["name"], worker["near"], worker["weight"]) == ("w1", "shanghai", 8 * weight_of(0.0) + weight_of(40.0))
    (row,) = [one for one in await get(world.store, "assignments", None) if one["holder"]]
    assert (row["holder"], row["worker"], row["near"], row["weight"]) == ("w1", "w1", "shanghai", weight_of(40.0))


async def test_it_wakes_when_something_changes_and_ends_when_asked(world):
    stop = asyncio.Event()
    running = asyncio.create_task(world.sharer.run(stop))
    await asyncio.sleep(0.01)
    await world.seen("w1")
    async with asyncio.timeout(0.4):
        while set((await world.choice()).values()) != {"w1"}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait_for(running, 1.0)
