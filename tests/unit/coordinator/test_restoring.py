"""What a cluster has lost is found by what its copies say, and only what is shown to be gone goes back."""

import pytest

from replicator.coordinator.atlas import Atlas
from replicator.coordinator.failover.assessing import Move, find_losses
from replicator.coordinator.failover.restoring import Lost, find_lost, relaying, restore, unsettled
from replicator.core.failover import Options
from replicator.core.offset_map import Epoch
from replicator.core.record import MessageQueue, RecordIdentity
from replicator.core.stamp import FIRST_HOP_SUFFIX, Place, stamp_prefix
from replicator.store.port import Assignment, Checkpoint, Conflict, Hole, Progress, Run
from tests.unit.coordinator.conftest import one_way, queue, two_way
from tests.unit.coordinator.test_divergence import copied_ten

KEPT = 6
THERE = queue("orders", "sh-a", 0)


async def lost_four(world, *, from_offset=None, kept_copies=0):
    """Of ten messages copied to offsets 3 to 12, hz has lost the last four, and has two new ones in their place."""
    assignment_id, source = await copied_ten(world)
    world.memory["hz"].truncate(source, KEPT)
    world.memory["hz"].produce_many(source, [b"new"] * 2)
    way = {"accept_loss": True} if from_offset is None else {"from_offset": from_offset}
    await world.coordinator.resume("t", **way)
    world.memory["sh"].expire(THERE, kept_copies)
    return assignment_id


async def found(world):
    return await find_lost(world.store, world.coordinator._connections, Atlas(world.store), "t", "hz", "sh")


async def with_way_back(world, examined):
    """The reverse flow has read ``examined`` records: none of them was to go back."""
    await world.apply(one_way("t-back", "sh", "hz"))
    await world.rounds()
    (row,) = await world.assigned("sh", "hz")
    (leased,) = [one for one in await world.store.acquire("w", 60.0, 9) if one.assignment_id == row.assignment_id]
    holes = [Hole(1, row.start_offset, examined - row.start_offset, "loop")]
    saved = Progress(row.assignment_id, leased.token, Checkpoint(examined_through=examined), holes=holes)
    assert await world.store.save_progress([saved]) == set()
    return leased


@pytest.mark.parametrize(("more", "ranges"), [
    ({}, ((9, 13),)),
    ({"from_offset": 4}, ((9, 13),)),  # 4 and 5 are copied again, but hz has them.
    ({"kept_copies": 11}, ((11, 13),)),
    ({"kept_copies": 13}, None),
])  # fmt: skip
async def test_what_is_lost_is_what_the_source_does_not_show_any_more(world, more, ranges):
    await lost_four(world, **more)
    lost = await found(world)
    assert [one.ranges for one in lost] == ([ranges] if ranges else [])
    assert [one.way_back for one in lost] == [None] * len(lost)


async def test_nothing_was_lost_where_the_source_is_what_it_was(world):
    await copied_ten(world)
    assert await found(world) == []


async def test_what_goes_back_is_asked_for_once(world):
    await lost_four(world)
    leased = await with_way_back(world, 12)
    (one,) = await found(world)
    assert not one.is_examined, "the last of them lies behind what the way back has read"
    await world.store.save_progress([Progress(leased.assignment_id, leased.token, Checkpoint(examined_through=13))])
    await world.store.release(leased.assignment_id, leased.token, clean=True)
    (one,) = await found(world)
    assert one.is_examined
    await restore(world.store, one, "failback 1")
    assert list(await world.store.epochs(leased.assignment_id)) == [Epoch(1), Epoch(2, 13, 9)]
    assert await found(world) == [], "it is on its way"
    (leased,) = [row for row in await world.store.acquire("w", 60.0, 9) if row.assignment_id == leased.assignment_id]
    at = len(world.memory["hz"].records(queue("orders", "hz-a", 0)))
    saved = Progress(leased.assignment_id, leased.token, Checkpoint(epoch=2, examined_through=13), runs=[Run(2, 9, at, 3)])
    await world.store.save_progress([saved])
    (one,) = await found(world)
    assert one.ranges == ((12, 13),), "one of them has not come back"
    await world.store.release(leased.assignment_id, leased.token, clean=True)
    await world.coordinator.delete("tasks", "t-back")
    (one,) = await found(world)
    assert (one.ranges, one.way_back) == (((12, 13),), None), "what is left of a deleted task tells it still"


