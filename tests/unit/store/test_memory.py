"""What only the memory store can do: a clock of its own and an outage at will."""

import pytest

from replicator.store.memory import MemoryStore
from replicator.store.port import Checkpoint, ClusterRow, NewAssignment, Progress, StoreUnavailable
from tests.conformance.store.scene import put_assignments, queue


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


async def test_an_outage_reaches_every_method_and_loses_nothing(store):
    await put_assignments(store)
    store.available = False
    for call in (store.open(), store.clusters(), store.put_cluster(ClusterRow("a", "memory", "", {})), store.acquire("w", 5, 1)):
        with pytest.raises(StoreUnavailable):
            await call
    store.available = True
    assert len(await store.acquire("w", 5, 1)) == 1


async def test_after_an_outage_expired_leases_wait_for_one_lease_time(store, clock):
    await put_assignments(store)
    await store.acquire("w1", 5, 1)
    store.available = False
    clock.now += 60
    store.available = True
    assert await store.acquire("w2", 5, 1) == []
    clock.now += 4.9
    assert await store.acquire("w2", 5, 1) == []
    clock.now += 0.2
    assert len(await store.acquire("w2", 5, 1)) == 1


async def test_what_was_given_and_returned_is_not_shared(store):
    settings = {"names": ["a"]}
    await store.put_cluster(ClusterRow("a", "memory", "", settings))
    settings["names"].append("b")
    (await store.clusters())[0].settings["names"].append("c")
    assert (await store.clusters())[0].settings == {"names": ["a"]}


async def test_figures_grow_old(store, clock):
    await put_assignments(store)
    (row,) = await store.acquire("w", 100, 1)
    await store.save_progress([Progress(row.assignment_id, row.token, Checkpoint(), lag_messages=0)])
    assert (await store.flow_figures())[0]["lag_messages"] == 0
    clock.now += 16
    assert (await store.flow_figures())[0]["lag_messages"] is None


async def test_workers_are_forgotten_by_the_clock(store, clock):
    await store.worker_seen("w", {})
    clock.now += 10
    assert await store.workers(9) == []
    assert len(await store.workers(11)) == 1


async def test_a_flow_id_is_never_given_twice(clock):
    ids = iter(["aaaaaa", "aaaaaa", "bbbbbb"])
    store = MemoryStore(clock, make_flow_id=lambda: next(ids))
    _, pair = await put_assignments(store)
    await store.delete_task("orders")
    flow, again = await put_assignments(store)
    assert (flow.flow_id, again.pair_id) == ("bbbbbb", pair.pair_id)
    assert await store.add_assignments(pair.pair_id, [NewAssignment(queue("orders", 0), queue("orders", 0), 0)]) == 0
