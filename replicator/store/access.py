"""Tokens of the API, and who changed what through it, in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Integer, bindparam, delete, func, insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from replicator.store.access_rows import ApiChange, ApiToken, LivingToken
from replicator.store.driver import Database
from replicator.store.limits import API_CHANGE_DAYS_MAX, API_CHANGES_MAX, API_TOKENS_MAX
from replicator.store.rules import too_many_tokens
from replicator.store.tables import api_changes, api_tokens

_PRUNE_EVERY = 1000


def _days(count: int | ColumnElement[int]) -> ColumnElement[Any]:
    return func.make_interval(0, 0, 0, count)


def _age_seconds(moment: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.extract("epoch", func.now() - moment)


class Access:
    _database: Database

    async def add_api_token(self, name: str, role: str, token_hash: str, expires_in_days: int | None) -> bool:
        ended = func.coalesce(api_tokens.c.revoked_at, api_tokens.c.expires_at)
        days = literal(expires_in_days, Integer)
        statement = upsert(api_tokens).values(
            name=name, role=role, token_hash=token_hash, expires_at=None if expires_in_days is None else func.now() + _days(days)
        )
        async with self._database.begin() as connection:
            await connection.execute(delete(api_tokens).where(ended < func.now() - _days(API_CHANGE_DAYS_MAX)))
            if (await connection.execute(select(func.count()).select_from(api_tokens))).scalar_one() >= API_TOKENS_MAX:
                raise too_many_tokens()
            added = await connection.execute(
                statement.on_conflict_do_nothing(index_elements=[api_tokens.c.name]).returning(api_tokens.c.name)
            )
            return added.scalar() is not None

    async def api_tokens(self) -> Sequence[ApiToken]:
        async with self._database.begin() as connection:
            found = await connection.execute(select(api_tokens).order_by(api_tokens.c.name))
            return [
                ApiToken(row.name, row.role, row.created_at, row.expires_at, row.last_used_at, row.revoked_at) for row in found
            ]

    async def living_api_tokens(self) -> Sequence[LivingToken]:
        columns = api_tokens.c
        left, unused = -_age_seconds(columns.expires_at), _age_seconds(columns.last_used_at)
        is_living = columns.revoked_at.is_(None) & or_(columns.expires_at.is_(None), columns.expires_at > func.now())
        query = select(columns.name, columns.role, columns.token_hash, left.label("left"), unused.label("unused")).where(is_living)
        async with self._database.begin() as connection:
            return [
                LivingToken(
                    row.name, row.role, row.token_hash,
                    None if row.left is None else float(row.left), None if row.unused is None else float(row.unused),
                )
                for row in await connection.execute(query)
            ]  # fmt: skip

    async def api_token_used(self, name: str) -> None:
        async with self._database.begin() as connection:
            await connection.execute(update(api_tokens).where(api_tokens.c.name == name).values(last_used_at=func.now()))

    async def revoke_api_token(self, name: str) -> bool:
        statement = update(api_tokens).where((api_tokens.c.name == name) & api_tokens.c.revoked_at.is_(None))
        async with self._database.begin() as connection:
            return (await connection.execute(statement.values(revoked_at=func.now()))).rowcount == 1

    async def begin_api_change(self, change: ApiChange) -> int:
        values = {
            "caller": change.caller, "role": change.role, "method": change.method, "route": change.route, "object": change.object,
            "request": change.request, "status": change.status,
        }  # fmt: skip
        async with self._database.begin() as connection:
            change_id: int = (await connection.execute(insert(api_changes).values(values).returning(api_changes.c.change_id))).scalar_one()
            if change_id % _PRUNE_EVERY == 0:
                is_old = api_changes.c.at < func.now() - _days(API_CHANGE_DAYS_MAX)
                await connection.execute(delete(api_changes).where(is_old | (api_changes.c.change_id <= change_id - API_CHANGES_MAX)))
        return change_id

    async def finish_api_change(self, change_id: int, status: int) -> None:
        statement = update(api_changes).where(api_changes.c.change_id == bindparam("id")).values(status=bindparam("ended"))
        async with self._database.begin() as connection:
            await connection.execute(statement, {"id": change_id, "ended": status})

    async def api_changes(self, before: int | None = None, limit: int = 200) -> Sequence[ApiChange]:
        query = select(api_changes).order_by(api_changes.c.change_id.desc()).limit(limit)
        if before is not None:
            query = query.where(api_changes.c.change_id < before)
        async with self._database.begin() as connection:
            found = [
                ApiChange(row.caller, row.role, row.method, row.route, row.object, row.request, row.status, row.change_id, row.at)
                for row in await connection.execute(query)
            ]
        return found[::-1]
