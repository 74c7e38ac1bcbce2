"""The exact offset map of one assignment: where each message of a source queue stands in the destination queue, and back.

An answer is the offset, the reason there is none, or that it is not known yet; never an estimate. Invariants:

1. A source offset is answered by the newest epoch whose divergence offset it reaches; older epochs answer below that, and
   their copies above it are *ghosts*: messages the source lost.
2. Of several copies of one message the lowest counts for translation; the others are *second copies*.
3. A *restoring* epoch begins below its divergence offset: what it copies from there up to the divergence offset belongs to the
   histories before it, which answer on. Those are messages that the destination had lost, sent back to it.
4. A destination offset holds the copy of one message at most: a map that says otherwise raises ``ContradictoryMap``.
5. Offsets below ``examined_through`` that neither a run nor a hole lists are *unlisted*: nothing is concluded over them.
6. A copy the map does not list yet stands at or above ``known_through`` of the destination queue.

Built at once from what the store holds, then only read. Each question costs a few bisects.
"""

from __future__ import annotations

import copy
import heapq
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

from replicator.core.correspondence import OFFSET_MAX, Correspondence, Intervals, Segment
from replicator.core.errors import Refused

GHOST, RESTORED = "ghost", "restored"
BEFORE_START, PRUNED, HISTORY, UNKNOWN_EPOCH, FOREIGN = "before-start", "pruned", "history", "unknown-epoch", "not-a-copy"


class ContradictoryMap(Refused):
    """Two statements of the map, or of two maps of one queue, cannot both be true."""


class RunRow(Protocol):
    @property
    def epoch(self) -> int: ...
    @property
    def source_start(self) -> int: ...
    @property
    def destination_start(self) -> int: ...
    @property
    def length(self) -> int: ...


