"""Copies in a log, against a model that keeps every record."""

from hypothesis import given
from hypothesis import strategies as st

from replicator.core.copies import CopyFilter, Gathered, Upstream
from replicator.core.record import MessageQueue, RecordBatch
from replicator.core.stamp import FIRST_HOP_SUFFIX, Place, stamp_prefix

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
        (Upstream(SOURCES[0], 1), 255, 40, 1255), (Upstream(SOURCES[1], 3), 8, 44, 1008), (Upstream(SOURCES[0], 1), 257, 47, 1257),
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
    gathered, runs, duplicates = Gathered(), [], []
    for number, copy in enumerate(CopyFilter(PUT).find(batch(texts))):
        gathered.add(copy)
        if number % take_every == 0:
            for whole, piece in zip((runs, duplicates), gathered.take(), strict=True):
                whole += piece
    for whole, piece in zip((runs, duplicates), gathered.take(), strict=True):
        whole += piece
    mapped = {(run.epoch, run.source_start + n): run.destination_start + n for run in runs for n in range(run.length)}
    assert mapped == expected
    assert sum(run.length for run in runs) == len(expected) == gathered.copies_total
    assert duplicates == seconds
    assert [seen.number for seen in gathered.epochs] == sorted({epoch for epoch, _ in expected})
    for seen in gathered.epochs:
        own = [offset for epoch, offset in expected if epoch == seen.number]
        assert (seen.first_offset, seen.last_offset, seen.copies) == (min(own), max(own), len(own))
