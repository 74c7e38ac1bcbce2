"""The offset map against a model that knows every record by itself."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.correspondence import Correspondence, Intervals
from replicator.core.offset_map import Absent, ContradictoryMap, Epoch, Found, NotYet, OffsetMap, Unlisted
from replicator.store.port import Duplicate, Hole, Run
from tests.unit.core.examples import examples

REASONS = ("filtered", "loop", "refused", "expired")


@dataclass
class Model:
    """Rows as the store would hold them, and beside them what is true, message by message. A message is (epoch, offset)."""

    start_offset: int = 0
    epochs: list[Epoch] = field(default_factory=lambda: [Epoch(1)])
    examined: int = 0
    destination: list[tuple[int, int] | None] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    reasons: dict[tuple[int, int], str] = field(default_factory=dict)
    seen: set[tuple[int, int]] = field(default_factory=set)
    """Messages some row speaks of."""

    @property
    def epoch(self) -> int:
        return self.epochs[-1].number

    def message(self, offset: int, epoch: int | None = None) -> tuple[int, int]:
        reached = [one.number for i, one in enumerate(self.epochs) if i == 0 or one.divergence_offset <= offset]
        return max(number for number in reached if epoch is None or number <= epoch), offset

    def is_present(self, message: tuple[int, int]) -> bool:
        return self.message(message[1]) == message

    def copies(self, message: tuple[int, int]) -> list[int]:
        return [d for d, standing in enumerate(self.destination) if standing == message]

    # what may happen

    def foreign(self, count: int) -> None:
        self.destination += [None] * count

    def copy(self, count: int) -> None:
        for offset in range(self.examined, self.examined + count):
            self._append(offset)
        self._examine(count)

    def copy_backwards(self, count: int) -> None:
        for offset in reversed(range(self.examined, self.examined + count)):
            self._append(offset)
        self._examine(count)

    def _append(self, offset: int) -> None:
        self.runs.append(Run(self.epoch, offset, len(self.destination), 1))
        self.destination.append(self.message(offset))
        self.seen.add(self.message(offset))

    def _examine(self, count: int) -> None:
        self.examined += count

    def skip(self, count: int, reason: str) -> None:
        self.holes.append(Hole(self.epoch, self.examined, count, reason))
        for offset in range(self.examined, self.examined + count):
            self.seen.add(self.message(offset))
            self.reasons[self.message(offset)] = reason
        self._examine(count)

    def forget(self, count: int) -> None:
        """Examined and copied, but no row was kept."""
        self._examine(count)

    def duplicate(self, back: int) -> None:
        copied = [run for run in self.runs if self.is_present(self.message(run.source_start, run.epoch))]
        if copied:
            run = copied[-1 - back % len(copied)]
            self.duplicates.append(Duplicate(run.epoch, run.source_start, len(self.destination), "duplicate"))
            self.destination.append(self.message(run.source_start, run.epoch))

    def diverge(self, back: int, reread: int) -> None:
        divergence = max(self.start_offset, self.examined - back)
        began = max(self.start_offset, divergence + reread)
        self.epochs.append(Epoch(self.epoch + 1, divergence, began))
        self.examined = began

    # what is expected

    def is_unlisted(self, offset: int) -> bool:
        """Nobody speaks of it, although it lies where somebody looked."""
        if offset < self.start_offset or self.message(offset) in self.seen:
            return False
        newest = self.epochs[-1]
        if len(self.epochs) == 1:
            return offset < self.examined
        assert newest.start_offset is not None
        if newest.start_offset <= offset < self.examined:
            return True
        owner = self.message(offset)[0]
        began = next(one.start_offset or 0 for one in self.epochs if one.number == owner)
        later = [s for epoch, s in self.seen if epoch == owner and s > offset and self.is_present((epoch, s))]
        return owner != newest.number and offset >= began and bool(later)

    def expect_destination(self, offset: int, epoch: int | None = None):
        message = self.message(offset, epoch)
        copies = self.copies(message)
        if copies and message in self.seen:
            return Found(min(copies), message[0], ghost=not self.is_present(message))
        if message in self.reasons:
            return Absent(self.reasons[message])
        if not self.is_present(message):
            return Absent("history")
        if offset < self.start_offset:
            return Absent("before-start")
        if self.is_unlisted(offset):
            return Unlisted(offset)
        if offset >= max(self.examined, self.epochs[-1].start_offset or 0):
            return NotYet(self.known_through)
        return Absent("history")

    @property
    def known_through(self) -> int:
        return max((run.destination_start + 1 for run in self.runs), default=0)

    def build(self, shuffler: random.Random) -> OffsetMap:
        runs, holes, duplicates = list(self.runs), list(self.holes), list(self.duplicates)
        merged: list[Run] = []
        for run in runs:
            last = merged[-1] if merged else None
            touches = last and (last.epoch, last.source_start + last.length, last.destination_start + last.length)
            if last and touches == (run.epoch, run.source_start, run.destination_start) and shuffler.random() < 0.8:
                merged[-1] = Run(last.epoch, last.source_start, last.destination_start, last.length + 1)
            else:
                merged.append(run)
        for rows in (merged, holes, duplicates):
            shuffler.shuffle(rows)
        return OffsetMap(
            merged, holes=holes, duplicates=duplicates, epochs=self.epochs, examined_through=self.examined, start_offset=self.start_offset,
        )


small = st.integers(1, 6)
actions = st.one_of(
    st.tuples(st.just("copy"), small),
    st.tuples(st.just("copy"), small),
    st.tuples(st.just("copy_backwards"), st.integers(2, 4)),
    st.tuples(st.just("foreign"), small),
    st.tuples(st.just("skip"), small, st.sampled_from(REASONS)),
    st.tuples(st.just("forget"), st.integers(1, 3)),
    st.tuples(st.just("duplicate"), st.integers(0, 20)),
    st.tuples(st.just("diverge"), st.integers(-2, 12), st.integers(-3, 3)),
)


@st.composite
def models(draw: st.DrawFn) -> tuple[Model, OffsetMap]:
    start = draw(st.integers(0, 3))
    model = Model(start_offset=start, examined=start)
    for name, *arguments in draw(st.lists(actions, max_size=25)):
        getattr(model, name)(*arguments)
    return model, model.build(draw(st.randoms(use_true_random=False)))


@examples(200)
@given(models())
def test_every_offset_of_both_logs_translates_exactly(made):
    model, mapped = made
    top = max([model.examined, *(s for _, s in model.seen)]) + 3
    for offset in range(top):
        assert mapped.to_destination(offset) == model.expect_destination(offset), offset
        for epoch in model.epochs:
            assert mapped.to_destination(offset, epoch.number) == model.expect_destination(offset, epoch.number), (offset, epoch)
    for offset in range(len(model.destination) + 3):
        standing = model.destination[offset] if offset < len(model.destination) else None
        if standing is not None:
            assert mapped.to_source(offset) == Found(standing[1], standing[0], ghost=not model.is_present(standing))
        elif offset < model.known_through:
            assert mapped.to_source(offset) == Absent("not-a-copy")
        else:
            assert mapped.to_source(offset) == NotYet(model.known_through)


@examples(200)
@given(models(), st.data())
def test_first_copies_and_counts(made, data):
    model, mapped = made
    top = max([model.examined, *(s for _, s in model.seen)]) + 3
    present = [(d, m[1]) for d, m in enumerate(model.destination) if m is not None and model.is_present(m)]
    for offset in range(top):
        answer = mapped.first_copy_at_or_after(offset)
        unlisted = [s for s in range(offset, top) if model.is_unlisted(s)]
        later = [d for d, s in present if s >= offset]
        if unlisted:
            assert answer == Unlisted(unlisted[0])
        elif later:
            assert isinstance(answer, Found)
            assert answer.offset == min(later)
        else:
            assert answer == NotYet(model.known_through)
    bounds = st.integers(0, top)
    for _ in range(5):
        s1, s2, d1, d2 = (data.draw(bounds) for _ in range(4))
        inside = [(s, d) for d, s in present if s1 <= s < s2 and d1 <= d < d2]
        assert mapped.copies_between((s1, s2), (d1, d2)) == len(inside)
        assert mapped.copies_between((s1, s2), distinct=True) == len({s for _, s in present if s1 <= s < s2})
        assert mapped.unlisted_between(s1, s2) == sum(model.is_unlisted(s) for s in range(s1, s2))


@examples(100)
@given(models())
def test_what_is_listed_is_everything(made):
    model, mapped = made
    pairs = {(s.left + i, s.right + i) for s in mapped.lowest_copies() for i in range(s.length)}
    seconds = {(s.source + i, s.destination + i, s.lowest + i) for s in mapped.second_copies() for i in range(s.length)}
    ghosts = {(g.epoch, g.source + i, g.destination + i) for g in mapped.ghosts() for i in range(g.length)}
    present = [(m[1], d) for d, m in enumerate(model.destination) if m is not None and model.is_present(m)]
    lowest = {s: min(d for t, d in present if t == s) for s, _ in present}
    assert pairs == set(lowest.items())
    assert seconds == {(s, d, lowest[s]) for s, d in present if d != lowest[s]}
    assert ghosts == {(*m, d) for d, m in enumerate(model.destination) if m is not None and not model.is_present(m)}


def test_below_a_pruned_range_the_first_kept_copy_is_next():
    mapped = OffsetMap([Run(1, 100, 300, 5)], examined_through=105, pruned_below=100, start_offset=10)
    assert mapped.to_destination(50) == Absent("pruned")
    assert mapped.first_copy_at_or_after(50) == Found(300, 1)


def test_an_epoch_that_is_not_known_is_named():
    assert OffsetMap([], examined_through=0).to_destination(5, 7) == Absent("unknown-epoch")
    with pytest.raises(ContradictoryMap, match="epoch 2"):
        OffsetMap([Run(2, 0, 0, 1)], examined_through=1)


def test_a_given_up_range_is_history():
    mapped = OffsetMap([Run(1, 0, 0, 10), Run(2, 20, 10, 5)], epochs=[Epoch(1), Epoch(2, 10, 20)], examined_through=25)
    assert mapped.to_destination(12) == Absent("history")
    assert mapped.first_copy_at_or_after(12) == Found(10, 2)


def test_a_message_that_was_read_twice_has_the_reason_of_the_last_reading():
    holes = [Hole(1, 0, 10, "filtered"), Hole(2, 3, 2, "refused")]
    mapped = OffsetMap([], holes=holes, epochs=[Epoch(1), Epoch(2, 8, 3)], examined_through=5)
    assert [mapped.to_destination(offset).reason for offset in (2, 3, 4, 5)] == ["filtered", "refused", "refused", "filtered"]
    assert list(mapped.holes()) == [(0, 3, "filtered"), (3, 5, "refused"), (5, 8, "filtered")]
    assert mapped.to_destination(9, epoch=1) == Absent("filtered")


def test_one_record_cannot_be_a_copy_of_two_messages():
    with pytest.raises(ContradictoryMap, match="destination offset 5"):
        OffsetMap([Run(1, 0, 0, 6), Run(1, 6, 5, 3)], examined_through=9)


def test_a_copy_that_is_listed_twice_counts_once():
    mapped = OffsetMap([Run(1, 0, 0, 6)], duplicates=[Duplicate(1, 3, 3, "duplicate")], examined_through=6)
    assert mapped.copies_between((0, 6)) == 6
    assert mapped.second_copies() == ()


def test_scanned_through_says_what_is_not_a_copy():
    mapped = OffsetMap([Run(1, 0, 0, 6)], examined_through=6, scanned_through=20)
    assert mapped.to_source(19) == Absent("not-a-copy")
    assert mapped.to_source(20) == NotYet(20)
    assert mapped.first_copy_at_or_after(6) == NotYet(20)


def test_intervals():
    ranges = Intervals([(1, 3), (3, 5), (7, 7), (8, 10), (9, 12)])
    assert list(ranges) == [(1, 5), (8, 12)]
    assert [offset for offset in range(14) if offset in ranges] == [1, 2, 3, 4, 8, 9, 10, 11]
    assert [ranges.first(offset) for offset in (0, 2, 5, 11, 12)] == [1, 2, 8, 11, None]
    assert ranges.count(2, 9) == 4
    assert list(ranges.gaps(0, 20)) == [(0, 1), (5, 8), (12, 20)]
    assert list(ranges.gaps(2, 9)) == [(5, 8)]


def test_a_hundred_thousand_runs():
    """The limits are far from what it takes (0.3 s and 3 ms), and from what a walk over all runs would take."""
    count = 100_000
    rows = [Run(1, 3 * i, 5 * i, 2) for i in range(count)]
    holes = [Hole(1, 3 * i + 2, 1, "filtered") for i in range(count)]
    began = time.perf_counter()
    mapped = OffsetMap(rows, holes=holes, examined_through=3 * count)
    built_seconds = time.perf_counter() - began
    began = time.perf_counter()
    for offset in range(0, 3 * count, 3001):
        assert mapped.first_copy_at_or_after(offset).offset == 5 * -(-offset // 3) if offset % 3 != 1 else offset // 3 * 5 + 1
        assert mapped.copies_between((0, offset)) == offset // 3 * 2 + min(offset % 3, 2)
    asked_seconds = time.perf_counter() - began
    assert built_seconds < 5
    assert asked_seconds < 0.5


def test_copies_out_of_order_need_one_more_chain_only():
    forward = [(i, i + 10, 1) for i in range(0, 100, 2)]
    late = [(i, 1000 + i, 1) for i in range(1, 100, 10)]
    assert Correspondence(sorted(forward + late)).chain_count == 2
