"""Runs and holes that memory has no room for, learned again from the copies: the map is the same as if it had all been kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.record import MessageQueue
from replicator.store.port import Assignment, Checkpoint, Hole, Run, ToRelearn
from replicator.worker import journal as journal_module
from replicator.worker.folding import fold, learn
from replicator.worker.journal import Journal

QUEUE = MessageQueue("orders", "broker-a", 0)


def make_journal():
    return Journal(Assignment(1, 1, "f", "t", "a", "b", QUEUE, QUEUE, 0, Checkpoint(), token=1))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(journal_module, "RUNS_KEPT_MAX", 8)


def decide(journal, kinds, destination=0, gap=0):
    """One record a batch: "c" is copied, another letter is a hole of that reason. Between copies stand ``gap`` foreign records."""
    copies = {}
    for kind in kinds:
        offset = journal.examined_through
        if kind == "c":
            journal.add_copies([offset], destination)
            copies[offset] = destination
            destination += 1 + gap
        journal.end_batch(offset + 1, None, {}, [] if kind == "c" else [(offset, 1, kind)])
    return copies


def answers(saves):
    """What a store would answer for each offset after these saves: the first answer stays."""
    found = {}
    for progress in saves:
        for run in progress.runs:
            for index in range(run.length):
                found.setdefault(run.source_start + index, run.destination_start + index)
        for hole in progress.holes:
            for offset in range(hole.source_start, hole.source_start + hole.length):
                found.setdefault(offset, hole.reason)
    return found


def relearn_all(journal, copies, page=3):
    saves = []
    while (known := journal.to_relearn) is not None:
        through = min(known.destination_start + page, known.destination_end)
        found = [(s, d) for s, d in sorted(copies.items()) if known.destination_start <= d < through]
        journal.relearned(found, through, is_complete=True)
        saves.append(journal.snapshot(in_flight=False))
    return saves


def test_memory_is_bounded_while_nothing_can_be_saved(small):
    journal = make_journal()
    for _ in range(50):
        decide(journal, "cl" * 5, destination=journal.checkpoint.confirmed_destination_offset + 2, gap=1)
        progress = journal.snapshot(in_flight=False)
        assert max(len(progress.runs), len(progress.holes)) <= 8
        journal.not_saved(progress)
    assert journal.to_relearn.source_start == 0
    assert journal.checkpoint.copied_total == 250


@given(kinds=st.lists(st.sampled_from("ccccllf"), max_size=120), gap=st.integers(0, 2))
def test_the_map_is_complete_after_learning_again(kinds, gap):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "RUNS_KEPT_MAX", 8)
        journal = make_journal()
        copies = decide(journal, kinds, gap=gap)
        saves = [journal.snapshot(in_flight=False)]
        assert journal.to_relearn == saves[0].checkpoint.to_relearn
        saves += relearn_all(journal, copies)
    assert answers(saves) == {offset: copies.get(offset, kind) for offset, kind in enumerate(kinds)}
    assert saves[-1].checkpoint.to_relearn is None


def test_what_was_confirmed_in_the_middle_of_a_batch_is_never_folded(small):
    journal = make_journal()
    for offset in range(0, 60, 2):
        journal.add_copies([offset], offset)
    journal.end_batch(0, None, {}, [])
    progress = journal.snapshot(in_flight=True)
    assert (journal.to_relearn, len(progress.runs)) == (None, 30)


def test_a_second_outage_adds_to_the_range(small):
    journal = make_journal()
    copies = decide(journal, "cl" * 20, gap=1)
    first = journal.to_relearn
    saves = [journal.snapshot(in_flight=False)]
    journal.relearned([(s, d) for s, d in copies.items() if d < 10], 10, is_complete=True)
    copies |= decide(journal, "cl" * 20, destination=40, gap=1)
    assert journal.to_relearn.source_start <= 11
    assert journal.to_relearn.source_end > first.source_end
    saves += [journal.snapshot(in_flight=False), *relearn_all(journal, copies)]
    assert answers(saves) == {offset: copies.get(offset, "l") for offset in range(80)}


def test_copies_that_expired_meanwhile_are_neither_found_nor_called_holes():
    known = ToRelearn(1, 0, 10, 100, 110, "loop")
    learned = learn(known, [(4, 104), (6, 105)], 106, is_complete=False)
    assert (learned.runs, learned.holes) == ([Run(1, 4, 104, 1), Run(1, 6, 105, 1)], [Hole(1, 5, 1, "loop")])
    assert learned.rest == ToRelearn(1, 7, 10, 106, 110, "loop")
    nothing = learn(known, [], 106, is_complete=False)
    assert (nothing.runs, nothing.holes, nothing.rest) == ([], [], ToRelearn(1, 0, 10, 106, 110, ""))


def test_a_second_copy_and_one_of_another_time_are_left_out():
    learned = learn(ToRelearn(1, 5, 8, 0, 9), [(3, 0), (5, 1), (6, 2), (5, 3), (8, 4)], 9, is_complete=True)
    assert learned.runs == [Run(1, 5, 1, 1), Run(1, 6, 2, 1)]
    assert learned.rest is None


def test_a_range_of_another_epoch_is_left_alone():
    runs = [Run(2, offset * 2, offset * 2, 1) for offset in range(20)]
    assert fold(ToRelearn(1, 0, 5, 0, 5), runs, [], 100, 4) is None
