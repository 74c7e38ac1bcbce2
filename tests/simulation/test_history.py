"""Histories that change: a destination that lost its tail is mended, a source that is another one stops its assignment."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from replicator.core.task import ReplicationTask, StartPoint
from replicator.worker import recovery
from replicator.worker.limits import PROOF_AGE_SECONDS_MAX
from tests.simulation.loop import VirtualLoop, run
from tests.simulation.world import TOPIC, Process, World

ONE_WAY = ReplicationTask("orders", "one-way", ("hangzhou", "shanghai"), (TOPIC,), StartPoint("earliest"))
LOST = 7
WATCHED_SECONDS = 120.0


def make_world(loop: VirtualLoop) -> World:
    return World(1, loop, queue_count=1, task=ONE_WAY)


def produce(world: World, count: int) -> None:
    (queue,) = world.clusters["hangzhou"].queues(TOPIC)
    born = world.produced.setdefault(("hangzhou", queue), [])
    for _ in range(count):
        body = b"hangzhou-%d" % len(born)
        world.clusters["hangzhou"].produce(queue, body, {"KEYS": str(len(born))})
        born.append(body)


def state_of(world: World) -> str:
    (process,) = world.processes
    (running,) = process.worker._running.values()
    return running.copier.state


async def until_state(world: World, state: str) -> None:
    deadline = world.loop.time() + WATCHED_SECONDS
    while state_of(world) != state:
        assert world.loop.time() < deadline, f"still {state_of(world)}, never {state}"
        await asyncio.sleep(0.5)


async def lost_tail(world: World, *, later: int) -> None:
    await world.declare()
    process = world.start_process()
    produce(world, 40)
    await world.until_caught_up()
    shanghai = world.clusters["shanghai"]
    (queue,) = shanghai.queues(TOPIC)
    shanghai.truncate(queue, 40 - LOST)
    shanghai.reset_connections()
    produce(world, later)
    await asyncio.sleep(30)
    process.stop.set()
    await process.task
    await world.check()


@pytest.mark.parametrize("later", [5, 0])
def test_copies_that_the_destination_lost_are_copied_again(later) -> None:
    """Also where no further message comes that would have found out."""
    loop = VirtualLoop()
    run(lost_tail(make_world(loop), later=later), loop)


async def created_anew(world: World, *, cut: bool) -> None:
    """``cut``: the reader's connection breaks; else its read goes on as if nothing had happened."""
    await world.declare()
    world.start_process()
    produce(world, 40)
    await world.until_caught_up()
    hangzhou, shanghai = world.clusters["hangzhou"], world.clusters["shanghai"]
    (queue,) = hangzhou.queues(TOPIC)
    await asyncio.sleep(PROOF_AGE_SECONDS_MAX)  # No administrator deletes, creates and fills a topic faster.
    hangzhou.recreate_topic(TOPIC)
    for number in range(60):
        hangzhou.produce(queue, b"other-%d" % number)
    if cut:
        hangzhou.cut_readers()
    await until_state(world, "stopped-history-change")
    assert [record.body for record in shanghai.records(queue)] == world.produced[("hangzhou", queue)]


@pytest.mark.parametrize("cut", [True, False])
def test_a_source_topic_created_anew_stops_the_assignment_and_copies_nothing(cut) -> None:
    loop = VirtualLoop()
    run(created_anew(make_world(loop), cut=cut), loop)


async def truncated(world: World) -> None:
    await world.declare()
    world.start_process()
    produce(world, 40)
    await world.until_caught_up()
    hangzhou = world.clusters["hangzhou"]
    (queue,) = hangzhou.queues(TOPIC)
    hangzhou.truncate(queue, 40 - LOST)
    hangzhou.cut_readers()
    await until_state(world, "stopped-history-change")


def test_a_truncated_source_queue_stops_the_assignment() -> None:
    loop = VirtualLoop()
    run(truncated(make_world(loop)), loop)


async def led_on(world: World, second: int) -> Process:
    """Thirty records and their copies, then a second epoch with so many more; returns the worker that has copied them."""
    await world.declare()
    process = world.start_process()
    hangzhou = world.clusters["hangzhou"]
    (queue,) = hangzhou.queues(TOPIC)
    hangzhou.produce_many(queue, [b"first"] * 30)
    await world.until_caught_up()
    process.stop.set()
    await process.task
    (assignment,) = await world.store.assignments()
    await world.store.set_epoch(assignment.assignment_id, 2, 30, "led on")
    hangzhou.produce_many(queue, [b"second"] * second)
    process = world.start_process()
    await world.until_caught_up()
    return process


async def lost_epoch(world: World) -> None:
    """All copies of the second history are lost, those of the first stand: only the second is copied again."""
    process = await led_on(world, 9)
    hangzhou, shanghai = world.clusters["hangzhou"], world.clusters["shanghai"]
    (queue,) = hangzhou.queues(TOPIC)
    shanghai.truncate(queue, 30)
    shanghai.reset_connections()
    hangzhou.produce_many(queue, [b"third"])
    await asyncio.sleep(30)
    process.stop.set()
    await process.task
    assert [record.body for record in shanghai.records(queue)] == [b"first"] * 30 + [b"second"] * 9 + [b"third"]


def test_a_history_that_was_lost_whole_is_copied_from_its_own_beginning() -> None:
    loop = VirtualLoop()
    run(lost_epoch(make_world(loop)), loop)


