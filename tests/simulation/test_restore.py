"""A cluster that lost its newest messages gets them back from the other side, once each, through kills at any moment."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from replicator.coordinator.atlas import Atlas
from replicator.core.offset_map import Found
from replicator.store.memory import MemoryStore
from replicator.store.port import Assignment
from tests.simulation.loop import VirtualLoop, run
from tests.simulation.world import TOPIC, World

SEEDS = 40
LOST_MAX = 25
KILLS = 4


def ranges_of(offsets: list[int]) -> list[tuple[int, int]]:
    return [(offset, offset + 1) for offset in sorted(offsets)]


async def lead_on(world: World, forward: Assignment, kept: int) -> None:
    """As ``resume --accept-loss`` does, once the queue is let go of."""
    at = min(kept, forward.examined_through)
    await world.store.set_epoch(forward.assignment_id, 2, at, "loss accepted", divergence_offset=at)


async def send_back(world: World, back: Assignment, forward: Assignment) -> list[int]:
    ghosts = (await Atlas(world.store).offset_map(forward.assignment_id)).ghosts()
    lost = [ghost.destination + i for ghost in ghosts if ghost.destination == ghost.lowest for i in range(ghost.length)]
    if lost:
        await world.store.begin_restore(back.assignment_id, ranges_of(lost), "test")
    return lost


async def stop_all(world: World) -> None:
    for process in list(world.processes):
        process.stop.set()
        await process.task
        world.processes.remove(process)


async def lost_and_sent_back(world: World, *, kills: int = KILLS, database_is_lost: bool = False) -> None:
    await world.declare()
    world.start_process()
    for _ in range(12):
        world.produce(world.random.randrange(1, 8))
        await asyncio.sleep(world.random.choice((0.0, 0.1, 1.0)))
    await world.until_caught_up()
    hangzhou, shanghai = world.clusters["hangzhou"], world.clusters["shanghai"]
    (queue,) = hangzhou.queues(TOPIC)
    kept = len(hangzhou.records(queue)) - world.random.randrange(1, LOST_MAX)
    wanted = [record.body for record in hangzhou.records(queue)[kept:] if record.body.startswith(b"hangzhou-")]
    hangzhou.truncate(queue, kept)
    hangzhou.reset_connections()
    hangzhou.cut_readers()
    if world.random.random() < 0.5:
        world.produce(10)
    await asyncio.sleep(60)  # The copies it lost come again, by themselves; the queue read from it stops.
    (process,) = world.processes
    states = {one.copier.assignment.source: one.copier.state for one in process.worker._running.values()}
    assert states == {"hangzhou": "stopped-history-change", "shanghai": "running"}
    await stop_all(world)
    assignments = {(one.source, one.destination): one for one in await world.store.assignments()}
    forward, back = assignments["hangzhou", "shanghai"], assignments["shanghai", "hangzhou"]
    await lead_on(world, forward, kept)
    if database_is_lost or world.random.random() < 0.5:
        # The new history has copies of its own by now.
        world.start_process()
        world.produce(12)
        await world.until_caught_up()
        await stop_all(world)
    lost = await send_back(world, back, forward)
    assert sorted(shanghai.records(queue)[offset].body for offset in lost) == sorted(wanted)
    for _ in range(kills):
        process = world.start_process()
        world.produce(3)
        await asyncio.sleep(world.random.choice((0.05, 0.5, 3.0, 12.0)))
        world.kill(process)
    if database_is_lost:
        world.store = MemoryStore(clock=world.loop.time)
        await world.declare()
    world.start_process()
    await world.until_caught_up()
    await stop_all(world)
    bodies = {name: [record.body for record in cluster.records(queue)] for name, cluster in world.clusters.items()}
    born = Counter(body for one in world.produced.values() for body in one)
    for name, found in bodies.items():
        twice, missing = Counter(found) - born, born - Counter(found)
        assert not twice, f"seed {world.seed}: {name}: {twice} twice"
        # What nobody remembers to send back can be asked for again; its copies are where they were.
        assert not missing or (database_is_lost and name == "hangzhou" and missing <= Counter(wanted)), f"seed {world.seed}: {missing}"
    assignments = {(one.source, one.destination): one for one in await world.store.assignments()}
    back = assignments["shanghai", "hangzhou"]
    sent = await Atlas(world.store).offset_map(back.assignment_id)
    for offset in lost:
        answer = sent.to_destination(offset)
        assert isinstance(answer, Found) == (bodies["shanghai"][offset] in bodies["hangzhou"])
    there = [offset for offset in lost if bodies["shanghai"][offset] in bodies["hangzhou"]]
    assert [offset for start, end in sent.restored for offset in range(start, end)] == sorted(there)
    for offset, body in enumerate(bodies["shanghai"]):
        answer = sent.to_destination(offset)
        if isinstance(answer, Found):
            assert bodies["hangzhou"][answer.offset] == body
        else:
            assert body.startswith(b"hangzhou-"), (offset, answer)


@pytest.mark.parametrize("kills", [0, 1, 2])
@pytest.mark.parametrize("seed", range(SEEDS // 2))
def test_a_database_lost_meanwhile_sends_nothing_twice(seed, kills) -> None:
    """Only the logs tell what went back: no position is taken from it, and the map lists it."""
    loop = VirtualLoop()
    run(lost_and_sent_back(World(seed, loop, queue_count=1), kills=kills, database_is_lost=True), loop)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_a_cluster_lost_comes_back_once_whatever_dies_meanwhile(seed) -> None:
    loop = VirtualLoop()
    run(lost_and_sent_back(World(seed, loop, queue_count=1)), loop)
