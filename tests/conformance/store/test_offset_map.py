"""Runs and holes: merging, dropping, finding; against a model that keeps one answer for each offset."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.core.record import RecordIdentity
from replicator.store.port import Checkpoint, Duplicate, Hole, Parked, Progress, Run, ToRelearn
from tests.conformance.store.scene import leased, put_assignments


async def save(store, row, *, epoch=1, **fields):
    assert await store.save_progress([Progress(row.assignment_id, row.token, Checkpoint(epoch=epoch), **fields)]) == set()


async def one(store):
    await put_assignments(store)
    (row,) = await leased(store)
    return row


async def test_a_checkpoint_comes_back_as_it_was_saved(store):
    row = await one(store)
    big = 2**62
    checkpoint = Checkpoint(3, big, big - 1, big - 2, RecordIdentity(big, 1, big, 2**32 - 1), 7, {"q": big}, True, big, {"loop": 2},
                            ToRelearn(3, big - 9, big, 0, 7, "loop"))
    item = Progress(row.assignment_id, row.token, checkpoint, senders=("a",), state="running", lag_messages=4, lag_seconds=0.5)
    await store.save_progress([item])
    (found,) = await store.assignments()
    assert found.checkpoint == checkpoint
    assert (found.senders, found.state, found.lag_messages, found.lag_seconds) == (("a",), "running", 4, 0.5)
    assert found.observed_at.tzinfo is not None


async def test_what_is_to_be_learned_again_survives_a_new_epoch_and_goes_when_it_is_learned(store):
    row = await one(store)
    wanted = ToRelearn(1, 0, 10, 100, 106, "filtered")
    await store.save_progress([Progress(row.assignment_id, row.token, Checkpoint(examined_through=10, to_relearn=wanted))])
    await store.release(row.assignment_id, row.token, clean=True)
    await store.set_epoch(row.assignment_id, 2, 10, "accepted")
    (row,) = await leased(store)
    assert row.checkpoint.to_relearn == wanted
    await save(store, row, epoch=2)
    assert (await store.assignments())[0].checkpoint.to_relearn is None


async def test_runs_that_continue_on_both_sides_become_one(store):
    row = await one(store)
    await save(store, row, runs=[Run(1, 0, 100, 10)])
    await save(store, row, runs=[Run(1, 10, 110, 5), Run(1, 15, 115, 1)])
    assert list(await store.runs(row.assignment_id)) == [Run(1, 0, 100, 16)]
    await save(store, row, runs=[Run(1, 16, 120, 4)])
    await save(store, row, runs=[Run(1, 25, 124, 1)])
    assert list(await store.runs(row.assignment_id)) == [Run(1, 0, 100, 16), Run(1, 16, 120, 4), Run(1, 25, 124, 1)]
    await save(store, row, runs=[Run(1, 20, 999, 5)])
    await save(store, row, epoch=2, runs=[Run(2, 26, 125, 1)])
    assert list(await store.last_runs(row.assignment_id, 2)) == [Run(2, 26, 125, 1), Run(1, 25, 124, 1)]
    assert list(await store.runs(row.assignment_id, epoch=2)) == [Run(2, 26, 125, 1)]


async def test_saving_the_same_again_changes_nothing(store):
    """The answer to a commit may be lost: the worker then saves it again, with more."""
    row = await one(store)
    await save(store, row, runs=[Run(1, 0, 100, 10)], holes=[Hole(1, 10, 5, "loop")])
    for _ in range(2):
        again = {"duplicates": [Duplicate(1, 3, 500, "ghost")], "parked": [Parked(12, "too large", 9)]}
        await save(store, row, runs=[Run(1, 0, 100, 10), Run(1, 15, 110, 3)], holes=[Hole(1, 10, 5, "loop")], **again)
    await save(store, row, runs=[Run(1, 2, 102, 8), Run(1, 15, 110, 6)])
    assert list(await store.runs(row.assignment_id)) == [Run(1, 0, 100, 10), Run(1, 15, 110, 6)]
    assert list(await store.holes(row.assignment_id)) == [Hole(1, 10, 5, "loop")]
    assert len(await store.parked("orders")) == 1


async def test_holes_merge_by_reason_and_are_found(store):
    row = await one(store)
    await save(store, row, holes=[Hole(1, 0, 5, "loop")])
    await save(store, row, holes=[Hole(1, 5, 5, "loop"), Hole(1, 10, 2, "filtered")])
    assert list(await store.holes(row.assignment_id)) == [Hole(1, 0, 10, "loop"), Hole(1, 10, 2, "filtered")]
    assert list(await store.holes(row.assignment_id, around_source=11)) == [Hole(1, 10, 2, "filtered")]
    assert list(await store.holes(row.assignment_id, around_source=9, limit=1)) == [Hole(1, 0, 10, "loop")]
    assert list(await store.holes(row.assignment_id, around_source=-1, limit=1)) == [Hole(1, 0, 10, "loop")]


async def test_dropping_comes_before_appending_and_cuts_what_straddles(store):
    row = await one(store)
    await save(store, row, runs=[Run(1, 0, 0, 10), Run(1, 20, 10, 10)], holes=[Hole(1, 10, 10, "loop")])
    await save(store, row, runs=[Run(1, 15, 500, 3)], holes=[Hole(1, 18, 2, "loop")], drop_runs_from=14)
    assert list(await store.runs(row.assignment_id)) == [Run(1, 0, 0, 10), Run(1, 15, 500, 3)]
    assert list(await store.holes(row.assignment_id)) == [Hole(1, 10, 4, "loop"), Hole(1, 18, 2, "loop")]
    await save(store, row, epoch=2, runs=[Run(2, 0, 600, 5)], drop_runs_from=0)
    await save(store, row, epoch=2, drop_runs_from=3)
    assert list(await store.runs(row.assignment_id, epoch=2)) == [Run(2, 0, 600, 3)]
    assert len(await store.runs(row.assignment_id, epoch=1)) == 2, "another epoch is not touched"


async def test_runs_are_found_around_an_offset_of_either_side(store):
    row = await one(store)
    kept = [Run(1, 0, 50, 5), Run(1, 10, 60, 5), Run(1, 20, 70, 5)]
    await save(store, row, runs=kept)
    find = store.runs
    assert list(await find(row.assignment_id, around_source=14)) == kept[1:]
    assert list(await find(row.assignment_id, around_source=10)) == kept[1:]
    assert list(await find(row.assignment_id, around_source=9)) == kept
    assert list(await find(row.assignment_id, around_source=9, limit=2)) == kept[:2]
    assert list(await find(row.assignment_id, around_source=-5)) == kept
    assert list(await find(row.assignment_id, around_destination=69)) == kept[1:]
    assert list(await find(row.assignment_id, around_destination=70, epoch=1)) == kept[2:]
    assert list(await find(row.assignment_id, around_destination=0, limit=1)) == kept[:1]
    assert list(await find(row.assignment_id, around_source=5, epoch=2)) == []
    assert list(await find(987654)) == []


async def test_what_a_new_epoch_gives_up_becomes_a_hole_where_nothing_else_answers(store):
    row = await one(store)
    checkpoint = Checkpoint(examined_through=10, skipped_total={"loop": 2, "history": 1})
    runs, holes = [Run(1, 0, 100, 10), Run(1, 12, 110, 3)], [Hole(1, 17, 1, "loop")]
    await store.save_progress([Progress(row.assignment_id, row.token, checkpoint, runs=runs, holes=holes)])
    await store.release(row.assignment_id, row.token, clean=True)
    await store.set_epoch(row.assignment_id, 2, 20, "loss accepted", given_up=Hole(1, 10, 10, "history"))
    assert list(await store.runs(row.assignment_id)) == runs
    assert list(await store.holes(row.assignment_id)) == [
        Hole(1, 10, 2, "history"), Hole(1, 15, 2, "history"), Hole(1, 17, 1, "loop"), Hole(1, 18, 2, "history"),
    ]
    (found,) = await store.assignments()
    assert found.checkpoint.skipped_total == {"loop": 2, "history": 7}
    assert (await store.events("orders"))[-1].detail["given_up"] == {"epoch": 1, "source_start": 10, "length": 10}
    await store.set_epoch(row.assignment_id, 3, 30, "again", given_up=Hole(3, 25, 5, "history"))
    assert list(await store.holes(row.assignment_id))[-1] == Hole(3, 25, 5, "history")
    await store.set_epoch(row.assignment_id, 4, 30, "nothing lost")
    (found,) = await store.assignments()
    assert found.checkpoint.skipped_total == {"loop": 2, "history": 12}


async def test_many_assignments_are_saved_in_one_go(store):
    await put_assignments(store, 40)
    rows = await leased(store)
    items = []
    for n, row in enumerate(rows):
        checkpoint = Checkpoint(examined_through=n)
        items.append(Progress(row.assignment_id, row.token, checkpoint, [Run(1, n, 5 * n, 3)], [Hole(1, n + 3, 1, "loop")]))
    assert await store.save_progress(items) == set()
    for n, row in enumerate(rows):
        assert list(await store.runs(row.assignment_id)) == [Run(1, n, 5 * n, 3)]
    assert [row.checkpoint.examined_through for row in await store.assignments()] == list(range(40))


LABELS = st.integers(0, 2)
PIECES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 8), LABELS), max_size=5)
STEPS = st.lists(st.tuples(PIECES, PIECES, st.none() | st.integers(0, 40)), min_size=1, max_size=6)
REASONS = ("filtered", "loop", "refused")


def apply(model, pieces, drop_from):
    if drop_from is not None:
        for offset in [offset for offset in model if offset >= drop_from]:
            del model[offset]
    for start, length, label in pieces:
        for offset in range(start, start + length):
            model.setdefault(offset, label)


def segments(model):
    found = []
    for offset in sorted(model):
        if found and found[-1][0] + found[-1][1] == offset and found[-1][2] == model[offset]:
            found[-1][1] += 1
        else:
            found.append([offset, 1, model[offset]])
    return [tuple(segment) for segment in found]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_the_map_equals_a_model_with_one_answer_for_each_offset(store, steps):
    topic = f"topic-{len(await store.pairs())}"
    await put_assignments(store, topic=topic)
    (row,) = await leased(store)
    copied, skipped = {}, {}
    for pieces, gaps, drop_from in steps:
        apply(copied, pieces, drop_from)
        apply(skipped, gaps, drop_from)
        runs = [Run(1, start, start + 1000 * label, length) for start, length, label in pieces]
        holes = [Hole(1, start, length, REASONS[label]) for start, length, label in gaps]
        await save(store, row, runs=runs, holes=holes, drop_runs_from=drop_from)
    wanted = [Run(1, start, start + 1000 * label, length) for start, length, label in segments(copied)]
    found = list(await store.runs(row.assignment_id))
    # Two runs that were cut and touch again stay two until something is appended there: the answers count.
    assert [offset for run in found for offset in answers(run)] == [offset for run in wanted for offset in answers(run)]
    assert len(found) <= len(wanted) + len(steps)
    holes = await store.holes(row.assignment_id)
    gone = [(hole.source_start + i, hole.reason) for hole in holes for i in range(hole.length)]
    assert gone == [(offset, REASONS[label]) for offset, label in sorted(skipped.items())]
    for offset in (0, 17, 40):
        begin = max((run.source_start for run in found if run.source_start <= offset), default=0)
        assert list(await store.runs(row.assignment_id, around_source=offset)) == [run for run in found if run.source_start >= begin]
    assert list(await store.last_runs(row.assignment_id, 3)) == found[::-1][:3]


def answers(run):
    return [(run.source_start + i, run.destination_start + i) for i in range(run.length)]
