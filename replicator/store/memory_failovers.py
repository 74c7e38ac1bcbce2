"""Moves of consumers, and when each cluster was last seen, in the memory store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from replicator.store import rules
from replicator.store.failover_rows import FailoverRow, Sighting
from replicator.store.memory_groups import MemoryGroups
from replicator.store.memory_tables import Tables


class MemoryFailovers(MemoryGroups):
    _clock: Callable[[], float]

    def _read(self) -> Tables:
        raise NotImplementedError

    def _new_id(self) -> int:
        raise NotImplementedError

    async def begin_failover(self, row: FailoverRow) -> int:
        rows = self._read().failovers
        if row.is_open and any(one.is_open and one.task == row.task for one in rows.values()):
            raise rules.move_is_open(row.task)
        failover_id = self._new_id()
        now = datetime.fromtimestamp(self._clock(), UTC)
        rows[failover_id] = replace(deepcopy(row), failover_id=failover_id, abort_asked=False, created_at=now, updated_at=now)
        return failover_id

    async def save_failover(self, holder: str, row: FailoverRow) -> bool:
        if self._token(holder) is None:
            return False
        rows = self._read().failovers
        if row.failover_id in rows:
            now = datetime.fromtimestamp(self._clock(), UTC)
            kept = rows[row.failover_id]
            rows[row.failover_id] = replace(kept, course=deepcopy(row.course), is_open=row.is_open, updated_at=now)
        return True

    async def ask_abort(self, failover_id: int) -> bool:
        rows = self._read().failovers
        row = rows.get(failover_id)
        if row is None or not row.is_open:
            return False
        rows[failover_id] = replace(row, abort_asked=True)
        return True

    async def failovers(self, task: str | None = None, *, open_only: bool = False, limit: int = 100) -> Sequence[FailoverRow]:
        rows = self._read().failovers
        found = [rows[key] for key in sorted(rows) if task in (None, rows[key].task) and (rows[key].is_open or not open_only)]
        return deepcopy(found[-limit:])

    async def save_sightings(self, holder: str, task: str, sightings: Mapping[str, Mapping[str, Any]]) -> bool:
        if self._token(holder) is None:
            return False
        now = datetime.fromtimestamp(self._clock(), UTC)
        for cluster, info in sightings.items():
            self._read().sightings[task, cluster] = Sighting(now, deepcopy(dict(info)))
        return True

    async def sightings(self, task: str) -> Mapping[str, Sighting]:
        return {key[1]: deepcopy(one) for key, one in self._read().sightings.items() if key[0] == task}
