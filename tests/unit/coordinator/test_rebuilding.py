"""``rebuild``: the map from the destination's log alone, with and without the sources, with and without what the store knew."""

from __future__ import annotations

import asyncio

import pytest
from tenacity import AsyncRetrying, retry_if_result, stop_after_delay, wait_fixed

from replicator.coordinator import rebuilding
from replicator.coordinator.atlas import Atlas
from replicator.coordinator.service import Coordinator
from replicator.core.errors import InvalidInput, Missing, Unsafe
from replicator.core.offset_map import Absent, Epoch, Found, NotYet
from replicator.core.stamp import FIRST_HOP_SUFFIX, Coordinates, Place, Stamp, relay_suffix, stamp_prefix
from replicator.store.memory import MemoryStore
from replicator.store.port import Checkpoint, Hole, Progress, Run
from tests.unit.coordinator.conftest import INSTANCE, World, connect, one_way, queue, two_way

SOURCE, PUT = queue("orders", "hz-a", 0), queue("orders", "sh-a", 0)


def copy(world, offset, *, epoch=1, source="hz", destination="sh", source_queue=SOURCE, put=PUT, time_ms=None, is_restored=False):
    """A copy of ``offset`` of ``source`` as a worker would have put it at the end of ``put``. ``is_restored``: of a message that was born
    there and lost."""
    (put_id,), (source_id,) = world.memory[destination].marks, world.memory[source].marks
    prefix = stamp_prefix("abcdef", Place(put_id, put), Place(source_id, source_queue), epoch)
    stored = 1_000 + offset if time_ms is None else time_ms
    end = FIRST_HOP_SUFFIX
    if is_restored:
        end = relay_suffix(Stamp("abcdef", Place(source_id, source_queue), Coordinates(Place(put_id, put), 1, 90 + offset, 5), None, ()))
    world.memory[destination].produce_many(put, [b"copy"], prefix + f"{offset:x};{stored:x}".encode() + end)


async def rebuilt(world, task="t", **fields):
    fields = {"topic": None, "source": None, "destination": None, "cluster_ids": {}, **fields}
    await world.coordinator.rebuild(task, **fields)
    return await ended(world, task)


async def ended(world, task="t"):
    is_running = retry_if_result(lambda answer: answer["state"] == "running")
    return await AsyncRetrying(retry=is_running, wait=wait_fixed(0.01), stop=stop_after_delay(30))(world.coordinator.rebuild_progress, task)


async def started(world, task=None):
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    world.memory["sh"].add_topic("orders", {"sh-a": 1})
    await world.apply(task or one_way("t", "hz", "sh"))
    await world.rounds()
    (one,) = await world.assigned("hz", "sh")
    return one.assignment_id


async def translated(world, assignment_id, end):
    copies = await Atlas(world.store).offset_map(assignment_id)
    return [copies.to_destination(offset) for offset in range(end)]


def interleaved(world):
    """Copies of 2, 3, 5, 6, 9, 9 (again) among locals; returns where each stands."""
    at = {}
    for offset in (2, None, 3, 5, 6, None, None, 9, 9, None):
        if offset is None:
            world.memory["sh"].produce_many(PUT, [b"local"])
        else:
            at.setdefault(offset, world.memory["sh"].log(PUT).readable_end)
            copy(world, offset)
    return at


async def test_a_wrong_map_is_replaced_by_what_the_log_holds(world, monkeypatch):
    monkeypatch.setattr(rebuilding, "ROWS_AT_ONCE_MAX", 2)
    found = await started(world)
    at = interleaved(world)
    (leased,) = await world.store.acquire("w", 5.0, 1)
    wrong = Progress(found, leased.token, Checkpoint(examined_through=50), runs=[Run(1, 0, 40, 20)], holes=[Hole(1, 20, 30, "loop")])
    await world.store.save_progress([wrong])
    await world.store.release(found, leased.token, clean=True)
    answer = await rebuilt(world)
    assert (answer["state"], answer["error"], answer["copies_found"], answer["records_read"]) == ("done", "", 5, 10)
    (row,) = answer["queues"]
    shown = {name: row[name] for name in ("copies", "runs", "duplicates", "epochs", "without_copy", "examined_through")}
    assert shown == {"copies": 5, "runs": 4, "duplicates": 1, "epochs": [1], "without_copy": 3, "examined_through": 10}
    unknown = Absent("unknown")
    expected = [Found(at[offset], 1) if offset in at else unknown for offset in range(10)]
    assert await translated(world, found, 12) == [*expected, NotYet(10), NotYet(10)]
    copies = await Atlas(world.store).offset_map(found)
    assert [tuple(one) for one in copies.second_copies()] == [(9, at[9] + 1, at[9], 1)]
    (one,) = await world.assigned("hz", "sh")
    assert not one.paused
    assert one.checkpoint.scanned_through == 10
    assert "rebuilt" in await world.event_kinds("t")


