"""How new runs and holes join those already stored. Pure; both stores use it, so both keep the same map.

A segment is ``[start, end)`` with a label: for runs the distance destination - source, for holes the reason. Two segments
that touch and carry one label are one. Saving the same again changes nothing: an answer lost after a commit is saved twice.
Where a new segment covers offsets that a stored one of another label answers for already, the stored answer stays; only a
reason that says no more than that there is no copy gives way to one that says why.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from replicator.core.copies import PRUNED, UNKNOWN
from replicator.store.port import Hole, Run

_WEAK_REASONS = frozenset({UNKNOWN, PRUNED})


class Segment(NamedTuple):
    start: int
    end: int
    label: int | str


class Change(NamedTuple):
    written: list[Segment]
    """New or changed, to be stored under their start."""
    removed: list[int]
    """Starts that are no more, swallowed by a neighbour."""


def run_segment(run: Run) -> Segment:
    return Segment(run.source_start, run.source_start + run.length, run.destination_start - run.source_start)


def hole_segment(hole: Hole) -> Segment:
    return Segment(hole.source_start, hole.source_start + hole.length, hole.reason)


def uncovered(segment: Segment, covering: Sequence[Segment]) -> Iterator[Segment]:
    """What of ``segment`` none of ``covering`` (ascending and disjoint) covers, in pieces."""
    position = segment.start
    index = max(0, bisect_right(covering, segment.start, key=attrgetter("start")) - 1)
    while index < len(covering) and covering[index].start < segment.end:
        other = covering[index]
        if other.start > position:
            yield Segment(position, other.start, segment.label)
        position = max(position, other.end)
        index += 1
    if position < segment.end:
        yield Segment(position, segment.end, segment.label)


def free_of(hole: Hole, runs: Sequence[Segment], holes: Sequence[Segment]) -> list[Hole]:
    """What of ``hole`` neither a run nor a hole of its epoch answers for."""
    pieces = [piece for rest in uncovered(hole_segment(hole), runs) for piece in uncovered(rest, holes)]
    return [Hole(hole.epoch, piece.start, piece.end - piece.start, hole.reason) for piece in pieces]


def _join(segments: Sequence[Segment]) -> list[Segment]:
    joined: list[Segment] = []
    for segment in segments:
        if joined and joined[-1].end == segment.start and joined[-1].label == segment.label:
            joined[-1] = joined[-1]._replace(end=segment.end)
        else:
            joined.append(segment)
    return joined


def _left_by(new: Sequence[Segment], stored: Segment) -> Sequence[Segment]:
    if stored.label not in _WEAK_REASONS:
        return (stored,)
    telling = sorted(segment for segment in new if segment.label not in _WEAK_REASONS)
    return list(uncovered(stored, telling))


def merge(stored: Sequence[Segment], new: Sequence[Segment]) -> Change:
    """``stored``: ascending and disjoint, at least every segment that overlaps or touches one of ``new``."""
    current = [piece for segment in stored for piece in _left_by(new, segment)]
    # The usual case in one pass; segments that overlap each other need the earlier ones in place first.
    disjoint = all(a.end <= b.start for a, b in pairwise(new))
    for group in [new] if disjoint else [[segment] for segment in new]:
        pieces = [piece for segment in group for piece in uncovered(segment, current)]
        current = _join(sorted([*current, *pieces], key=attrgetter("start")))
    before, after = set(stored), set(current)
    starts = {segment.start for segment in current}
    return Change(
        [segment for segment in current if segment not in before],
        [segment.start for segment in stored if segment not in after and segment.start not in starts],
    )
