"""Consumer groups in the memory store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from replicator.store.group_rows import GroupState, GroupWrite, QueueWrite
from replicator.store.memory_tables import Tables


def _copied(one: GroupState) -> GroupState:
    """As through the database, whose column is JSON."""
    return replace(one, state=json.loads(json.dumps(one.state)))


class MemoryGroups:
    _clock: Callable[[], float]

    def _read(self) -> Tables:
        raise NotImplementedError

    def _token(self, holder: str) -> int | None:
        raise NotImplementedError

    def _new_id(self) -> int:
        raise NotImplementedError

    async def group_states(self, task: str) -> Sequence[GroupState]:
        states = self._read().group_states
        return [_copied(states[key]) for key in sorted(states) if key[0] == task]

    async def save_group_states(self, holder: str, states: Sequence[GroupState]) -> bool:
        if self._token(holder) is None:
            return False
        for one in states:
            self._read().group_states[one.task, one.group, one.clusters] = _copied(one)
        return True

    async def intend_group_writes(self, holder: str, writes: Sequence[GroupWrite]) -> Sequence[int] | None:
        token = self._token(holder)
        if token is None:
            return None
        ids = []
        for one in writes:
            write_id = self._new_id()
            now = datetime.fromtimestamp(self._clock(), UTC)
            self._read().group_writes[write_id] = replace(one, write_id=write_id, token=token, done=False, at=now)
            ids.append(write_id)
        return ids

    async def finish_group_writes(self, results: Mapping[int, Sequence[QueueWrite]]) -> None:
        writes = self._read().group_writes
        for write_id, queues in results.items():
            if write_id in writes:
                writes[write_id] = replace(writes[write_id], queues=tuple(queues), done=True)

    async def group_writes(self, task: str, group: str | None = None, limit: int = 200) -> Sequence[GroupWrite]:
        found = [one for one in self._read().group_writes.values() if one.task == task and group in (None, one.group)]
        return found[-limit:]