class HoleRow(Protocol):
    @property
    def epoch(self) -> int: ...
    @property
    def source_start(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def reason(self) -> str: ...


class DuplicateRow(Protocol):
    @property
    def epoch(self) -> int: ...
    @property
    def source_offset(self) -> int: ...
    @property
    def destination_offset(self) -> int: ...
    @property
    def kind(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Epoch:
    """One history of the source queue. ``divergence_offset``: the first offset at which it differs from the epoch before; of no
    meaning for the first. ``start_offset``: where reading began; what lies between the two was given up (``history``), or, where
    reading began below the divergence, is read again for what the destination has lost."""

    number: int
    divergence_offset: int = 0
    start_offset: int | None = None

    @property
    def restored_through(self) -> int:
        """The source offset up to which it only restores; 0 where it does not."""
        return self.divergence_offset if self.start_offset is not None and self.start_offset < self.divergence_offset else 0


@dataclass(frozen=True, slots=True)
class Found:
    """The offset asked for. ``epoch`` is that of the source message; ``ghost``: the source has lost it."""

    offset: int
    epoch: int
    ghost: bool = False


@dataclass(frozen=True, slots=True)
class Absent:
    """There is none, and why: the reason of a hole, or before-start, pruned, history, unknown-epoch, not-a-copy."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotYet:
    """Not decided, or not known to this map yet. ``at_or_above``: a copy that comes stands there or later; for ``to_source``,
    the offset from which on destination offsets are not known."""

    at_or_above: int


@dataclass(frozen=True, slots=True)
class Unlisted:
    """The map has forgotten: offsets from ``source_offset`` on are to be learned again from the destination's log."""

    source_offset: int


class SecondCopies(NamedTuple):
    """``source + i`` stands once more at ``destination + i``; its lowest copy is ``lowest + i``."""

    source: int
    destination: int
    lowest: int
    length: int


class Ghosts(NamedTuple):
    """As ``SecondCopies``, of messages that the source has lost; the lowest copies are among them."""

    epoch: int
    source: int
    destination: int
    length: int
    lowest: int


class _Lost(NamedTuple):
    """Copies of messages that the source has lost, before those of one message are put together."""

    epoch: int
    copies: Segment


class _Histories:
    """Which epoch answers for which source offsets, as of each epoch."""

    def __init__(self, epochs: Sequence[Epoch]) -> None:
        numbers = [epoch.number for epoch in epochs]
        if numbers != sorted(set(numbers)):
            raise ContradictoryMap(f"epochs {numbers} do not ascend")
        self.newest = numbers[-1]
        self._views: dict[int, tuple[list[int], list[int]]] = {}
        starts: list[int] = []
        answering: list[int] = []
        for epoch in epochs:
            divergence = epoch.divergence_offset if starts else 0
            while starts and starts[-1] >= divergence:
                starts.pop()
                answering.pop()
            starts.append(divergence)
            answering.append(epoch.number)
            self._views[epoch.number] = (list(starts), list(answering))

    def __contains__(self, epoch: int) -> bool:
        return epoch in self._views

    def answering(self, as_of: int, offset: int) -> int:
        starts, numbers = self._views[as_of]
        return numbers[max(0, bisect_right(starts, offset) - 1)]

    def cut(self, as_of: int, start: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(epoch that answers, start, length) for the parts of ``[start, start + length)``."""
        starts, numbers = self._views[as_of]
        index = max(0, bisect_right(starts, start) - 1)
        end = start + length
        while start < end:
            stop = min(end, starts[index + 1]) if index + 1 < len(starts) else end
            yield numbers[index], start, stop - start
            start, index = stop, index + 1

    def place(self, epoch: int, start: int, length: int) -> Iterator[tuple[int, bool, int, int]]:
        """(epoch a message belongs to, is it of the present history, start, length) for what was read in ``epoch``."""
        for owner, part, count in self.cut(epoch, start, length):
            for present, piece, size in self.cut(self.newest, part, count):
                yield owner, present == owner, piece, size

    def present(self) -> Iterator[tuple[int, int, int]]:
        """(epoch, start, end) of the present history, ascending."""
        yield from ((epoch, start, start + length) for epoch, start, length in self.cut(self.newest, 0, OFFSET_MAX))


class _Holes:
    def __init__(self, rows: Iterable[tuple[int, int, str]]) -> None:
        """``rows``: (start, end, reason), ascending; where two overlap the first answers."""
        self.starts, self.ends, self._codes = array("q"), array("q"), array("h")
        self._reasons: list[str] = []
        codes: dict[str, int] = {}
        for start, end, reason in rows:
            if self.ends and start < self.ends[-1]:
                start = self.ends[-1]
            if start < end:
                if reason not in codes:
                    codes[reason] = len(self._reasons)
                    self._reasons.append(reason)
                self.starts.append(start)
                self.ends.append(end)
                self._codes.append(codes[reason])

    def reason(self, offset: int) -> str | None:
        index = bisect_right(self.starts, offset) - 1
        return self._reasons[self._codes[index]] if index >= 0 and offset < self.ends[index] else None

    def __iter__(self) -> Iterator[tuple[int, int, str]]:
        return ((self.starts[i], self.ends[i], self._reasons[self._codes[i]]) for i in range(len(self.starts)))


_HoleRead = tuple[int, int, int, str]
"""(epoch it was read in, start, end, reason)"""


def _last_read(rows: Sequence[_HoleRead]) -> list[tuple[int, int, str]]:
    """Disjoint and ascending. A message read again after a change of history may be left out for another reason: the last counts."""
    answering: list[tuple[int, int, str]] = []
    for epoch in sorted({row[0] for row in rows}, reverse=True):
        answered = Intervals((start, end) for start, end, _ in answering)
        for _, start, end, reason in (row for row in rows if row[0] == epoch):
            answering.extend((first, last, reason) for first, last in answered.gaps(start, end))
        answering.sort()
    return answering


def _sweep(segments: Sequence[Segment]) -> Iterator[tuple[int, int, list[int]]]:
    """(left, length, every right offset of it ascending) for segments ascending by left that may overlap."""
    active: list[Segment] = []
    index = position = 0
    while index < len(segments) or active:
        if not active:
            position = segments[index].left
        while index < len(segments) and segments[index].left == position:
            active.append(segments[index])
            index += 1
        stop = min(segment.left + segment.length for segment in active)
        if index < len(segments):
            stop = min(stop, segments[index].left)
        yield position, stop - position, sorted({segment.right + position - segment.left for segment in active})
        position = stop
        active = [segment for segment in active if segment.left + segment.length > position]


class OffsetMap:
    """See the module. ``examined_through``, ``scanned_through``: of the checkpoint saved together with the newest of the runs."""

    def __init__(
        self,
        runs: Iterable[RunRow],
        *,
        examined_through: int,
        holes: Iterable[HoleRow] = (),
        duplicates: Iterable[DuplicateRow] = (),
        epochs: Sequence[Epoch] = (Epoch(1),),
        start_offset: int = 0,
        pruned_below: int = 0,
        scanned_through: int = 0,
        relearn_from: int | None = None,
    ) -> None:
        """``start_offset``: of the assignment, nothing below it was to be copied. ``pruned_below``: the rows below it were dropped
        (both logs have expired them). ``relearn_from``: copies that the store has forgotten and is to learn again stand at or above
        this destination offset. Raises ``ContradictoryMap``."""
        self.epochs = tuple(epochs)
        self.examined_through = examined_through
        self.start_offset = start_offset
        self.pruned_below = pruned_below
        self._histories = _Histories(self.epochs)
        self._restored_through = {epoch.number: epoch.restored_through for epoch in self.epochs if epoch.restored_through}
        self._restored: list[tuple[int, int]] = []
        live, ghosts = self._place_runs(runs)
        self._runs_end = max(
            max((s.right + s.length for s in live), default=0), max((g.copies.right + g.copies.length for g in ghosts), default=0)
        )
        self._relearn_from = OFFSET_MAX if relearn_from is None else relearn_from
        self.known_through = min(max(scanned_through, self._runs_end), self._relearn_from)
        self._place_duplicates(duplicates, live, ghosts)
        self.restored = Intervals(sorted(self._restored))
        """Source offsets of messages that were sent back to the destination, which had lost them."""
        self._order_copies(live, ghosts)
        self._order_holes(holes)
        self._unlisted = Intervals(self._find_unlisted(live))

    def _place_runs(self, runs: Iterable[RunRow]) -> tuple[list[Segment], list[_Lost]]:
        live: list[Segment] = []
        ghosts: list[_Lost] = []
        if len(self.epochs) == 1:
            only = self.epochs[0].number
            for run in runs:
                if run.epoch != only:
                    raise ContradictoryMap(f"a run of epoch {run.epoch}, which is not declared")
                live.append(Segment(run.source_start, run.destination_start, run.length))
            return live, ghosts
        for run in runs:
            self._place(run.epoch, Segment(run.source_start, run.destination_start, run.length), live, ghosts)
        return live, ghosts

    def _place(self, epoch: int, copies: Segment, live: list[Segment], ghosts: list[_Lost], *, is_ghost: bool = False) -> None:
        if epoch not in self._histories:
            raise ContradictoryMap(f"copies of epoch {epoch}, which is not declared")
        restored_end = min(copies.left + copies.length, self._restored_through.get(epoch, 0))
        if copies.left < restored_end:
            self._restored.append((copies.left, restored_end))
        for owner, is_present, start, length in self._histories.place(epoch, copies.left, copies.length):
            destination = copies.right + start - copies.left
            if is_present and not is_ghost:
                live.append(Segment(start, destination, length))
            else:
                ghosts.append(_Lost(owner, Segment(start, destination, length)))

    def _place_duplicates(self, duplicates: Iterable[DuplicateRow], live: list[Segment], ghosts: list[_Lost]) -> None:
        for one in duplicates:
            copy = Segment(one.source_offset, one.destination_offset, 1)
            if one.kind == RESTORED:
                self._restored.append((one.source_offset, one.source_offset + 1))
            self._place(one.epoch, copy, live, ghosts, is_ghost=one.kind == GHOST)

    def _order_copies(self, live: list[Segment], ghosts: list[_Lost]) -> None:
        live.sort()
        seconds: list[SecondCopies] = []
        if any(a[0] + a[2] > b[0] for a, b in pairwise(live)):
            lowest: list[Segment] = []
            for source, length, destinations in _sweep(live):
                lowest.append(Segment(source, destinations[0], length))
                seconds.extend(SecondCopies(source, destination, destinations[0], length) for destination in destinations[1:])
            live[:] = lowest
        self._lowest = Correspondence(live)
        self._second_copies = tuple(sorted(seconds))
        self._seconds = Correspondence((one.source, one.destination, one.length) for one in self._second_copies)
        by_epoch: dict[int, list[Segment]] = {}
        for ghost in sorted(ghosts):
            by_epoch.setdefault(ghost.epoch, []).append(ghost.copies)
        self._ghost_copies = tuple(
            Ghosts(epoch, source, destination, length, destinations[0])
            for epoch, segments in by_epoch.items()
            for source, length, destinations in _sweep(segments) for destination in destinations
        )  # fmt: skip
        self._ghosts: dict[int, Correspondence] = {
            epoch: Correspondence((one.source, one.destination, one.length) for one in self._ghost_copies if one.epoch == epoch)
            for epoch in by_epoch
        }
        _refuse_overlaps((self._lowest, self._seconds, *self._ghosts.values()))

    def _order_holes(self, holes: Iterable[HoleRow]) -> None:
        live: list[_HoleRead] = []
        past: dict[int, list[_HoleRead]] = {}
        for hole in holes:
            if hole.epoch not in self._histories:
                raise ContradictoryMap(f"a hole of epoch {hole.epoch}, which is not declared")
            for owner, is_present, start, length in self._histories.place(hole.epoch, hole.source_start, hole.length):
                rows = live if is_present else past.setdefault(owner, [])
                rows.append((hole.epoch, start, start + length, hole.reason))
        self._holes = _Holes(_last_read(live))
        self._past_holes = {epoch: _Holes(_last_read(rows)) for epoch, rows in past.items()}

    def _find_unlisted(self, live: Sequence[Segment]) -> Iterator[tuple[int, int]]:
        copied = ((segment.left, segment.left + segment.length) for segment in live)
        listed = Intervals(heapq.merge(copied, zip(self._holes.starts, self._holes.ends, strict=True)))
        lowest = max(self.start_offset, self.pruned_below)
        ranges = [(max(self._reading_began(self._histories.newest), lowest), self.examined_through)]
        for epoch, start, end in self._histories.present():
            if epoch != self._histories.newest:
                # An epoch that has ended says nothing about what lies above the last offset it lists: that was never examined.
                index = bisect_right(listed.starts, end - 1) - 1
                last = min(end, listed.ends[index]) if index >= 0 else start
                ranges.append((max(start, self._reading_began(epoch), lowest), last))
        for first, last in Intervals(sorted(ranges)):
            yield from listed.gaps(first, last)

    def _reading_began(self, epoch: int) -> int:
        for index, one in enumerate(self.epochs):
            if one.number == epoch and one.start_offset is not None:
                return one.start_offset
            if one.number == epoch and index:
                return one.divergence_offset
        return 0

    def scanned(self, through: int) -> OffsetMap:
        """The same map with another ``scanned_through``."""
        later = copy.copy(self)
        later.known_through = min(max(through, self._runs_end), self._relearn_from)
        return later

    @property
    def copies_end(self) -> int:
        """One past the destination offset of the last copy of the present history, 0 where there is none."""
        return self._lowest.right_end

    def to_destination(self, source_offset: int, epoch: int | None = None) -> Found | Absent | NotYet | Unlisted:
        """Where the message at ``source_offset`` stands, as the source's present history has it, or the one of ``epoch``."""
        newest = self._histories.newest
        as_of = newest if epoch is None else epoch
        if as_of not in self._histories:
            return Absent(UNKNOWN_EPOCH)
        owner = self._histories.answering(as_of, source_offset)
        if owner != self._histories.answering(newest, source_offset):
            return self._to_ghost(owner, source_offset)
        found = self._lowest.right_of(source_offset)
        if found is not None:
            return Found(found, owner)
        reason = self._holes.reason(source_offset)
        if reason is not None:
            return Absent(reason)
        if source_offset < self.pruned_below:
            return Absent(PRUNED)
        if source_offset < self.start_offset:
            return Absent(BEFORE_START)
        if source_offset in self._unlisted:
            return Unlisted(source_offset)
        if source_offset >= max(self.examined_through, self._reading_began(newest)):
            return NotYet(self.known_through)
        return Absent(HISTORY)

    def _to_ghost(self, epoch: int, source_offset: int) -> Found | Absent:
        found = self._ghosts[epoch].right_of(source_offset) if epoch in self._ghosts else None
        if found is not None:
            return Found(found, epoch, ghost=True)
        reason = self._past_holes[epoch].reason(source_offset) if epoch in self._past_holes else None
        return Absent(reason or HISTORY)

    def to_source(self, destination_offset: int) -> Found | Absent | NotYet:
        """Which message the record at ``destination_offset`` is a copy of; second copies and ghosts answer too."""
        for copies in (self._lowest, self._seconds):
            found = copies.left_of(destination_offset)
            if found is not None:
                return Found(found, self._histories.answering(self._histories.newest, found))
        for epoch, copies in self._ghosts.items():
            found = copies.left_of(destination_offset)
            if found is not None:
                return Found(found, epoch, ghost=True)
        return Absent(FOREIGN) if destination_offset < self.known_through else NotYet(self.known_through)

    def first_copy_at_or_after(self, source_offset: int) -> Found | NotYet | Unlisted:
        """The least destination offset of a copy of a message at or after ``source_offset`` of the present history."""
        unlisted = self._unlisted.first(source_offset)
        if unlisted is not None:
            return Unlisted(unlisted)
        found = self._lowest.lowest_right(source_offset)
        if found is None:
            return NotYet(self.known_through)
        source = self._lowest.left_of(found)
        assert source is not None, "the map found this copy itself"
        return Found(found, self._histories.answering(self._histories.newest, source))

    def copies_between(self, source: tuple[int, int], destination: tuple[int, int] = (0, OFFSET_MAX), *, distinct: bool = False) -> int:
        """How many copies of messages in the half-open range ``source`` stand in ``destination``; ``distinct``: without second
        copies, which is the number of messages where ``destination`` is everything. Ghosts never count."""
        count = self._lowest.count(source, destination)
        return count if distinct else count + self._seconds.count(source, destination)

    def unlisted_between(self, source_start: int, source_end: int) -> int:
        return self._unlisted.count(source_start, source_end)

    def unlisted(self) -> Iterator[tuple[int, int]]:
        """(start, end) in the present history, ascending."""
        return iter(self._unlisted)

    def lowest_copies(self) -> Iterator[Segment]:
        """(source, destination, length), the copy that counts of each message of the present history."""
        return self._lowest.segments()

    def second_copies(self) -> Sequence[SecondCopies]:
        return self._second_copies

    def ghosts(self) -> Sequence[Ghosts]:
        return self._ghost_copies

    def holes(self) -> Iterator[tuple[int, int, str]]:
        """(start, end, reason) in the present history, ascending."""
        return iter(self._holes)


def _refuse_overlaps(groups: Sequence[Correspondence]) -> None:
    if sum(copies.chain_count for copies in groups) <= 1:
        return  # One chain ascends on both sides.
    ranges = sorted((segment.right, segment.right + segment.length) for copies in groups for segment in copies.segments())
    for (_, end), (start, _) in pairwise(ranges):
        if start < end:
            raise ContradictoryMap(
                f"the record at destination offset {start} would be a copy of two messages",
                hint="replicator rebuild makes the map anew from the destination's log",
            )