async def test_queues_that_were_folded_into_one_go_back_together(world):
    """Two of hz share one of sh; each has lost the last two of four messages."""
    hz, sh = world.memory["hz"], world.memory["sh"]
    hz.add_topic("orders", {"hz-a": 2})
    sh.add_topic("orders", {"sh-a": 1})
    world.fill("hz", "orders", 4)
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    ids = {row.name: row.cluster_id for row in await world.store.clusters()}
    held = sorted(await world.store.acquire("w", 60.0, 9), key=lambda one: one.source_queue)
    for number, leased in enumerate(held):
        assert leased.destination_queue == THERE
        prefix = stamp_prefix(leased.flow_id, Place(ids["sh"], THERE), Place(ids["hz"], leased.source_queue), 1)
        for record in hz.records(leased.source_queue):
            stamp = f"{record.queue_offset:x};{record.store_timestamp_ms:x}".encode() + FIRST_HOP_SUFFIX
            sh.produce_many(THERE, [record.body], prefix + stamp)
        identity = RecordIdentity(3, record.store_timestamp_ms, record.commit_log_offset, record.body_crc)
        runs, checkpoint = [Run(1, 0, 4 * number, 4)], Checkpoint(examined_through=4, identity=identity)
        saved = Progress(leased.assignment_id, leased.token, checkpoint, runs=runs, state="stopped-history-change")
        await world.store.save_progress([saved])
        await world.store.release(leased.assignment_id, leased.token, clean=True)
        hz.truncate(leased.source_queue, 2)
    await world.coordinator.resume("t", accept_loss=True)
    (one,) = await found(world)
    assert one.ranges == ((2, 4), (6, 8))


async def test_a_worker_that_does_not_let_go_is_not_overtaken(world, monkeypatch):
    monkeypatch.setattr("replicator.coordinator.stops.LET_GO_SECONDS_MAX", 0.0)
    await lost_four(world)
    await with_way_back(world, 13)
    (one,) = await found(world)
    with pytest.raises(Conflict, match="leased to w"):
        await restore(world.store, one, "failback 1")
    assert not (await world.assigned("sh", "hz"))[0].paused


def some(**changes):
    source, put = MessageQueue("orders", "hz-a", 0), MessageQueue("orders", "sh-a", 0)
    return Assignment(1, 1, "f", "t", "hz", "sh", source, put, 0, **changes)


@pytest.mark.parametrize(("wanted", "lost", "state", "relays", "names"), [
    (False, 0, "running", (), []),
    (True, 0, "running", (), []),
    (False, 4, "running", (), [("lost-messages", "warns")]),
    (True, 4, "running", (), [("restored", "warns")]),
    (True, 4, "running", ("on",), [("restored", "warns"), ("restored-is-relayed", "blocks")]),
    (False, 4, "running", ("on",), [("lost-messages", "warns")]),
    (False, 0, "unreachable", (), [("loss-not-known", "warns")]),
    (True, 0, "stopped-history-change", (), [("loss-not-known", "blocks")]),
])  # fmt: skip
def test_what_a_plan_says_of_it(wanted, lost, state, relays, names):
    move = Move("t", "failback", "hz", "sh", Options(restore=wanted))
    losses = [Lost(some(), ((0, lost),), None)] if lost else []
    told = find_losses(move, losses, unsettled([some(state=state)], "hz", "sh"), relays)
    assert [(one.name, one.severity) for one in told] == names


def test_tasks_that_would_carry_it_on():
    tasks = [
        one_way("there", "hz", "sh", relay=True), one_way("plain", "hz", "bj"), one_way("on", "hz", "bj", relay=True),
        two_way("mesh", "hz", "gz", relay=True), one_way("other", "hz", "bj", relay=True, topics=("pay",)),
        one_way("to", "bj", "hz", relay=True),
    ]  # fmt: skip
    assert relaying(tasks, "hz", {"orders"}) == ["mesh", "on", "there"]
