"""A new epoch's divergence offset: found by comparing what the source holds now with the copies of what it held before."""

import pytest

from replicator.coordinator.atlas import Atlas
from replicator.core.offset_map import Absent, Epoch, Found, NotYet
from replicator.core.record import RecordIdentity
from replicator.core.stamp import FIRST_HOP_SUFFIX, Place, stamp_prefix
from replicator.store.port import Checkpoint, Progress, Run
from tests.unit.coordinator.conftest import queue
from tests.unit.coordinator.test_operations import started


async def copied_ten(world):
    """Ten records of hz copied to sh as a worker would have, from destination offset 3 on; the queue then stopped for its history."""
    await started(world)
    source, destination = queue("orders", "hz-a", 0), queue("orders", "sh-a", 0)
    (leased,) = await world.store.acquire("w", 5.0, 1)
    rows = {row.name: row.cluster_id for row in await world.store.clusters()}
    put = Place(rows["sh"], destination)
    prefix = stamp_prefix(leased.flow_id, put, Place(rows["hz"], source), 1)
    world.memory["sh"].produce_many(destination, [b"local"] * 3)
    for record in world.memory["hz"].records(source):
        properties = prefix + f"{record.queue_offset:x};{record.store_timestamp_ms:x}".encode() + FIRST_HOP_SUFFIX
        world.memory["sh"].produce_many(destination, [record.body], properties)
    last = world.memory["hz"].records(source)[9]
    identity = RecordIdentity(9, last.store_timestamp_ms, last.commit_log_offset, last.body_crc)
    checkpoint = Checkpoint(examined_through=10, identity=identity)
    saved = Progress(leased.assignment_id, leased.token, checkpoint, runs=[Run(1, 0, 3, 10)], state="stopped-history-change")
    await world.store.save_progress([saved])
    await world.store.release(leased.assignment_id, leased.token, clean=True)
    return leased.assignment_id, source


@pytest.mark.parametrize(
    ("kept", "written", "from_offset", "diverges", "given_up", "lost"),
    [
        (6, 0, None, 6, 0, None),
        (6, 2, None, 6, 2, (6, 7)),
        (0, 5, None, 0, 5, (0, 4)),
        (6, 9, None, 6, 4, (6, 9)),
        (10, 3, None, 10, 0, None),
        (6, 2, 4, 4, 0, None),
    ],
)
async def test_a_new_epoch_begins_to_differ_where_the_source_does(world, kept, written, from_offset, diverges, given_up, lost):
    """``kept`` of ten records survive, then ``written`` new ones come: where both histories agree the map answers on."""
    assignment_id, source = await copied_ten(world)
    world.memory["hz"].truncate(source, kept)
    world.memory["hz"].produce_many(source, [b"new"] * written)
    way = {"accept_loss": True} if from_offset is None else {"from_offset": from_offset}
    answer = await world.coordinator.resume("t", **way)
    (shown,) = answer["queues"]
    assert (shown["given_up"], shown["given_up_from"], shown["given_up_to"]) == (given_up, *(lost or (None, None)))
    assert list(await world.store.epochs(assignment_id))[1:] == [Epoch(2, diverges, shown["go_on_at"])]
    copies = await Atlas(world.store).offset_map(assignment_id)
    translated = [copies.to_destination(offset) for offset in range(10)]
    assert translated[:diverges] == [Found(3 + offset, 1) for offset in range(diverges)]
    assert not any(isinstance(one, Found) for one in translated[diverges:])
    assert sum(ghost.length for ghost in copies.ghosts()) == 10 - diverges


async def test_where_nothing_can_be_compared_everything_is_taken_for_new(world):
    assignment_id, source = await copied_ten(world)
    world.memory["hz"].truncate(source, 6)
    world.memory["sh"].expire(queue("orders", "sh-a", 0), 13)
    await world.coordinator.resume("t", accept_loss=True)
    assert list(await world.store.epochs(assignment_id))[1:] == [Epoch(2, 0, 6)]


async def test_what_expired_unread_leaves_the_copies_before_it_alone(world):
    assignment_id, source = await copied_ten(world)
    world.memory["hz"].produce_many(source, [b"more"] * 5)
    world.memory["hz"].expire(source, 12)
    await world.coordinator.resume("t", accept_loss=True)
    copies = await Atlas(world.store).offset_map(assignment_id)
    assert list(copies.epochs)[1:] == [Epoch(2, 12, 12)]
    assert [copies.to_destination(offset) for offset in (9, 10, 12)] == [Found(12, 1), Absent("history"), NotYet(13)]
