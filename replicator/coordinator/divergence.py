"""From which offset on a source queue is another than the one that was copied: found by comparing its records with their copies.

Two histories of a queue share a beginning, so the last copy whose original still stands where its stamp says is found by halving.
Records without a copy cannot be compared: from the last such copy on, the histories count as different.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import structlog

from replicator.coordinator.atlas import Atlas
from replicator.coordinator.connections import Connections, Link
from replicator.coordinator.declared import Declared
from replicator.coordinator.parked import read_record
from replicator.core.correspondence import Segment
from replicator.core.errors import ReplicatorError
from replicator.core.offset_map import OffsetMap
from replicator.core.record import OffsetRange, Record, RecordIdentity
from replicator.core.stamp import find_stamp
from replicator.store.port import Assignment, StoreUnavailable

log = structlog.get_logger(__name__)

NEVER_COPIED = frozenset({"filtered", "loop", "expired", "history"})
"""Reasons of the map that leave no doubt. What was *refused* may have been sent by hand since, which no map knows of, and a map that was
rebuilt does not know why a copy is not there."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where the history that a source queue has now parts from the one that was copied."""

    offset: int
    """The lowest that is not shown to hold the record it held before."""
    new_from: int
    """Not below ``offset``: what the queue holds from here on was shown to be no record that was copied before. At the most where
    reading ended, or the queue does."""


async def find_divergence(
    atlas: Atlas, connections: Connections, known: Declared, one: Assignment, bounds: OffsetRange, position: int
) -> Divergence:
    """``bounds``: of the source queue now, ``position``: read through before. Where nothing can be compared, that is the queue's
    first offset: what stands above it is then taken for new."""
    if position < bounds.min_offset:
        return Divergence(bounds.min_offset, bounds.min_offset)
    end = min(position, bounds.max_offset)
    try:
        source = await connections.get(known.cluster(one.source), at_once=True)
        if await _is_unchanged(source, one, bounds, position):
            return Divergence(position, position)
        destination = await connections.get(known.cluster(one.destination), at_once=True)
        kept = await destination.ask(destination.connector.offset_range(one.destination_queue))
        offset_map = await atlas.offset_map(one.assignment_id)
        comparable = (cut(copy, bounds.min_offset, end, kept) for copy in offset_map.lowest_copies())
        copies = Copies(source, destination, one, sorted(c for c in comparable if c.length > 0))
        offset = await _differs_from(copies, bounds)
        return Divergence(offset, max(offset, _doubtful_end(offset_map, end, kept)))
    except StoreUnavailable:
        raise
    except ReplicatorError as error:
        log.warning("copies cannot be compared with the source", queue=str(one.source_queue), error=str(error))
        return Divergence(bounds.min_offset, end)


def _doubtful_end(offset_map: OffsetMap, end: int, kept: OffsetRange) -> int:
    """One past the last offset below ``end`` of which it is not known whether its record was copied, or whose copy is not ``kept`` for
    the search to find that its original is gone."""
    ends = [offset_map.start_offset, offset_map.pruned_below]
    ends += (last for first, last in offset_map.unlisted() if first < end)
    ends += (last for first, last, reason in offset_map.holes() if first < end and reason not in NEVER_COPIED)
    # A history before the last one may have come back, from a backup, whose messages were copied too.
    ends += (ghosts.source + ghosts.length for ghosts in offset_map.ghosts() if ghosts.source < end)
    for copies in offset_map.lowest_copies():
        not_kept = min(copies.length, kept.min_offset - copies.right)
        if copies.left < end and not_kept > 0:
            ends.append(copies.left + not_kept)
        if copies.left < end and copies.right + copies.length > kept.max_offset:
            ends.append(copies.left + copies.length)
    return min(end, max(ends))


async def _is_unchanged(source: Link, one: Assignment, bounds: OffsetRange, position: int) -> bool:
    """The last record that was examined is still there, and so is everything before it. Who reads again what lies below proves less."""
    identity = one.checkpoint.identity if one.checkpoint is not None and one.checkpoint.examined_through == position else None
    if identity is None or not bounds.min_offset <= identity.queue_offset < bounds.max_offset:
        return False
    found = await read_record(source, one.source_queue, identity.queue_offset)
    return RecordIdentity(found.queue_offset, found.store_timestamp_ms, found.commit_log_offset, found.body_crc) == identity


def cut(copies: Segment, first: int, end: int | None, kept: OffsetRange) -> Segment:
    """What of it lies in ``[first, end)`` of the source, or from ``first`` on, and is kept in the destination."""
    skipped = max(0, first - copies.left, kept.min_offset - copies.right)
    length = min(copies.length, kept.max_offset - copies.right) - skipped
    if end is not None:
        length = min(length, end - copies.left - skipped)
    return Segment(copies.left + skipped, copies.right + skipped, length)


class Copies:
    """Copies of one history of a source queue by number, in source order, to be compared with what the source has now."""

    def __init__(self, source: Link, destination: Link, assignment: Assignment, segments: list[Segment]) -> None:
        self._source = source
        self._destination = destination
        self._assignment = assignment
        self._segments = segments
        self._numbers = [0, *accumulate(segment.length for segment in segments)]

    def __len__(self) -> int:
        return self._numbers[-1]

    def offsets(self, number: int) -> tuple[int, int]:
        index = bisect_right(self._numbers, number) - 1
        segment = self._segments[index]
        return segment.left + number - self._numbers[index], segment.right + number - self._numbers[index]

    def after(self, number: int) -> Iterator[Segment]:
        """Those from ``number`` on."""
        for segment, first in zip(self._segments, self._numbers, strict=False):
            skipped = max(0, number - first)
            if skipped < segment.length:
                yield Segment(segment.left + skipped, segment.right + skipped, segment.length - skipped)

    async def count_same(self, bounds: OffsetRange) -> int:
        """How many of them, the first ones, still have their original where their stamps say, found by halving. ``bounds``: of the source
        queue. Raises ``Missing`` where a record expired meanwhile."""
        same, end = 0, len(self)
        while same < end:
            middle = (same + end) // 2
            if await self._is_same(middle, bounds):
                same = middle + 1
            else:
                end = middle
        return same

    async def _is_same(self, number: int, bounds: OffsetRange) -> bool:
        source_offset, destination_offset = self.offsets(number)
        if source_offset >= bounds.max_offset:
            return False
        original = await read_record(self._source, self._assignment.source_queue, source_offset)
        copy = await read_record(self._destination, self._assignment.destination_queue, destination_offset)
        return self._is_copy(original, copy)

    def _is_copy(self, original: Record, copy: Record) -> bool:
        stamp = find_stamp(copy.properties)
        return (
            stamp is not None
            and (stamp.hop.place.queue, stamp.hop.offset) == (self._assignment.source_queue, original.queue_offset)
            and stamp.hop.store_timestamp_ms == original.store_timestamp_ms
            and copy.body == original.body
        )


async def _differs_from(copies: Copies, bounds: OffsetRange) -> int:
    same = await copies.count_same(bounds)
    return copies.offsets(same - 1)[0] + 1 if same else bounds.min_offset
