"""Reading offset maps from the memory store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from replicator.core.offset_map import Epoch
from replicator.store.memory_map import OffsetTable
from replicator.store.memory_tables import Tables
from replicator.store.port import Duplicate, Hole, KnownRows, MapRows, MapVersion, Run


class MapReads:
    def _read(self) -> Tables:
        raise NotImplementedError

    async def runs(
        self,
        assignment_id: int,
        *,
        epoch: int | None = None,
        around_source: int | None = None,
        around_destination: int | None = None,
        limit: int = 1000,
    ) -> Sequence[Run]:
        assert around_source is None or around_destination is None, "around one side at a time"
        return self._offsets(assignment_id).runs(epoch, around_source, around_destination, limit)

    async def last_runs(self, assignment_id: int, limit: int) -> Sequence[Run]:
        return self._offsets(assignment_id).last_runs(limit)

    async def holes(self, assignment_id: int, *, around_source: int | None = None, limit: int = 1000) -> Sequence[Hole]:
        return self._offsets(assignment_id).holes(around_source, limit)

    async def duplicates(self, assignment_id: int) -> Sequence[Duplicate]:
        return self._duplicates(assignment_id)

    async def epochs(self, assignment_id: int) -> Sequence[Epoch]:
        return list(self._offsets(assignment_id).epochs)

    async def map_versions(self, assignment_ids: Sequence[int]) -> Mapping[int, MapVersion]:
        known = self._read().assignments
        return {assignment_id: self._version(assignment_id) for assignment_id in assignment_ids if assignment_id in known}

    async def map_rows(self, assignment_id: int, known: KnownRows | None = None) -> MapRows | None:
        stored = self._read().assignments.get(assignment_id)
        if stored is None:
            return None
        version, offsets = self._version(assignment_id), self._offsets(assignment_id)
        if known is not None and version.rewritten > known.version:
            known = None
        runs, holes = offsets.columns(known)
        duplicates = self._duplicates(assignment_id)
        return MapRows(version, known is None, runs, holes, duplicates, list(offsets.epochs), stored.row.start_offset)

    def _offsets(self, assignment_id: int) -> OffsetTable:
        return self._read().offsets.get(assignment_id) or OffsetTable()

    def _duplicates(self, assignment_id: int) -> list[Duplicate]:
        found = self._offsets(assignment_id).duplicates
        return sorted(found, key=lambda one: (one.epoch, one.source_offset, one.destination_offset))

    def _version(self, assignment_id: int) -> MapVersion:
        row, offsets = self._read().assignments[assignment_id].row, self._offsets(assignment_id)
        if row.checkpoint is None:
            return MapVersion(offsets.version, offsets.rewritten, row.start_offset, 0)
        relearn = row.checkpoint.to_relearn
        relearn_from = relearn.destination_start if relearn is not None else None
        examined, scanned = row.checkpoint.examined_through, row.checkpoint.scanned_through
        return MapVersion(offsets.version, offsets.rewritten, examined, scanned, relearn_from)
