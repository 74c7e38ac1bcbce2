"""Copies in a log, against a model that keeps every record."""

from hypothesis import given
from hypothesis import strategies as st

from replicator.core.copies import CopyFilter, Gathered, Upstream
from replicator.core.record import MessageQueue, RecordBatch
from replicator.core.stamp import FIRST_HOP_SUFFIX, Coordinates, Place, Stamp, relay_suffix, stamp_prefix

PUT = Place("dest", MessageQueue("orders", "b", 0))
ELSEWHERE = Place("dest", MessageQueue("orders", "b", 1))
SOURCES = [Place("src", MessageQueue("orders", "a", number)) for number in range(2)]


def properties(put, source, epoch, offset):
    return b"KEYS\x01k\x02" + stamp_prefix("abcdef", put, source, epoch) + f"{offset:x};{1000 + offset:x}".encode() + FIRST_HOP_SUFFIX


def batch(texts, first=0):
    return RecordBatch(offsets=range(first, first + len(texts)), properties=texts)


def test_only_what_was_put_here_is_found():
    texts = [
        properties(PUT, SOURCES[0], 1, 255), b"KEYS\x01__rep\x02", properties(ELSEWHERE, SOURCES[0], 1, 7), b"__rep\x01nonsense\x02",
        properties(PUT, SOURCES[1], 3, 8), properties(PUT, SOURCES[0], 1, 256).replace(b"100;", b"zz;"), b"",
        properties(PUT, SOURCES[0], 1, 257),
    ]
    found = CopyFilter(PUT).find(batch(texts, 40))
    assert [tuple(copy) for copy in found] == [
        (Upstream(SOURCES[0], 1), 255, 40, 1255, False), (Upstream(SOURCES[1], 3), 8, 44, 1008, False),
        (Upstream(SOURCES[0], 1), 257, 47, 1257, False),
    ]


@given(
    steps=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.booleans(), st.booleans()), max_size=60),
    take_every=st.integers(1, 7),
)
def test_runs_and_second_copies_are_what_was_put(steps, take_every):
    """Steps: (new epoch, gap before the copy, a local message before it, the copy of before once more)."""
    epoch, offset, expected, seconds, texts = 1, -1, {}, [], []
    for newer, gap, local, again in steps:
        if newer and expected:
            epoch, offset = epoch + 1, max(-1, offset - 3)
        if local:
            texts.append(b"KEYS\x01local\x02")
        offset += 1 + gap
        expected[epoch, offset] = len(texts)
        texts.append(properties(PUT, SOURCES[0], epoch, offset))
        if again:
            seconds.append((epoch, offset, len(texts)))
            texts.append(properties(PUT, SOURCES[0], epoch, offset))
    gathered, runs, duplicates, restored = Gathered(), [], [], []
    for number, copy in enumerate(CopyFilter(PUT).find(batch(texts))):
        gathered.add(copy)
        if number % take_every == 0:
            for whole, piece in zip((runs, duplicates, restored), gathered.take(), strict=True):
                whole += piece
    for whole, piece in zip((runs, duplicates, restored), gathered.take(), strict=True):
        whole += piece
    mapped = {(run.epoch, run.source_start + n): run.destination_start + n for run in runs for n in range(run.length)}
    assert mapped == expected
    assert sum(run.length for run in runs) == len(expected) == gathered.copies_total
    assert duplicates == seconds
    assert not restored
    assert [seen.number for seen in gathered.epochs] == sorted({epoch for epoch, _ in expected})
    for seen in gathered.epochs:
        own = [offset for epoch, offset in expected if epoch == seen.number]
        assert (seen.first_offset, seen.last_offset, seen.copies) == (min(own), max(own), len(own))


def sent_back(epoch, offset):
    """A copy whose message was born where it was put."""
    born = Stamp("k", SOURCES[0], Coordinates(PUT, 1, 700 + offset, 5), None, ())
    return stamp_prefix("abcdef", PUT, SOURCES[0], epoch) + f"{offset:x};{1000 + offset:x}".encode() + relay_suffix(born)


def test_what_was_sent_back_belongs_to_the_history_before_it_and_moves_no_position():
    texts = [properties(PUT, SOURCES[0], 1, 3), properties(PUT, SOURCES[0], 1, 8), sent_back(2, 5), sent_back(2, 6),
             properties(PUT, SOURCES[0], 2, 9)]  # fmt: skip
    gathered = Gathered()
    assert [gathered.add(copy) for copy in CopyFilter(PUT).find(batch(texts))] == [True, True, False, False, True]
    assert [(seen.number, seen.first_offset, seen.last_offset) for seen in gathered.epochs] == [(1, 3, 8), (2, 9, 9)]
    assert gathered.last_restored == (2, 6)
    assert gathered.take()[2] == [(1, 5, 2), (1, 6, 3)]


def test_what_was_relayed_from_a_third_place_is_a_copy_like_any_other():
    third = Stamp("k", SOURCES[0], Coordinates(Place("third", PUT.queue), 1, 9, 5), None, ())
    text = stamp_prefix("abcdef", PUT, SOURCES[0], 1) + b"4;5" + relay_suffix(third)
    assert [copy.is_restored for copy in CopyFilter(PUT).find(batch([text]))] == [False]
