"""The offset map of one assignment in memory, and reading it."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter

from replicator.core.copies import UNKNOWN
from replicator.core.map_rows import HoleColumns, Place, RunColumns
from replicator.core.offset_map import Epoch
from replicator.core.stamping import Restoration
from replicator.store.merging import Segment, free_of, hole_segment, merge, run_segment
from replicator.store.port import Duplicate, Hole, KnownRows, Run

_START = attrgetter("start")


class OffsetTable:
    def __init__(self) -> None:
        self._runs: dict[int, list[Segment]] = defaultdict(list)
        self._holes: dict[int, list[Segment]] = defaultdict(list)
        self.duplicates: set[Duplicate] = set()
        self.epochs: list[Epoch] = [Epoch(1)]
        self.restorations: dict[int, Restoration] = {}
        self.version = 0
        self.rewritten = 0
        self.staged: OffsetTable | None = None
        """The map that is being made anew."""

    def note_rewritten(self) -> None:
        self.version += 1
        self.rewritten = self.version

    def begin_epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        self.note_rewritten()

    def learn_epochs(self, found: Sequence[Epoch]) -> None:
        new = [one for one in found if all(one.number != known.number for known in self.epochs)]
        if new:
            self.epochs = sorted([*self.epochs, *new], key=attrgetter("number"))
            self.note_rewritten()

    def replace_by_staged(self, epochs: Sequence[Epoch], unknown_below: Mapping[int, int]) -> None:
        staged = self.staged or OffsetTable()
        for epoch, below in unknown_below.items():
            for one, other in pairwise(staged._runs[epoch]):
                end = min(other.start, below)
                if one.end < end:
                    staged.append([], [Hole(epoch, one.end, end - one.end, UNKNOWN)])
        self._runs, self._holes, self.duplicates = staged._runs, staged._holes, staged.duplicates
        self.epochs, self.staged = list(epochs), None
        self.note_rewritten()

    def add_duplicates(self, duplicates: Sequence[Duplicate]) -> None:
        if duplicates:
            self.duplicates.update(duplicates)
            self.version += 1

    def drop_from(self, epoch: int, first: int) -> None:
        for table in (self._runs, self._holes):
            kept = [segment for segment in table[epoch] if segment.start < first]
            table[epoch] = [segment._replace(end=min(segment.end, first)) for segment in kept]
        self.note_rewritten()

    def append(self, runs: Sequence[Run], holes: Sequence[Hole]) -> None:
        new_runs: dict[int, list[Segment]] = defaultdict(list)
        new_holes: dict[int, list[Segment]] = defaultdict(list)
        for run in runs:
            new_runs[run.epoch].append(run_segment(run))
        for hole in holes:
            new_holes[hole.epoch].append(hole_segment(hole))
        changed: list[tuple[Place, Place]] = []
        for table, new in ((self._runs, new_runs), (self._holes, new_holes)):
            last = _last(table)
            for epoch, segments in new.items():
                changed += [((epoch, start), last) for start in _merge_into(table[epoch], segments)]
        if any(place < last for place, last in changed):
            self.note_rewritten()
        elif changed:
            self.version += 1

    def give_up(self, hole: Hole) -> int:
        """Adds what of the hole no run or hole answers for; returns how many offsets that is."""
        pieces = free_of(hole, self._runs[hole.epoch], self._holes[hole.epoch])
        self.append([], pieces)
        return sum(piece.length for piece in pieces)

    def columns(self, known: KnownRows | None) -> tuple[RunColumns, HoleColumns]:
        reasons = sorted({str(segment.label) for segments in self._holes.values() for segment in segments})
        runs = [
            (epoch, one.start, one.start + int(one.label), one.end - one.start)
            for epoch, one in _from(self._runs, known.last_run if known else None)
        ]
        holes = [
            (epoch, one.start, one.end - one.start, reasons.index(str(one.label)))
            for epoch, one in _from(self._holes, known.last_hole if known else None)
        ]
        return RunColumns(*zip(*runs, strict=True)), HoleColumns(reasons, *zip(*holes, strict=True))

    def _all_runs(self, epoch: int | None) -> list[Run]:
        found = [
            Run(number, segment.start, segment.start + int(segment.label), segment.end - segment.start)
            for number, segments in self._runs.items() if epoch in (None, number)
            for segment in segments
        ]
        return sorted(found, key=lambda run: (run.source_start, run.epoch))

    def runs(self, epoch: int | None, around_source: int | None, around_destination: int | None, limit: int) -> list[Run]:
        found = self._all_runs(epoch)
        for name, offset in (("source_start", around_source), ("destination_start", around_destination)):
            if offset is not None:
                begin = max((getattr(run, name) for run in found if getattr(run, name) <= offset), default=offset)
                found = [run for run in found if getattr(run, name) >= begin]
                # The limit keeps the nearest of the side that was asked for.
                found.sort(key=lambda run: (getattr(run, name), run.source_start, run.epoch))  # noqa: B023 - used at once
        return sorted(found[:limit], key=lambda run: (run.source_start, run.epoch))

    def last_runs(self, limit: int) -> list[Run]:
        return sorted(self._all_runs(None), key=lambda run: (run.epoch, run.source_start), reverse=True)[:limit]

    def holes(self, around_source: int | None, limit: int) -> list[Hole]:
        found = [
            Hole(epoch, segment.start, segment.end - segment.start, str(segment.label))
            for epoch, segments in self._holes.items() for segment in segments
        ]
        found.sort(key=lambda hole: (hole.source_start, hole.epoch))
        if around_source is not None:
            begin = max((hole.source_start for hole in found if hole.source_start <= around_source), default=around_source)
            found = [hole for hole in found if hole.source_start >= begin]
        return found[:limit]


def _last(table: dict[int, list[Segment]]) -> Place:
    epoch = max((number for number, segments in table.items() if segments), default=0)
    return (epoch, table[epoch][-1].start) if epoch else (0, 0)


def _from(table: dict[int, list[Segment]], first: Place | None) -> Iterator[tuple[int, Segment]]:
    for epoch in sorted(table):
        begin = bisect_left(table[epoch], first[1], key=_START) if first is not None and epoch == first[0] else 0
        if first is None or epoch >= first[0]:
            yield from ((epoch, segment) for segment in table[epoch][begin:])


def _merge_into(stored: list[Segment], new: list[Segment]) -> set[int]:
    """Returns the starts of what changed. Only the neighbourhood of what is new is looked at: appending stays cheap however long
    the map is."""
    first = max(0, bisect_left(stored, min(segment.start for segment in new), key=_START) - 1)
    end = max(segment.end for segment in new)
    last = bisect_left(stored, end + 1, key=_START)
    window = stored[first:last]
    change = merge(window, new)
    gone = set(change.removed) | {segment.start for segment in change.written}
    kept = [segment for segment in window if segment.start not in gone]
    stored[first:last] = sorted([*kept, *change.written], key=_START)
    return gone
