"""The database is lost and begun anew: the workers find positions and map in the destination's log, reasons by reading the source again."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from replicator.core.offset_map import Epoch
from replicator.core.task import ReplicationTask, StartPoint
from replicator.store.memory import MemoryStore
from replicator.worker import copier, journal, replaying
from tests.simulation.loop import VirtualLoop, run
from tests.simulation.world import TOPIC, World

ONE_WAY = ReplicationTask("orders", "one-way", ("hangzhou", "shanghai"), (TOPIC,), StartPoint("earliest"))
FILTERED = replace(ONE_WAY, filter="kept = 'yes'")


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(journal, "RUNS_KEPT_MAX", 12)
    monkeypatch.setattr(replaying, "REPLAY_RUNS_PAGE", 3)
    monkeypatch.setattr(copier, "BEYOND_COPIES_MAX", 5)


async def produce_for(world: World, rounds: int) -> None:
    for _ in range(rounds):
        world.produce(world.random.randrange(0, 9))
        await asyncio.sleep(world.random.choice((0.0, 0.1, 1.0)))


async def lose_database(world: World) -> None:
    for process in list(world.processes):
        world.kill(process)
    world.store = MemoryStore(clock=world.loop.time)
    await world.declare()


async def lost(world: World, kills: int) -> None:
    await world.declare()
    world.start_process()
    await produce_for(world, 40)
    await lose_database(world)
    await produce_for(world, 3)
    for _ in range(kills):
        process = world.start_process()
        await asyncio.sleep(world.random.uniform(2.0, 12.0))
        world.kill(process)
    process = world.start_process()
    await produce_for(world, 5)
    await world.until_caught_up()
    process.stop.set()
    await process.task
    await world.check()


@pytest.mark.parametrize("kills", [0, 1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_or_sent_twice_and_the_map_is_exact_again(little_memory, seed: int, kills: int) -> None:
    loop = VirtualLoop()
    run(lost(World(seed, loop), kills), loop)


async def answers(world: World) -> tuple[list, list]:
    (assignment,) = await world.store.assignments()
    runs = [
        (one.epoch, one.source_start + n, one.destination_start + n)
        for one in await world.store.runs(assignment.assignment_id) for n in range(one.length)
    ]
    holes = [
        (one.epoch, one.source_start + n, one.reason)
        for one in await world.store.holes(assignment.assignment_id) for n in range(one.length)
    ]
    return runs, holes


async def filtered(world: World, expired: int) -> None:
    """``expired``: so many of the first copies have expired in the destination when the database is lost."""
    await world.declare()
    process = world.start_process()
    (queue,) = world.clusters["hangzhou"].queues(TOPIC)
    for number in range(60):
        kept = world.random.random() < 0.6
        world.clusters["hangzhou"].produce(queue, b"%d" % number, {"kept": "yes" if kept else "no"})
    await world.until_caught_up()
    process.stop.set()
    await process.task
    before = await answers(world)
    copies = [record.body for record in world.clusters["shanghai"].records(queue)]
    world.clusters["shanghai"].log(queue).expire(expired)
    await lose_database(world)
    process = world.start_process()
    await world.until_caught_up()
    process.stop.set()
    await process.task
    assert [record.body for record in world.clusters["shanghai"].records(queue)] == copies[expired:], "sent again"
    runs, holes = await answers(world)
    assert runs == before[0][expired:]
    gone = [(epoch, source, "pruned") for epoch, source, _ in before[0][:expired]]
    assert holes == sorted([*before[1], *gone])


@pytest.mark.parametrize("expired", [0, 7, 20])
@pytest.mark.parametrize("seed", range(2))
def test_reasons_are_found_again_and_expired_copies_are_not_sent_again(little_memory, seed: int, expired: int) -> None:
    loop = VirtualLoop()
    run(filtered(World(seed, loop, queue_count=1, task=FILTERED), expired), loop)


async def answer_lost(world: World) -> None:
    """The position is that behind the only copy; the next ones follow after records that are left out, and their answer is lost."""
    await world.declare()
    process = world.start_process()
    hangzhou, shanghai = world.clusters["hangzhou"], world.clusters["shanghai"]
    (queue,) = hangzhou.queues(TOPIC)
    hangzhou.produce(queue, b"0", {"kept": "yes"})
    await world.until_caught_up()
    process.stop.set()
    await process.task
    for number in range(1, 8):
        hangzhou.produce(queue, b"%d" % number, {"kept": "no" if number < 4 else "yes"})
    await lose_database(world)
    lost = shanghai.lose_next_answer(queue)
    process = world.start_process()
    await world.until_caught_up()
    process.stop.set()
    await process.task
    assert lost.taken
    assert [record.body for record in shanghai.records(queue)] == [b"0", b"4", b"5", b"6", b"7"]
    runs, holes = await answers(world)
    assert runs == [(1, 0, 0), (1, 4, 1), (1, 5, 2), (1, 6, 3), (1, 7, 4)]
    assert holes == [(1, number, "filtered") for number in (1, 2, 3)]


def test_a_lost_answer_right_after_the_log_was_read_costs_no_reasons() -> None:
    loop = VirtualLoop()
    run(answer_lost(World(1, loop, queue_count=1, task=FILTERED)), loop)


async def second_epoch(world: World) -> None:
    """The source was created anew and a person led the queue on; then the database is lost."""
    await world.declare()
    process = world.start_process()
    hangzhou, shanghai = world.clusters["hangzhou"], world.clusters["shanghai"]
    (queue,) = hangzhou.queues(TOPIC)
    hangzhou.produce_many(queue, [b"first"] * 30)
    await world.until_caught_up()
    process.stop.set()
    await process.task
    hangzhou.recreate_topic(TOPIC)
    hangzhou.produce_many(queue, [b"second"] * 20)
    (assignment,) = await world.store.assignments()
    await world.store.set_epoch(assignment.assignment_id, 2, 5, "created anew")
    process = world.start_process()
    await world.until_caught_up()
    copies = [record.body for record in shanghai.records(queue)]
    assert copies == [b"first"] * 30 + [b"second"] * 15
    await lose_database(world)
    process = world.start_process()
    await world.until_caught_up()
    hangzhou.produce_many(queue, [b"third"])
    await world.until_caught_up()
    process.stop.set()
    await process.task
    assert [record.body for record in shanghai.records(queue)] == [*copies, b"third"]
    (assignment,) = await world.store.assignments()
    assert assignment.checkpoint is not None
    assert (assignment.checkpoint.epoch, assignment.checkpoint.copied_total) == (2, 46)
    assert list(await world.store.epochs(assignment.assignment_id)) == [Epoch(1), Epoch(2, 5, 5)]
    runs, holes = await answers(world)
    assert sorted(runs) == [*((1, n, n) for n in range(30)), *((2, n, 25 + n) for n in range(5, 21))]
    assert holes == []


def test_the_newest_history_is_found_in_the_log(little_memory) -> None:
    loop = VirtualLoop()
    run(second_epoch(World(1, loop, queue_count=1, task=ONE_WAY)), loop)


async def swapped(world: World) -> None:
    """Database and source were lost: what stands there now is not what was copied."""
    await world.declare()
    process = world.start_process()
    hangzhou, shanghai = world.clusters["hangzhou"], world.clusters["shanghai"]
    (queue,) = hangzhou.queues(TOPIC)
    hangzhou.produce_many(queue, [b"first"] * 30)
    await world.until_caught_up()
    process.stop.set()
    await process.task
    await asyncio.sleep(1.0)
    hangzhou.recreate_topic(TOPIC)
    hangzhou.produce_many(queue, [b"other"] * 40)
    await lose_database(world)
    process = world.start_process()
    await asyncio.sleep(30.0)
    (running,) = process.worker._running.values()
    assert running.copier.state == "stopped-history-change"
    (assignment,) = await world.store.assignments()
    assert assignment.checkpoint is not None
    assert assignment.checkpoint.examined_through == 30
    assert len(shanghai.records(queue)) == 30


def test_another_source_queue_is_noticed_without_a_checkpoint(little_memory) -> None:
    loop = VirtualLoop()
    run(swapped(World(1, loop, queue_count=1, task=ONE_WAY)), loop)
