"""A new epoch's divergence offset: found by comparing what the source holds now with the copies of what it held before."""

from dataclasses import replace

import pytest

from replicator.coordinator import divergence
from replicator.coordinator.atlas import Atlas
from replicator.core.offset_map import Absent, Epoch, Found, NotYet
from replicator.core.record import RecordIdentity
from replicator.core.stamp import FIRST_HOP_SUFFIX, Place, stamp_prefix
from replicator.store.port import Checkpoint, Hole, Progress, Run
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
        (6, 2, None, 6, 0, None),
        (0, 5, None, 0, 0, None),
        (6, 9, None, 6, 0, None),
        (10, 3, None, 10, 0, None),
        (6, 2, 4, 4, 0, None),
        (6, 3, 8, 6, 2, (6, 7)),
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


async def held_hole(world, assignment_id, reason):
    """The queue's worker once more, which notes why it left an eleventh record out."""
    (leased,) = await world.store.acquire("w", 5.0, 1)
    checkpoint = Checkpoint(examined_through=11, identity=leased.checkpoint.identity)
    hole = Hole(1, 10, 1, reason)
    await world.store.save_progress([Progress(assignment_id, leased.token, checkpoint, holes=[hole], state="stopped-history-change")])
    await world.store.release(assignment_id, leased.token, clean=True)


@pytest.mark.parametrize(("reason", "go_on_at"), [("filtered", 6), ("loop", 6), ("refused", 11), ("unknown", 11)])
async def test_what_was_left_out_is_read_again_where_it_cannot_have_been_copied(world, reason, go_on_at):
    assignment_id, source = await copied_ten(world)
    await held_hole(world, assignment_id, reason)
    world.memory["hz"].truncate(source, 6)
    world.memory["hz"].produce_many(source, [b"new"] * 9)
    (shown,) = (await world.coordinator.resume("t", accept_loss=True))["queues"]
    assert shown["go_on_at"] == go_on_at


@pytest.mark.parametrize(("expired", "go_on_at"), [(8, 6), (9, 6), (10, 7), (11, 8)])
async def test_copies_that_have_expired_may_be_of_what_stands_there(world, expired, go_on_at):
    """Copies stand from 3 on, the one of the first lost message at 9; six of the eight records are the first ones still."""
    _, source = await copied_ten(world)
    world.memory["hz"].truncate(source, 6)
    world.memory["hz"].produce_many(source, [b"new"] * 2)
    world.memory["sh"].expire(queue("orders", "sh-a", 0), expired)
    (shown,) = (await world.coordinator.resume("t", accept_loss=True))["queues"]
    assert shown["go_on_at"] == go_on_at


async def test_a_history_that_came_back_is_not_copied_twice(world):
    """A backup of the source, from before the history that was stopped for: its messages were copied."""
    assignment_id, source = await copied_ten(world)
    world.memory["hz"].truncate(source, 6)
    world.memory["hz"].produce_many(source, [b"new"] * 3)
    await world.coordinator.resume("t", accept_loss=True)
    (leased,) = await world.store.acquire("w", 5.0, 1)
    last = world.memory["hz"].records(source)[8]
    identity = RecordIdentity(8, last.store_timestamp_ms, last.commit_log_offset, last.body_crc)
    runs = [Run(2, 6, 13, 3)]
    checkpoint = Checkpoint(epoch=2, examined_through=9, identity=identity)
    await world.store.save_progress([Progress(assignment_id, leased.token, checkpoint, runs=runs, state="stopped-history-change")])
    await world.store.release(assignment_id, leased.token, clean=True)
    world.memory["sh"].produce_many(queue("orders", "sh-a", 0), [b"new"] * 3)
    world.memory["hz"].truncate(source, 6)
    world.memory["hz"].produce_many(source, [b"old"] * 3)
    (shown,) = (await world.coordinator.resume("t", accept_loss=True))["queues"]
    assert shown["go_on_at"] == 9


async def test_an_original_that_expires_while_it_is_looked_for_proves_nothing(world, monkeypatch):
    _, source = await copied_ten(world)
    world.memory["hz"].truncate(source, 6)
    world.memory["hz"].produce_many(source, [b"new"] * 2)
    read_record = divergence.read_record

    async def expiring(link, where, offset):
        world.memory["hz"].expire(source, 8)
        return await read_record(link, where, offset)

    monkeypatch.setattr(divergence, "read_record", expiring)
    (shown,) = (await world.coordinator.resume("t", accept_loss=True))["queues"]
    assert shown["go_on_at"] == 8


@pytest.mark.parametrize(("kept", "go_on_at"), [(10, 10), (6, 6)])
async def test_who_was_sending_back_goes_on_where_it_had_been_before(world, kept, go_on_at):
    """It reads again what was decided upon once: copied from there on, that would be copied twice."""
    assignment_id, source = await copied_ten(world)
    await world.store.begin_restore(assignment_id, [(2, 3), (5, 6)], "failback 1")
    (leased,) = await world.store.acquire("w", 5.0, 1)
    checkpoint = replace(leased.checkpoint, examined_through=4)
    await world.store.save_progress([Progress(assignment_id, leased.token, checkpoint, state="stopped-history-change")])
    await world.store.release(assignment_id, leased.token, clean=True)
    world.memory["hz"].truncate(source, kept)
    world.memory["hz"].produce_many(source, [b"new"] * 3)
    (shown,) = (await world.coordinator.resume("t", accept_loss=True))["queues"]
    assert (shown["position"], shown["go_on_at"], shown["given_up"]) == (10, go_on_at, 0)
    assert list(await world.store.epochs(assignment_id))[1:] == [Epoch(2, 10, 2), Epoch(3, go_on_at, go_on_at)]
