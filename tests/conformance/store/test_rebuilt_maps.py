"""A map made anew beside the old one: invisible until it replaces it, all at once, and only for who began it."""

import pytest

from replicator.core.offset_map import Epoch
from replicator.core.record import RecordIdentity
from replicator.store.port import Checkpoint, Conflict, Duplicate, Hole, KnownRows, Progress, Run
from tests.conformance.store.scene import leased
from tests.conformance.store.test_map_rows import holes_of, runs_of
from tests.conformance.store.test_offset_map import one, save

OLD_RUN, OLD_HOLE = Run(1, 0, 100, 10), Hole(1, 10, 5, "filtered")
FOUND = Checkpoint(epoch=2, examined_through=40, confirmed_source_offset=39, confirmed_destination_offset=77,
                   identity=RecordIdentity(39, 1234, -1, 0), scanned_through=90, copied_total=21)


async def begun(store):
    row = await one(store)
    await save(store, row, runs=[OLD_RUN], holes=[OLD_HOLE], duplicates=[Duplicate(1, 3, 130, "duplicate")])
    await store.release(row.assignment_id, row.token, clean=True)
    return row.assignment_id, await store.begin_map(row.assignment_id)


async def all_of(store, assignment_id):
    rows = await store.map_rows(assignment_id)
    assert runs_of(rows) == sorted(await store.runs(assignment_id), key=lambda run: (run.epoch, run.source_start))
    assert holes_of(rows) == sorted(await store.holes(assignment_id), key=lambda hole: (hole.epoch, hole.source_start))
    assert list(rows.duplicates) == list(await store.duplicates(assignment_id))
    return runs_of(rows), holes_of(rows), list(rows.duplicates), list(rows.epochs)


async def test_the_old_map_answers_until_the_new_one_replaces_it(store):
    assignment_id, token = await begun(store)
    before = await all_of(store, assignment_id)
    known = await store.map_rows(assignment_id)
    assert await store.stage_map(assignment_id, token, [Run(1, 5, 200, 5)], [Hole(1, 0, 5, "pruned")], [])
    assert await store.stage_map(assignment_id, token, [Run(1, 10, 205, 2), Run(1, 20, 207, 4)], [], [Duplicate(1, 6, 230, "duplicate")])
    assert await store.stage_map(assignment_id, token, [Run(2, 22, 240, 3), Run(2, 30, 243, 10)], [], [])
    assert await all_of(store, assignment_id) == before
    assert await store.last_runs(assignment_id, 5) == [OLD_RUN]
    epochs = [Epoch(1), Epoch(2, 22, 22)]
    assert await store.replace_map(assignment_id, token, FOUND, epochs, {1: 1_000, 2: 28})
    runs = [Run(1, 5, 200, 7), Run(1, 20, 207, 4), Run(2, 22, 240, 3), Run(2, 30, 243, 10)]
    holes = [Hole(1, 0, 5, "pruned"), Hole(1, 12, 8, "unknown"), Hole(2, 25, 3, "unknown")]
    assert await all_of(store, assignment_id) == (runs, holes, [Duplicate(1, 6, 230, "duplicate")], epochs)
    (row,) = [a for a in await store.assignments() if a.assignment_id == assignment_id]
    assert row.checkpoint == FOUND
    rows = await store.map_rows(assignment_id, KnownRows(known.version.version, (1, 0), (1, 10)))
    assert rows.is_whole


async def test_nothing_is_begun_under_a_lease(store):
    row = await one(store)
    with pytest.raises(Conflict, match="leased"):
        await store.begin_map(row.assignment_id)


async def test_who_was_fenced_off_adds_and_replaces_nothing(store):
    assignment_id, token = await begun(store)
    assert await store.stage_map(assignment_id, token, [Run(1, 5, 200, 5)], [], [])
    newer = await store.begin_map(assignment_id)
    assert newer > token
    before = await all_of(store, assignment_id)
    assert not await store.stage_map(assignment_id, token, [Run(1, 50, 300, 5)], [], [])
    assert not await store.replace_map(assignment_id, token, FOUND, [Epoch(1)], {})
    (row,) = await leased(store)
    assert not await store.stage_map(assignment_id, newer, [Run(1, 50, 300, 5)], [], [])
    assert not await store.replace_map(assignment_id, newer, FOUND, [Epoch(1)], {})
    assert await all_of(store, assignment_id) == before
    await store.release(assignment_id, row.token, clean=True)
    token = await store.begin_map(assignment_id)
    assert await store.replace_map(assignment_id, token, FOUND, [Epoch(1)], {})
    assert await all_of(store, assignment_id) == ([], [], [], [Epoch(1)]), "what an attempt left behind is not in the next one"


async def test_histories_met_in_the_log_are_kept_once(store):
    row = await one(store)
    found = [Epoch(2, 7, 9), Epoch(3, 12, 12)]
    runs = [Run(1, 0, 100, 7), Run(2, 9, 107, 3), Run(3, 12, 110, 1)]
    progress = Progress(row.assignment_id, row.token, Checkpoint(epoch=3, examined_through=13), runs=runs, epochs=found)
    assert await store.save_progress([progress]) == set()
    known = await store.map_rows(row.assignment_id)
    assert (list(known.epochs), runs_of(known)) == ([Epoch(1), *found], runs)
    again = Progress(row.assignment_id, row.token, Checkpoint(epoch=3, examined_through=13), epochs=[Epoch(2, 1, 1), Epoch(4, 20, 20)])
    assert await store.save_progress([again]) == set()
    assert list(await store.epochs(row.assignment_id)) == [Epoch(1), *found, Epoch(4, 20, 20)]
    assert (await store.map_versions([row.assignment_id]))[row.assignment_id].rewritten > known.version.version


async def test_a_reason_learned_later_takes_the_place_of_unknown(store):
    row = await one(store)
    await save(store, row, runs=[Run(1, 0, 100, 2)], holes=[Hole(1, 2, 8, "unknown"), Hole(1, 10, 4, "pruned"), Hole(1, 14, 2, "loop")])
    learned = [Hole(1, 3, 2, "filtered"), Hole(1, 8, 3, "loop"), Hole(1, 13, 1, "unknown"), Hole(1, 15, 1, "filtered")]
    for _ in range(2):
        await save(store, row, holes=learned)
        assert list(await store.holes(row.assignment_id)) == [
            Hole(1, 2, 1, "unknown"), Hole(1, 3, 2, "filtered"), Hole(1, 5, 3, "unknown"), Hole(1, 8, 3, "loop"), Hole(1, 11, 3, "pruned"),
            Hole(1, 14, 2, "loop"),
        ]
    assert list(await store.runs(row.assignment_id)) == [Run(1, 0, 100, 2)]