async def test_the_old_map_stays_when_the_destination_goes_away_half_way(world):
    found = await started(world)
    interleaved(world)
    (leased,) = await world.store.acquire("w", 5.0, 1)
    before = Progress(found, leased.token, Checkpoint(examined_through=50), runs=[Run(1, 0, 40, 20)])
    await world.store.save_progress([before])
    await world.store.release(found, leased.token, clean=True)
    world.memory["sh"].cut(instance=INSTANCE)
    answer = await rebuilt(world)
    assert answer["state"] == "failed"
    assert "sh" in answer["error"]
    assert list(await world.store.runs(found)) == [Run(1, 0, 40, 20)]
    assert not (await world.assigned("hz", "sh"))[0].paused


async def test_what_was_paused_stays_paused_and_a_held_queue_is_waited_for(world):
    found = await started(world)
    interleaved(world)
    (leased,) = await world.store.acquire("w", 60.0, 1)
    await world.coordinator.rebuild("t", topic=None, source=None, destination=None, cluster_ids={})
    with pytest.raises(Unsafe, match="already"):
        await world.coordinator.rebuild("t", topic=None, source=None, destination=None, cluster_ids={})
    await asyncio.sleep(0.5)
    assert await world.store.revoked("w") == [found], "the holder is asked to let go"
    assert await world.store.runs(found) == []
    await world.store.release(found, leased.token, clean=True)
    assert (await ended(world))["state"] == "done"
    await world.coordinator.set_paused("t", True, "orders", "hz", "sh")
    assert (await rebuilt(world, topic="orders"))["copies_found"] == 5
    assert (await world.assigned("hz", "sh"))[0].paused


async def test_epochs_the_store_knows_stay_exact_and_others_begin_at_their_first_copy(world):
    found = await started(world)
    await world.store.set_epoch(found, 2, 6, "created anew", divergence_offset=4)
    for epoch, offsets in ((1, range(8)), (2, (6, 7, 9)), (3, (8, 9))):
        for offset in offsets:
            copy(world, offset, epoch=epoch)
    (row,) = (await rebuilt(world))["queues"]
    assert (row["epochs"], row["copies"], row["examined_through"]) == ([1, 2, 3], 13, 10)
    assert list(await world.store.epochs(found)) == [Epoch(1), Epoch(2, 4, 6), Epoch(3, 8, 8)]
    present = [Found(n, 1) for n in range(4)] + [Absent("history")] * 2 + [Found(8, 2), Found(9, 2), Found(11, 3), Found(12, 3)]
    assert await translated(world, found, 10) == present
    copies = await Atlas(world.store).offset_map(found)
    assert sum(ghost.length for ghost in copies.ghosts()) == 5


async def test_what_was_sent_back_is_found_and_not_sent_again(world):
    """3 was left out, and goes back later; 7 and 8 are to follow."""
    found = await started(world)
    for offset in (0, 1, 2, 4, 5, 6):
        copy(world, offset)
    (leased,) = await world.store.acquire("w", 5.0, 1)
    await world.store.save_progress([Progress(found, leased.token, Checkpoint(examined_through=9), holes=[Hole(1, 3, 1, "loop")])])
    await world.store.release(found, leased.token, clean=True)
    await world.store.begin_restore(found, [(3, 4), (7, 9)], "failback 1")
    copy(world, 3, epoch=2, is_restored=True)
    await rebuilt(world)
    (one,) = await world.assigned("hz", "sh")
    assert (one.checkpoint.epoch, one.checkpoint.examined_through) == (2, 4), "7 and 8 are still to go"
    assert await translated(world, found, 4) == [Found(0, 1), Found(1, 1), Found(2, 1), Found(6, 1)]
    assert list((await Atlas(world.store).offset_map(found)).restored) == [(3, 4)]
    for offset in (7, 8):
        copy(world, offset, epoch=2, is_restored=True)
    copy(world, 9, epoch=2)
    await rebuilt(world)
    (one,) = await world.assigned("hz", "sh")
    assert (one.checkpoint.epoch, one.checkpoint.examined_through) == (2, 10)
    assert list((await Atlas(world.store).offset_map(found)).restored) == [(3, 4), (7, 9)]


async def test_a_later_epoch_without_copies_is_not_forgotten(world):
    found = await started(world)
    for offset in range(5):
        copy(world, offset)
    await world.store.set_epoch(found, 2, 3, "created anew", divergence_offset=1)
    await rebuilt(world)
    (one,) = await world.assigned("hz", "sh")
    assert (one.checkpoint.epoch, one.checkpoint.examined_through, one.checkpoint.confirmed_source_offset) == (2, 3, -1)
    assert await translated(world, found, 4) == [Found(0, 1), Absent("history"), Absent("history"), NotYet(5)]


async def test_copies_that_expired_leave_their_positions(world):
    found = await started(world)
    for offset in range(5):
        copy(world, offset)
    await rebuilt(world)
    world.memory["sh"].log(PUT).expire(3)
    await rebuilt(world)
    assert await translated(world, found, 5) == [Absent("pruned")] * 3 + [Found(3, 1), Found(4, 1)]
    world.memory["sh"].log(PUT).expire(5)
    await rebuilt(world)
    (one,) = await world.assigned("hz", "sh")
    assert one.checkpoint.examined_through == 5, "nothing says that they were never copied"


