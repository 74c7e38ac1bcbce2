"""Runs and holes of one assignment in memory."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from operator import attrgetter

from replicator.store.merging import Segment, free_of, hole_segment, merge, run_segment
from replicator.store.port import Hole, Run

_START = attrgetter("start")


class OffsetTable:
    def __init__(self) -> None:
        self._runs: dict[int, list[Segment]] = defaultdict(list)
        self._holes: dict[int, list[Segment]] = defaultdict(list)

    def drop_from(self, epoch: int, first: int) -> None:
        for table in (self._runs, self._holes):
            kept = [segment for segment in table[epoch] if segment.start < first]
            table[epoch] = [segment._replace(end=min(segment.end, first)) for segment in kept]

    def append(self, runs: Sequence[Run], holes: Sequence[Hole]) -> None:
        new_runs: dict[int, list[Segment]] = defaultdict(list)
        new_holes: dict[int, list[Segment]] = defaultdict(list)
        for run in runs:
            new_runs[run.epoch].append(run_segment(run))
        for hole in holes:
            new_holes[hole.epoch].append(hole_segment(hole))
        for table, new in ((self._runs, new_runs), (self._holes, new_holes)):
            for epoch, segments in new.items():
                _merge_into(table[epoch], segments)

    def give_up(self, hole: Hole) -> int:
        """Adds what of the hole no run or hole answers for; returns how many offsets that is."""
        pieces = free_of(hole, self._runs[hole.epoch], self._holes[hole.epoch])
        self.append([], pieces)
        return sum(piece.length for piece in pieces)

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


def _merge_into(stored: list[Segment], new: list[Segment]) -> None:
    """Only the neighbourhood of what is new is looked at: appending stays cheap however long the map is."""
    first = max(0, bisect_left(stored, min(segment.start for segment in new), key=_START) - 1)
    end = max(segment.end for segment in new)
    last = bisect_left(stored, end + 1, key=_START)
    window = stored[first:last]
    change = merge(window, new)
    gone = set(change.removed) | {segment.start for segment in change.written}
    kept = [segment for segment in window if segment.start not in gone]
    stored[first:last] = sorted([*kept, *change.written], key=_START)
