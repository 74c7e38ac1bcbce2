"""A map made anew beside the old one, in the memory store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from replicator.core.offset_map import Epoch
from replicator.store import rules
from replicator.store.memory_map import OffsetTable
from replicator.store.memory_tables import StoredAssignment, Tables
from replicator.store.port import Checkpoint, Duplicate, Hole, Run


class MemoryRebuilds:
    _clock: Callable[[], float]

    def _read(self) -> Tables:
        raise NotImplementedError

    async def begin_map(self, assignment_id: int) -> int:
        tables = self._read()
        stored = tables.assignments.get(assignment_id)
        if stored is None:
            raise rules.assignment_is_gone(assignment_id)
        is_leased = stored.lease_until is not None and stored.lease_until > self._clock()
        rules.refuse_leased(assignment_id, stored.row.holder if is_leased else None)
        stored.lease_until = None
        stored.row = replace(stored.row, token=stored.row.token + 1)
        tables.offsets[assignment_id].staged = OffsetTable()
        return stored.row.token

    async def stage_map(
        self, assignment_id: int, token: int, runs: Sequence[Run], holes: Sequence[Hole], duplicates: Sequence[Duplicate]
    ) -> bool:
        if self._ours(assignment_id, token) is None:
            return False
        staged = self._read().offsets[assignment_id].staged
        assert staged is not None, "a map is begun before it is filled"
        staged.append(runs, holes)
        staged.add_duplicates(duplicates)
        return True

    async def replace_map(
        self, assignment_id: int, token: int, checkpoint: Checkpoint, epochs: Sequence[Epoch], unknown_below: Mapping[int, int]
    ) -> bool:
        stored = self._ours(assignment_id, token)
        if stored is None:
            return False
        self._read().offsets[assignment_id].replace_by_staged(epochs, unknown_below)
        fresh = replace(checkpoint, seen=dict(checkpoint.seen), skipped_total=dict(checkpoint.skipped_total))
        stored.row = replace(stored.row, checkpoint=fresh, state="starting", error="", lag_messages=None, lag_seconds=None)
        return True

    def _ours(self, assignment_id: int, token: int) -> StoredAssignment | None:
        stored = self._read().assignments.get(assignment_id)
        return stored if stored is not None and stored.row.token == token and stored.lease_until is None else None
