"""Which maps a queue hangs on, and that what is kept of them is as new as the store."""

import pytest

from replicator.coordinator import atlas as atlas_module
from replicator.coordinator.atlas import Atlas
from replicator.core.errors import Missing
from replicator.core.offset_map import Absent, Found, NotYet
from replicator.core.progress import NoStart, Start
from replicator.core.record import MessageQueue, OffsetRange
from replicator.store.memory import MemoryStore
from replicator.store.port import Checkpoint, ClusterRow, Hole, NewAssignment, Progress, Run

CLUSTERS = ("a", "b", "c")
LEASE_SECONDS = 60.0


def queue(cluster, number=0, topic="orders"):
    return MessageQueue(topic, f"broker-{cluster}", number)


def spec(name, *clusters, mode="one-way", **fields):
    return {
        "mode": mode, "topics": {"include": ["orders"]}, "start": "earliest", **fields,
        **({"clusters": list(clusters)} if mode == "two-way" else {"source": clusters[0], "destinations": list(clusters[1:])}),
    }


class Scene:
    """Flows of one queue each (``count``: of the source), with what workers would have saved."""

    def __init__(self, store):
        self.store = store
        self.loaded = 0
        self._held = {}

    async def open(self):
        for name in CLUSTERS:
            await self.store.put_cluster(ClusterRow(name, "memory", "", {"cluster": name}, f"id-{name}"))

    async def flow(self, source, destination, task=None, *, queues=1, folded=1, topic="orders", **fields):
        name = task or f"{source}-{destination}"
        await self.store.put_task(name, spec(name, source, destination, **fields), [(source, destination)])
        flow = next(f for f in await self.store.flows() if f.task == name)
        pair = await self.store.claim_pair(flow.flow_id, topic, "orders")
        rows = [NewAssignment(queue(source, n, topic), queue(destination, n % folded), 0) for n in range(queues)]
        await self.store.add_assignments(pair.pair_id, rows)
        for one in await self.store.acquire("worker", LEASE_SECONDS, 100):
            self._held[one.assignment_id] = one
        return [one.assignment_id for one in self._held.values() if one.flow_id == flow.flow_id]

    async def copied(self, assignment_id, runs=(), holes=(), *, examined=None, scanned=0, **fields):
        """``runs``: (source, destination, length); ``holes``: (source, length, reason)."""
        one = self._held[assignment_id]
        ends = [start + length for start, _, length in runs] + [start + length for start, length, _ in holes]
        checkpoint = Checkpoint(examined_through=max(ends, default=0) if examined is None else examined, scanned_through=scanned)
        saved = Progress(
            assignment_id, one.token, checkpoint, runs=[Run(1, *run) for run in runs], holes=[Hole(1, *hole) for hole in holes], **fields
        )
        assert await self.store.save_progress([saved]) == set()


class CountingStore(MemoryStore):
    loads = 0
    whole_loads = 0

    async def map_rows(self, assignment_id, known=None):
        rows = await super().map_rows(assignment_id, known)
        self.loads += 1
        self.whole_loads += rows is not None and rows.is_whole
        return rows


@pytest.fixture
async def scene():
    made = Scene(CountingStore())
    await made.open()
    return made


