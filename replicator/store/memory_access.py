"""Tokens of the API, and who changed what through it, in the memory store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from replicator.store.access_rows import ApiChange, ApiToken, LivingToken
from replicator.store.limits import API_CHANGE_DAYS_MAX, API_CHANGES_MAX, API_TOKENS_MAX
from replicator.store.memory_tables import Tables
from replicator.store.rules import too_many_tokens


class MemoryAccess:
    _clock: Callable[[], float]

    def _read(self) -> Tables:
        raise NotImplementedError

    def _new_id(self) -> int:
        raise NotImplementedError

    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    async def add_api_token(self, name: str, role: str, token_hash: str, expires_in_days: int | None) -> bool:
        tokens, now = self._read().api_tokens, self._moment()
        for row, _ in list(tokens.values()):
            ended = row.revoked_at or row.expires_at
            if ended is not None and ended < now - timedelta(days=API_CHANGE_DAYS_MAX):
                del tokens[row.name]
        if len(tokens) >= API_TOKENS_MAX:
            raise too_many_tokens()
        if name in tokens:
            return False
        expires = None if expires_in_days is None else now + timedelta(days=expires_in_days)
        tokens[name] = ApiToken(name, role, now, expires), token_hash
        return True

    async def api_tokens(self) -> Sequence[ApiToken]:
        return [row for _, (row, _) in sorted(self._read().api_tokens.items())]

    async def living_api_tokens(self) -> Sequence[LivingToken]:
        now, found = self._moment(), []
        for row, token_hash in self._read().api_tokens.values():
            if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
                continue
            left = None if row.expires_at is None else (row.expires_at - now).total_seconds()
            unused = None if row.last_used_at is None else (now - row.last_used_at).total_seconds()
            found.append(LivingToken(row.name, row.role, token_hash, left, unused))
        return found

    async def api_token_used(self, name: str) -> None:
        tokens = self._read().api_tokens
        if name in tokens:
            row, token_hash = tokens[name]
            tokens[name] = replace(row, last_used_at=self._moment()), token_hash

    async def revoke_api_token(self, name: str) -> bool:
        tokens = self._read().api_tokens
        if name not in tokens or tokens[name][0].revoked_at is not None:
            return False
        row, token_hash = tokens[name]
        tokens[name] = replace(row, revoked_at=self._moment()), token_hash
        return True

    async def begin_api_change(self, change: ApiChange) -> int:
        changes, change_id = self._read().api_changes, self._new_id()
        changes[change_id] = replace(deepcopy(change), change_id=change_id, at=self._moment())
        if len(changes) > API_CHANGES_MAX:
            del changes[min(changes)]
        return change_id

    async def finish_api_change(self, change_id: int, status: int) -> None:
        changes = self._read().api_changes
        if change_id in changes:
            changes[change_id] = replace(changes[change_id], status=status)

    async def api_changes(self, before: int | None = None, limit: int = 200) -> Sequence[ApiChange]:
        rows = self._read().api_changes
        return deepcopy([rows[key] for key in sorted(rows) if before is None or key < before][-limit:])
