"""Loading a whole map: its version, its rows as columns, and only what is new."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from replicator.core.errors import Missing
from replicator.core.offset_map import Epoch
from replicator.core.record import UNSEEN_COMMIT_LOG_OFFSET, RecordIdentity
from replicator.store import maps
from replicator.store.port import Checkpoint, Conflict, Duplicate, Hole, KnownRows, Progress, Run, ToRelearn
from tests.conformance.store.scene import leased, put_assignments, put_flow, queue
from tests.conformance.store.test_offset_map import REASONS, STEPS, one, save


def runs_of(rows):
    return [Run(*run) for run in rows.runs]


def holes_of(rows):
    return [Hole(*hole) for hole in rows.holes]


def known_of(rows):
    return KnownRows(rows.version.version, rows.runs.last, rows.holes.last)


async def test_a_map_nobody_wrote_to_begins_at_the_start_offset(store):
    await put_assignments(store, 2)
    second = (await leased(store))[1]
    rows = await store.map_rows(second.assignment_id)
    assert (rows.is_whole, runs_of(rows), holes_of(rows), list(rows.duplicates)) == (True, [], [], [])
    assert (rows.start_offset, rows.version.examined_through, rows.version.scanned_through) == (10, 10, 0)
    assert list(rows.epochs) == list(await store.epochs(second.assignment_id)) == [Epoch(1)]
    assert await store.map_rows(987_654) is None
    assert dict(await store.map_versions([987_654])) == {}


async def test_the_whole_map_of_one_moment(store):
    row = await one(store)
    checkpoint = Checkpoint(examined_through=17, scanned_through=130, to_relearn=ToRelearn(1, 0, 5, 90, 95))
    runs, holes = [Run(1, 5, 100, 5), Run(1, 12, 105, 2)], [Hole(1, 10, 2, "loop"), Hole(1, 14, 3, "filtered")]
    duplicates = [Duplicate(1, 6, 120, "duplicate"), Duplicate(1, 7, 121, "ghost")]
    saved = Progress(row.assignment_id, row.token, checkpoint, runs=runs, holes=holes, duplicates=duplicates[::-1])
    await store.save_progress([saved])
    rows = await store.map_rows(row.assignment_id)
    assert (runs_of(rows), holes_of(rows), list(rows.duplicates)) == (runs, holes, duplicates)
    assert list(await store.duplicates(row.assignment_id)) == duplicates
    assert (rows.version.examined_through, rows.version.scanned_through, rows.version.relearn_from) == (17, 130, 90)
    assert dict(await store.map_versions([row.assignment_id])) == {row.assignment_id: rows.version}


@pytest.mark.parametrize("page_rows", [1, 2, 5, 6])
async def test_a_map_of_several_pages(store, monkeypatch, page_rows):
    monkeypatch.setattr(maps, "MAP_PAGE_ROWS_MAX", page_rows)
    row = await one(store)
    runs = [Run(1, 10 * n, 20 * n, 3) for n in range(5)]
    holes = [Hole(1, 10 * n + 3, 7, REASONS[n % 3]) for n in range(5)]
    await save(store, row, runs=runs, holes=holes)
    await save(store, row, epoch=2, runs=[Run(2, 5, 200, 1)])
    rows = await store.map_rows(row.assignment_id)
    assert (runs_of(rows), holes_of(rows)) == ([*runs, Run(2, 5, 200, 1)], holes)
    newer = await store.map_rows(row.assignment_id, replace(known_of(rows), last_run=(1, 20), last_hole=(1, 33)))
    assert (newer.is_whole, runs_of(newer), holes_of(newer)) == (False, [*runs[2:], Run(2, 5, 200, 1)], holes[3:])


async def test_the_version_grows_with_the_rows_and_only_with_them(store):
    row = await one(store)

    async def version():
        return (await store.map_versions([row.assignment_id]))[row.assignment_id]

    seen = [await version()]
    await save(store, row)
    assert (await version()).version == seen[0].version
    for change in (
        {"runs": [Run(1, 0, 100, 10)]}, {"runs": [Run(1, 10, 110, 5)]}, {"holes": [Hole(1, 15, 5, "loop")]},
        {"duplicates": [Duplicate(1, 0, 130, "duplicate")]}, {"drop_runs_from": 12},
    ):
        await save(store, row, **change)
        seen.append(await version())
        assert seen[-1].version > seen[-2].version, change
        assert (seen[-1].rewritten > seen[-2].version) == ("drop_runs_from" in change), change
    await save(store, row, runs=[Run(1, 0, 100, 10)])
    assert await version() == seen[-1], "what was there already is no change"


async def test_an_epoch_is_kept_with_its_divergence(store):
    row = await one(store)
    await save(store, row, runs=[Run(1, 0, 100, 10)])
    before = (await store.map_versions([row.assignment_id]))[row.assignment_id]
    await store.release(row.assignment_id, row.token, clean=True)
    await store.set_epoch(row.assignment_id, 2, 20, "loss accepted", divergence_offset=4)
    await store.set_epoch(row.assignment_id, 4, 30, "again")
    rows = await store.map_rows(row.assignment_id, KnownRows(before.version, (1, 0), None))
    assert list(rows.epochs) == list(await store.epochs(row.assignment_id)) == [Epoch(1), Epoch(2, 4, 20), Epoch(4, 30, 30)]
    assert rows.is_whole
    assert rows.version.examined_through == 30
    assert [event.detail["divergence_offset"] for event in await store.events("orders") if event.kind == "epoch"] == [4, 30]


async def test_an_epoch_that_restores_is_kept_with_what_it_sends_back(store):
    row = await one(store)
    identity, seen = RecordIdentity(29, 1, 2, 3), {"up": 7}
    checkpoint = Checkpoint(examined_through=30, confirmed_source_offset=29, confirmed_destination_offset=129, scanned_through=130,
                            identity=identity, seen=seen)  # fmt: skip
    await store.save_progress([Progress(row.assignment_id, row.token, checkpoint, runs=[Run(1, 0, 100, 30)])])
    before = (await store.map_versions([row.assignment_id]))[row.assignment_id]
    with pytest.raises(Conflict, match="leased"):
        await store.begin_restore(row.assignment_id, [(4, 6)], "failback 3")
    await store.release(row.assignment_id, row.token, clean=True)
    assert await store.begin_restore(row.assignment_id, [(4, 6), (9, 10)], "failback 3") == 2
    assert await store.save_progress([Progress(row.assignment_id, row.token, checkpoint)]) == {row.assignment_id}, "fenced off"
    assert list(await store.epochs(row.assignment_id)) == [Epoch(1), Epoch(2, 30, 4)]
    assert (await store.map_versions([row.assignment_id]))[row.assignment_id].rewritten > before.version
    told = await store.restoration(row.assignment_id, 2)
    assert (told.through, list(told.offsets)) == (30, [(4, 6), (9, 10)])
    assert not (await store.restoration(row.assignment_id, 1)).offsets
    (after,) = await leased(store)
    assert (after.checkpoint.epoch, after.checkpoint.examined_through, after.checkpoint.scanned_through) == (2, 4, 130)
    assert (after.checkpoint.identity, after.checkpoint.seen) == (identity, seen)
    assert (after.checkpoint.confirmed_source_offset, after.checkpoint.confirmed_destination_offset) == (-1, -1)
    (event,) = [event for event in await store.events("orders") if event.kind == "epoch"]
    assert event.message == "epoch 2 sends 3 messages back from source offset 4 on: failback 3"
    await store.release(row.assignment_id, after.token, clean=False)
    with pytest.raises(Conflict, match="cleanly"):
        await store.begin_restore(row.assignment_id, [(4, 6)], "again")
    with pytest.raises(Missing):
        await store.begin_restore(987654, [(4, 6)], "again")


async def test_what_nobody_has_read_yet_is_not_restored(store):
    await put_assignments(store, 2)
    second = (await leased(store))[1]
    await store.release(second.assignment_id, second.token, clean=True)
    with pytest.raises(Conflict, match="up to offset 10, not up to 11"):
        await store.begin_restore(second.assignment_id, [(4, 11)], "failback 3")
    await store.begin_restore(second.assignment_id, [(4, 6)], "failback 3")
    assert list(await store.epochs(second.assignment_id)) == [Epoch(1), Epoch(2, 10, 4)], "it begins at 10"
    assert (await store.restoration(second.assignment_id, 2)).through == 10


async def test_a_position_that_only_copies_tell_proves_nothing_to_who_restores(store):
    row = await one(store)
    checkpoint = Checkpoint(examined_through=30, identity=RecordIdentity(29, 1, UNSEEN_COMMIT_LOG_OFFSET, 0))
    await store.save_progress([Progress(row.assignment_id, row.token, checkpoint)])
    await store.release(row.assignment_id, row.token, clean=True)
    await store.begin_restore(row.assignment_id, [(4, 6)], "failback 3")
    (after,) = await leased(store)
    assert after.checkpoint.identity is None


async def test_a_deleted_task_leaves_its_map(store):
    _, pair = await put_assignments(store)
    (row,) = await leased(store)
    await save(store, row, runs=[Run(1, 0, 100, 10)])
    living = await store.topic_assignments("id-hangzhou", "orders")
    assert [(p.pair_id, a.assignment_id, a.task) for p, a in living] == [(pair.pair_id, row.assignment_id, "orders")]
    assert list(await store.topic_assignments("id-shanghai", "orders")) == living
    assert list(await store.topic_assignments("id-shanghai", "other")) == []
    await store.delete_task("orders")
    ((_, left),) = await store.topic_assignments("id-shanghai", "orders")
    assert (left.task, left.flow_id, left.source, left.destination) == ("", "", "hangzhou", "shanghai")
    assert (left.source_queue, left.destination_queue) == (queue("orders", 0), queue("orders", 0, "broker-b"))
    assert left.checkpoint == Checkpoint()
    assert runs_of(await store.map_rows(left.assignment_id)) == [Run(1, 0, 100, 10)]
    await store.purge_task("orders")
    assert list(await store.topic_assignments("id-shanghai", "orders")) == []
    assert await store.map_rows(left.assignment_id) is None


async def test_both_directions_of_a_topic_are_told(store):
    await put_flow(store, "back", "shanghai", "hangzhou")
    flow = await put_flow(store)
    for one_flow in await store.flows():
        pair = await store.claim_pair(one_flow.flow_id, "orders", "orders")
        assert (pair.flow_id == flow.flow_id) == (pair.source == "hangzhou")
    await put_assignments(store)
    found = await store.topic_assignments("id-hangzhou", "orders")
    assert [(p.task, a.source) for p, a in found] == [("orders", "hangzhou")]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_what_was_read_before_and_what_is_new_make_the_whole_map(store, steps):
    topic = f"topic-{len(await store.pairs())}"
    await put_assignments(store, topic=topic)
    (row,) = await leased(store)
    readers = [await store.map_rows(row.assignment_id)]
    for pieces, gaps, drop_from in steps:
        runs = [Run(1, start, start + 1000 * label, length) for start, length, label in pieces]
        holes = [Hole(1, start, length, REASONS[label]) for start, length, label in gaps]
        await save(store, row, runs=runs, holes=holes, drop_runs_from=drop_from)
        whole = await store.map_rows(row.assignment_id)
        for index, before in enumerate(readers):
            newer = await store.map_rows(row.assignment_id, known_of(before))
            if not newer.is_whole:
                before.runs.continue_with(newer.runs)
                before.holes.continue_with(newer.holes)
                newer = replace(newer, runs=before.runs, holes=before.holes)
            assert (runs_of(newer), holes_of(newer)) == (runs_of(whole), holes_of(whole))
            readers[index] = newer
        readers.append(whole)