@pytest.mark.parametrize("rows_at_once_max", [0, 1000])
async def test_a_map_is_as_new_as_the_store_and_loaded_only_when_it_changed(scene, monkeypatch, rows_at_once_max):
    monkeypatch.setattr(atlas_module, "ROWS_AT_ONCE_MAX", rows_at_once_max)
    (one,) = await scene.flow("a", "b")
    atlas = Atlas(scene.store)
    assert (await atlas.offset_map(one)).to_destination(0) == NotYet(0)
    await scene.copied(one, [(0, 100, 10)], [(10, 5, "filtered")])
    first = await atlas.offset_map(one)
    assert (first.to_destination(9), first.to_destination(10)) == (Found(109, 1), Absent("filtered"))
    assert await atlas.offset_map(one) is first
    assert scene.store.loads == 2
    await scene.copied(one, [(15, 110, 3)])
    await scene.copied(one, [(18, 113, 2)], examined=20)
    grown = await atlas.offset_map(one)
    assert [grown.to_destination(offset) for offset in (0, 12, 19, 20)] == [Found(100, 1), Absent("filtered"), Found(114, 1), NotYet(115)]
    assert (scene.store.loads, scene.store.whole_loads) == (3, 1), "only what is new was read"
    await scene.copied(one, scanned=500, examined=20)
    scanned = await atlas.offset_map(one)
    assert (scanned.to_destination(20), scanned.to_destination(9), grown.to_destination(20)) == (NotYet(500), Found(109, 1), NotYet(115))
    await scene.copied(one, [(12, 500, 8)], drop_runs_from=12)
    dropped = await atlas.offset_map(one)
    assert [dropped.to_destination(offset) for offset in (9, 11, 12)] == [Found(109, 1), Absent("filtered"), Found(500, 1)]
    assert scene.store.whole_loads == 2


async def test_memory_is_bounded_in_maps_and_in_rows(scene):
    ids = await scene.flow("a", "b", queues=4, folded=4)
    for one in ids:
        await scene.copied(one, [(0, 0, 1), (2, 2, 1), (4, 4, 1)], [(1, 1, "loop"), (3, 1, "loop")])
    for atlas, kept in ((Atlas(scene.store, maps_max=2), 2), (Atlas(scene.store, rows_max=16), 3)):
        scene.store.loads = 0
        for one in [*ids, *reversed(ids)]:
            assert (await atlas.offset_map(one)).to_destination(4) == Found(4, 1)
        assert scene.store.loads == len(ids) + len(ids) - kept
        await atlas.written_queue("a-b", "b", queue("b"), "a")


async def test_what_is_gone_is_missing(scene):
    (one,) = await scene.flow("a", "b")
    atlas = Atlas(scene.store)
    await atlas.offset_map(one)
    await scene.store.delete_task("a-b")
    assert (await atlas.offset_map(one)).to_destination(0) == NotYet(0), "a tombstone's map is still there"
    await scene.store.purge_task("a-b")
    with pytest.raises(Missing):
        await atlas.offset_map(one)
    with pytest.raises(Missing, match="cluster x"):
        await atlas.written_queue("a-b", "b", queue("b"), "x")


async def start(atlas, task, offsets, *, cluster="b", owning="a", end=1000, **options):
    written = await atlas.written_queue(task, cluster, queue(cluster), owning, **options)
    return written.start(OffsetRange(0, end), offsets)


async def test_every_task_that_feeds_a_queue_counts(scene):
    direct = await scene.flow("a", "b", queues=2)
    (third,) = await scene.flow("c", "b")
    atlas = Atlas(scene.store)
    await scene.copied(direct[0], [(0, 0, 10)])
    await scene.copied(direct[1], [(0, 20, 10)])
    await scene.copied(third, [(0, 10, 10)])
    assert [a.assignment_id for a in await atlas.assignments_into("b", queue("b"))] == [*direct, third]
    assert [a.assignment_id for a in await atlas.assignments_from("a", queue("a", 1))] == [direct[1]]
    offsets = {queue("a", 0): 10, queue("a", 1): 4}
    refused = await start(atlas, "a-b", offsets, end=30)
    assert isinstance(refused, NoStart)
    assert "c orders broker-c/0" in refused.reason
    (via,) = await scene.flow("c", "a")
    await scene.copied(via, [(0, 500, 7)])
    found = await start(atlas, "a-b", {**offsets, queue("a", 0): 510}, end=30)
    assert (found.offset, found.held_by) == (17, "a record that no map lists yet"), "c 7 has no place in a yet"
    await scene.copied(via, [(7, 507, 3)], examined=10)
    await scene.copied(direct[0], [], [(10, 500, "filtered")])
    found = await start(atlas, "a-b", {**offsets, queue("a", 0): 510}, end=30)
    assert (found.offset, found.seen_again, found.exact) == (24, 0, True)


