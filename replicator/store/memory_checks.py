"""What a ``check`` asks workers, and what they answer, in the memory store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from replicator.store.limits import CHECK_SECONDS_MAX
from replicator.store.memory_tables import StoredCheck, Tables
from replicator.store.port import AskedCheck, ClusterRow


class MemoryChecks:
    _clock: Callable[[], float]

    def _read(self) -> Tables:
        raise NotImplementedError

    def _new_id(self) -> int:
        raise NotImplementedError

    async def ask_check(self, clusters: Sequence[ClusterRow]) -> int:
        rows = self._read().checks
        for check_id in [check_id for check_id, one in rows.items() if not self._is_open(one)]:
            del rows[check_id]
        check_id = self._new_id()
        rows[check_id] = StoredCheck(self._clock(), [replace(one, cluster_id=None) for one in deepcopy(clusters)])
        return check_id

    async def asked_checks(self, worker: str) -> Sequence[AskedCheck]:
        rows = self._read().checks.items()
        return [AskedCheck(check_id, one.clusters) for check_id, one in rows if self._is_open(one) and worker not in one.answers]

    async def answer_check(self, check_id: int, worker: str, clusters: Sequence[Mapping[str, Any]]) -> None:
        one = self._read().checks.get(check_id)
        if one is not None:
            one.answers.setdefault(worker, deepcopy(clusters))

    async def check_answers(self, check_id: int) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        one = self._read().checks.get(check_id)
        return dict(one.answers) if one is not None else {}

    def _is_open(self, one: StoredCheck) -> bool:
        return one.asked_at >= self._clock() - CHECK_SECONDS_MAX
