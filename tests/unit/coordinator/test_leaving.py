"""A deleted task takes its groups and locks along; what it cannot reach is told."""

from __future__ import annotations

import asyncio

import pytest

from replicator.coordinator import leaving
from replicator.core.errors import NotPermitted
from replicator.core.task import lock_group, position_group
from tests.unit.coordinator.conftest import one_way, queue, two_way


async def started(world, *tasks):
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    await world.apply(*tasks)
    await world.rounds()


def groups(world, cluster):
    return sorted({group for group, _ in world.memory[cluster].consumer_offsets})


async def lock(world):
    """As a worker that died left it."""
    (one,) = await world.store.acquire("dead", 0.01, 1)
    (row,) = [row for row in await world.store.clusters() if row.name == "sh"]
    assert world.memory["hz"].lock(lock_group(row.cluster_id), "dead", one.source_queue)
    return one


async def test_positions_and_locks_go_and_others_stay(world):
    await started(world, two_way("t", "hz", "sh"), one_way("u", "hz", "bj"))
    for task, source, destination in (("t", "hz", "sh"), ("t", "sh", "hz"), ("u", "hz", "bj")):
        (one, *_) = world.memory[source].queues("orders")
        world.memory[source].commit(position_group(task, destination), one, 5)
    world.memory["hz"].commit("billing", queue("orders", "hz-a", 0), 3)
    await world.store.set_paused("u", True)
    await lock(world)
    answer = await world.coordinator.delete("tasks", "t")
    assert (answer["result"], answer["left"]) == ("deleted", [])
    assert (groups(world, "hz"), groups(world, "sh")) == (["billing", "replicator-u-bj"], [])
    assert world.memory["hz"].locks == {}
    assert len(await world.store.pairs()) == 3, "the tombstones stay"


async def test_a_group_name_that_another_task_uses_stays(world):
    assert position_group("a", "b-c") == position_group("a-b", "c")
    await started(world, one_way("a", "hz", "sh"))
    world.memory["hz"].commit("replicator-a-sh", queue("orders", "hz-a", 0), 1)
    (flow,) = await world.store.flows()
    link = await world.coordinator._connections.get(world.clusters[0])
    await leaving._remove_positions(world.store, link, flow)
    assert groups(world, "hz") == ["replicator-a-sh"], "a living flow uses the name"


async def test_it_waits_until_the_workers_have_let_go(world):
    await started(world, one_way("t", "hz", "sh"))
    (one,) = await world.store.acquire("w", 30.0, 1)
    deleting = asyncio.create_task(world.coordinator.delete("tasks", "t"))
    await asyncio.sleep(0.1)
    world.memory["hz"].commit("replicator-t-sh", one.source_queue, 9)
    assert not deleting.done()
    await world.store.release(one.assignment_id, one.token, clean=True)
    assert (await deleting)["left"] == []
    assert groups(world, "hz") == []


async def test_what_cannot_be_removed_is_told_and_the_task_is_gone(world, monkeypatch):
    await started(world, one_way("t", "hz", "sh"))
    world.memory["hz"].fail_next_call("remove_group", NotPermitted("no rights"))
    answer = await world.coordinator.delete("tasks", "t")
    assert answer["left"] == ["group replicator-t-sh on hz: no rights"]
    assert (await world.coordinator.events("t"))[-1]["kind"] == "left-behind"
    assert await world.store.tasks() == []


@pytest.mark.parametrize("seconds", [0.05])
async def test_a_worker_that_does_not_let_go_is_told(world, monkeypatch, seconds):
    await started(world, one_way("t", "hz", "sh"))
    monkeypatch.setattr(leaving, "LET_GO_SECONDS_MAX", seconds)
    monkeypatch.setattr(leaving, "LET_GO_POLL_SECONDS", 0.01)
    await world.store.acquire("w", 30.0, 1)
    (left,) = (await world.coordinator.delete("tasks", "t"))["left"]
    assert "still held queues" in left
