"""Copies in a destination's log, recognised by their stamps alone, and what they say of a source queue together. Pure.

Copies of one history of a source queue stand in source order, and a later history comes after an earlier one. So whatever
is not above everything found before it is a second copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from replicator.core.map_rows import RunTuple
from replicator.core.record import RecordBatch
from replicator.core.stamp import STAMP_NAME, VARYING_FIELDS, Place, parse_stamp, stamp_value

PREFIXES_MAX = 1024
"""Assignments into one queue that are remembered by the constant part of their stamps; there are a handful."""
UNKNOWN, PRUNED = "unknown", "pruned"
"""Reasons of offsets without a copy: nobody can say any more why; the copy, if there was one, has expired in the destination."""


class Upstream(NamedTuple):
    """One history of one source queue."""

    source: Place
    epoch: int


class FoundCopy(NamedTuple):
    upstream: Upstream
    source_offset: int
    destination_offset: int
    store_timestamp_ms: int
    """Of the message, on the source."""
    is_restored: bool = False
    """A message of the destination's own that it had lost and got back: nothing of the source's position can be told from it."""


class CopyFilter:
    """Finds the copies that were put into one queue. A stamp that names another place came along with a re-published record."""

    def __init__(self, put: Place) -> None:
        self._put = put
        self._born_here = put.cluster_id.encode() + b","
        self._upstreams: dict[bytes, Upstream | None] = {}

    def find(self, batch: RecordBatch) -> Iterator[FoundCopy]:
        """In queue order. Raises ``NewerStamp``."""
        for index, packed in enumerate(batch.properties):
            if STAMP_NAME not in packed:
                continue
            value = stamp_value(packed)
            if value is None:
                continue
            # Only the last fields differ from copy to copy of one assignment: what the others mean is worked out once.
            fields = value.rsplit(b";", VARYING_FIELDS)
            upstream = self._upstreams[fields[0]] if fields[0] in self._upstreams else self._learn(fields[0], value)
            if upstream is None:
                continue
            try:
                is_restored = fields[3].startswith(self._born_here)
                yield FoundCopy(upstream, int(fields[1], 16), batch.offsets[index], int(fields[2], 16), is_restored)
            except ValueError:
                continue  # Damaged, or somebody else's property: not one of ours.

    def _learn(self, prefix: bytes, value: bytes) -> Upstream | None:
        stamp = parse_stamp(value)
        if stamp is None:
            return None  # Of this one record only: another of the prefix may be whole.
        upstream = Upstream(stamp.hop.place, stamp.hop.epoch) if stamp.put == self._put else None
        if len(self._upstreams) < PREFIXES_MAX:
            self._upstreams[prefix] = upstream
        return upstream


@dataclass(slots=True)
class EpochSeen:
    """What the copies of one history came to."""

    number: int
    first_offset: int
    """On the source, of the first copy."""
    last_offset: int = -1
    last_destination_offset: int = -1
    last_store_timestamp_ms: int = 0
    copies: int = 0


@dataclass(slots=True)
class Gathered:
    """The copies of one source queue in one destination queue, added in queue order. ``runs`` and ``duplicates`` are taken out with
    ``take``, so that memory does not grow with the log."""

    epochs: list[EpochSeen] = field(default_factory=list)
    runs: list[RunTuple] = field(default_factory=list)
    duplicates: list[tuple[int, int, int]] = field(default_factory=list)
    """(epoch, source offset, destination offset)"""
    restored: list[tuple[int, int, int]] = field(default_factory=list)
    """Likewise."""
    last_restored: tuple[int, int] = (0, -1)
    """(epoch that sent it back, source offset) of the last one; offset -1 where there is none."""
    runs_total: int = 0
    duplicates_total: int = 0

    @property
    def newest(self) -> EpochSeen | None:
        return self.epochs[-1] if self.epochs else None

    @property
    def copies_total(self) -> int:
        return sum(one.copies for one in self.epochs)

    def __len__(self) -> int:
        return len(self.runs) + len(self.duplicates) + len(self.restored)

    def add(self, copy: FoundCopy) -> bool:
        """False for a second copy, and for what was restored: that belongs to the history it was copied in first."""
        epoch, source, destination = copy.upstream.epoch, copy.source_offset, copy.destination_offset
        seen = self.newest
        if copy.is_restored:
            self.restored.append((seen.number if seen is not None else 1, source, destination))
            self.last_restored = max(self.last_restored, (epoch, source))
            return False
        if seen is None or epoch > seen.number:
            seen = EpochSeen(epoch, source)
            self.epochs.append(seen)
        if epoch < seen.number or source <= seen.last_offset:
            if epoch == 1 or any(one.number == epoch for one in self.epochs):  # Else nothing of that history is left to stand beside.
                self.duplicates.append((epoch, source, destination))
            self.duplicates_total += 1
            return False
        follows = (source, destination) == (seen.last_offset + 1, seen.last_destination_offset + 1) and seen.copies > 0
        if follows and self.runs and self.runs[-1].epoch == epoch:
            last = self.runs[-1]
            self.runs[-1] = RunTuple(epoch, last.source_start, last.destination_start, last.length + 1)
        else:
            self.runs.append(RunTuple(epoch, source, destination, 1))
            self.runs_total += not follows
        seen.last_offset, seen.last_destination_offset = source, destination
        seen.last_store_timestamp_ms = copy.store_timestamp_ms
        seen.copies += 1
        return True

    def take(self) -> tuple[list[RunTuple], list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Runs, second copies and restored ones gathered since the last time."""
        taken = self.runs, self.duplicates, self.restored
        self.runs, self.duplicates, self.restored = [], [], []
        return taken