async def lose_everything(world: World, *tasks, lost=("hz",)) -> World:
    """Another coordinator over an empty store; the clusters ``lost`` are gone."""
    for name in lost:
        world.memory[name].cut(instance="coordinator-2")

    def connect_again(cluster):
        connector = connect(cluster)
        connector._instance = "coordinator-2"
        return connector

    store = MemoryStore()
    other = World(store, Coordinator(store, connect_again, "coordinator-2"), world.memory)
    await other.coordinator.apply([one for one in other.clusters if one.name != "bj"], tasks, lost=lost)
    return other


async def test_everything_but_the_destination_is_lost(world):
    """The map is exact again, under the same names, although nothing was left of the source but its copies."""
    task = one_way("t", "hz", "sh", topics=("orders", "pay"), rename={"pay": "pay-hz"})
    found = await started(world, task)
    pay, put = queue("pay", "hz-b", 3), queue("pay-hz", "sh-a", 0)
    world.memory["sh"].add_topic("pay-hz", {"sh-a": 1})
    interleaved(world)
    for offset in (0, 1, 4):
        copy(world, offset, source_queue=pay, put=put)
    await rebuilt(world)
    before = await translated(world, found, 10)
    other = await lose_everything(world, task)
    try:
        await other.rounds(1)
        assert await other.store.assignments() == []
        answer = await rebuilt(other)
        assert (answer["state"], answer["error"]) == ("done", "")
        rows = {row.name: row.cluster_id for row in await other.store.clusters()}
        assert rows == {row.name: row.cluster_id for row in await world.store.clusters() if row.name != "bj"}
        (orders,) = await other.assigned("hz", "sh")
        assert (orders.source_queue, orders.destination_queue, orders.start_offset) == (SOURCE, PUT, 0)
        assert await translated(other, orders.assignment_id, 10) == before
        (paid,) = await other.assigned("hz", "sh", "pay")
        assert (paid.source_queue, paid.destination_queue) == (pay, put)
        assert await translated(other, paid.assignment_id, 5) == [Found(0, 1), Found(1, 1), *[Absent("unknown")] * 2, Found(2, 1)]
        flow = await other.flow("hz", "sh")
        assert flow["state"] == "unreachable"
        again = await rebuilt(other)
        assert [row["copies"] for row in again["queues"]] == [row["copies"] for row in answer["queues"]]
    finally:
        await other.coordinator.close()


async def test_two_lost_sources_are_told_apart_by_a_person_only(world):
    for name, broker in (("hz", "hz-a"), ("bj", "bj-a"), ("sh", "sh-a")):
        world.memory[name].add_topic("orders", {broker: 1})
    from_hz, from_bj = one_way("t", "hz", "sh"), one_way("u", "bj", "sh", topics=("other",))
    await world.apply(from_hz, from_bj)
    copy(world, 0)
    copy(world, 0, source="bj", source_queue=queue("orders", "bj-a", 0))
    ids = {row.name: row.cluster_id for row in await world.store.clusters()}
    for name in ("hz", "bj"):
        world.memory[name].cut(instance="coordinator-2")
    other = await lose_everything(world, from_hz)
    try:
        answer = await rebuilt(other)
        assert answer["state"] == "failed"
        assert ids["hz"] in answer["error"]
        assert ids["bj"] in answer["error"]
        assert (await rebuilt(other, cluster_ids={"hz": "nobody00"}))["state"] == "failed"
        answer = await rebuilt(other, cluster_ids={"hz": ids["hz"]})
        assert (answer["state"], answer["copies_found"]) == ("done", 1)
        assert {row.name: row.cluster_id for row in await other.store.clusters()}["hz"] == ids["hz"]
    finally:
        await other.coordinator.close()


async def test_of_a_two_way_task_the_living_side_is_rebuilt(world):
    task = two_way("t", "hz", "sh")
    await started(world, task)
    interleaved(world)
    other = await lose_everything(world, task)
    try:
        answer = await rebuilt(other)
        assert answer["state"] == "done"
        assert [(flow["source"], bool(flow["error"])) for flow in answer["flows"]] == [("hz", False), ("sh", True)]
        assert answer["copies_found"] == 5
    finally:
        await other.coordinator.close()


async def test_what_is_asked_for_has_to_exist(world):
    await started(world)
    with pytest.raises(Missing):
        await world.coordinator.rebuild("nobody", None, None, None, {})
    with pytest.raises(Missing):
        await world.coordinator.rebuild("t", None, "sh", "hz", {})
    with pytest.raises(InvalidInput):
        await world.coordinator.rebuild("t", None, "hz", None, {})
    with pytest.raises(Missing):
        await world.coordinator.rebuild_progress("t")
    with pytest.raises(InvalidInput, match="nowhere"):
        await world.coordinator.apply(world.clusters, [], lost=["nowhere"])