async def lost_locals(world: World) -> None:
    """The destination loses what was born there behind our last copy; the worker dies before it has saved what it put in its place."""
    await world.declare()
    process = world.start_process()
    produce(world, 10)
    await world.until_caught_up()
    hangzhou, shanghai = world.clusters["hangzhou"], world.clusters["shanghai"]
    (queue,) = hangzhou.queues(TOPIC)
    shanghai.produce_many(queue, [b"local"] * 20)
    shanghai.reset_connections()  # It looks again, and now knows these too.
    produce(world, 1)
    await world.until_caught_up()
    shanghai.produce_many(queue, [b"local"] * 20)
    shanghai.reset_connections()
    await asyncio.sleep(30)
    assert (await world.store.assignments())[0].checkpoint.scanned_through == 51
    shanghai.truncate(queue, 31 + 4)
    shanghai.reset_connections()
    produce(world, 3)
    deadline = world.loop.time() + WATCHED_SECONDS
    while len(shanghai.records(queue)) < 31 + 4 + 3:
        assert world.loop.time() < deadline, "never copied"
        await asyncio.sleep(0.001)
    world.kill(process)
    process = world.start_process()
    await asyncio.sleep(60)
    process.stop.set()
    await process.task
    copies = [record.body for record in shanghai.records(queue) if record.body != b"local"]
    assert copies == world.produced[("hangzhou", queue)]


def test_copies_in_the_place_of_records_that_were_lost_are_found_again() -> None:
    loop = VirtualLoop()
    run(lost_locals(make_world(loop)), loop)


async def lost_older_epoch(world: World, own_copies: int) -> None:
    """Of copies made before the present epoch the last five are lost, of its own all."""
    process = await led_on(world, own_copies)
    shanghai = world.clusters["shanghai"]
    (queue,) = shanghai.queues(TOPIC)
    shanghai.truncate(queue, 25)
    shanghai.reset_connections()
    await asyncio.sleep(30)
    process.stop.set()
    await process.task
    assert [record.body for record in shanghai.records(queue)] == [b"first"] * 25 + [b"second"] * own_copies
    told = [event.message for event in await world.store.events("orders") if event.kind == "destination-lost-copies"]
    assert [message for message in told if "copies of source offsets from 25 on, made before epoch 2, are gone" in message]


@pytest.mark.parametrize("own_copies", [9, 0])
def test_copies_of_an_older_epoch_that_are_lost_are_told(own_copies) -> None:
    loop = VirtualLoop()
    run(lost_older_epoch(make_world(loop), own_copies), loop)


def test_they_are_told_however_many_stretches_the_present_epoch_has_copied(monkeypatch) -> None:
    """Local records between its copies: each stands alone in the map, and they fill more than one page of it."""
    monkeypatch.setattr(recovery, "VERIFY_RUNS_PAGE", 2)
    loop = VirtualLoop()
    run(lost_scattered(make_world(loop)), loop)


async def lost_scattered(world: World) -> None:
    process = await led_on(world, 0)
    hangzhou, shanghai = world.clusters["hangzhou"], world.clusters["shanghai"]
    (queue,) = hangzhou.queues(TOPIC)
    for _ in range(7):
        hangzhou.produce_many(queue, [b"second"])
        await world.until_caught_up()
        shanghai.produce_many(queue, [b"local"])
    shanghai.truncate(queue, 25)
    shanghai.reset_connections()
    await asyncio.sleep(30)
    process.stop.set()
    await process.task
    told = [event.message for event in await world.store.events("orders") if event.kind == "destination-lost-copies"]
    assert [message for message in told if "copies of source offsets from 25 on, made before epoch 2, are gone" in message]


async def recovered_without_store(world: World) -> None:
    """In a later epoch, too, a worker needs no store to go on over a new connection."""
    process = await led_on(world, 9)
    hangzhou, shanghai = world.clusters["hangzhou"], world.clusters["shanghai"]
    (queue,) = hangzhou.queues(TOPIC)
    world.store.available = False
    shanghai.reset_connections()
    hangzhou.produce_many(queue, [b"third"] * 4)
    await asyncio.sleep(20)
    assert [record.body for record in shanghai.records(queue)][30:] == [b"second"] * 9 + [b"third"] * 4
    world.store.available = True
    await world.until_caught_up()
    process.stop.set()
    await process.task


def test_a_new_connection_in_a_later_epoch_needs_no_store() -> None:
    loop = VirtualLoop()
    run(recovered_without_store(make_world(loop)), loop)


async def lost_while_nothing_passes(world: World) -> None:
    """What comes is left out, all of it: the destination is looked at all the same."""
    await world.declare()
    process = world.start_process()
    hangzhou, shanghai = world.clusters["hangzhou"], world.clusters["shanghai"]
    (queue,) = hangzhou.queues(TOPIC)
    wanted = [b"wanted-%d" % number for number in range(20)]
    for body in wanted:
        hangzhou.produce(queue, body, {"level": "1"})
    await world.until_caught_up()
    shanghai.truncate(queue, 20 - LOST)
    shanghai.reset_connections()
    for _ in range(300):
        hangzhou.produce(queue, b"unwanted", {"level": "2"})
        await asyncio.sleep(0.1)
    assert [record.body for record in shanghai.records(queue)] == wanted
    process.stop.set()
    await process.task


def test_lost_copies_are_found_though_nothing_that_comes_passes_the_filter() -> None:
    loop = VirtualLoop()
    task = replace(ONE_WAY, filter="level = '1'")
    run(lost_while_nothing_passes(World(1, loop, queue_count=1, task=task)), loop)