async def test_a_deleted_tasks_copies_are_still_known(scene):
    (one,) = await scene.flow("a", "b")
    await scene.copied(one, [(0, 0, 10)])
    await scene.store.delete_task("a-b")
    atlas = Atlas(scene.store)
    assert [(a.task, a.source) for a in await atlas.assignments_into("b", queue("b"))] == [("", "a")]
    found = await start(atlas, "a-b", {queue("a"): 6}, end=10)
    assert found == Start(6, "offset 6 of orders broker-a/0 is not processed", 0, 0, 0)


async def test_records_born_here_are_judged_by_the_way_back(scene):
    (there,) = await scene.flow("a", "b")
    (back,) = await scene.flow("b", "a")
    await scene.copied(there, [(0, 0, 5), (8, 8, 2)], [(5, 3, "loop")])
    await scene.copied(back, [(5, 5, 3)], [(0, 5, "loop")])
    atlas = Atlas(scene.store)
    assert (await start(atlas, "a-b", {queue("a"): 7}, end=10)).offset == 7
    kept = await atlas.written_queue("a-b", "b", queue("b"), "a")
    assert await atlas.written_queue("a-b", "b", queue("b"), "a") is kept
    await scene.copied(back, [], [(8, 2, "loop")], examined=10)
    assert await atlas.written_queue("a-b", "b", queue("b"), "a") is not kept
    found = await start(atlas, "a-b", {queue("a"): 10}, end=10)
    assert (found.offset, found.held_by) == (10, "the end of the queue")


async def test_local_records_hold_unless_the_group_consumes_copies_only(scene):
    (there,) = await scene.flow("a", "b")
    await scene.copied(there, [(0, 0, 5), (5, 8, 2)], scanned=10)
    atlas = Atlas(scene.store)
    assert (await start(atlas, "a-b", {queue("a"): 7}, end=10)).offset == 5
    assert (await start(atlas, "a-b", {queue("a"): 7}, end=10, copies_only=True)).offset == 10


async def test_after_a_failover_the_way_back_of_a_one_way_task_is_its_flow(scene):
    (there,) = await scene.flow("a", "b")
    await scene.copied(there, [(0, 40, 10)])
    found = await start(Atlas(scene.store), "a-b", {queue("b"): 46}, cluster="a", owning="b", end=10)
    assert found.offset == 6


async def test_what_the_way_back_relays_is_no_feeding_of_its_own(scene):
    (there,) = await scene.flow("a", "b")
    (third,) = await scene.flow("c", "b")
    (back,) = await scene.flow("b", "a", relay=True)
    await scene.copied(there, [(0, 0, 5)])
    await scene.copied(third, [(0, 5, 5)])
    await scene.copied(back, [(5, 5, 5)], [(0, 5, "loop")])
    found = await start(Atlas(scene.store), "a-b", {queue("a"): 8}, end=10)
    assert found.offset == 8


async def test_a_flow_to_another_topic_is_no_way_back(scene):
    (there,) = await scene.flow("a", "b", topic="orders")
    await scene.copied(there, [(0, 0, 5)], scanned=9)
    name = "elsewhere"
    await scene.store.put_task(name, spec(name, "b", "a"), [("b", "a")])
    flow = next(f for f in await scene.store.flows() if f.task == name)
    pair = await scene.store.claim_pair(flow.flow_id, "orders", "archive")
    await scene.store.add_assignments(pair.pair_id, [NewAssignment(queue("b"), queue("a", topic="archive"), 0)])
    written = await Atlas(scene.store).written_queue("a-b", "b", queue("b"), "a")
    assert written.back is None
