"""Moves of consumers, and when each cluster was last seen, in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from replicator.store import rules
from replicator.store.driver import Database
from replicator.store.failover_rows import FailoverRow, Sighting
from replicator.store.sharing import coordinator_token
from replicator.store.tables import cluster_sightings, failovers


class Failovers:
    _database: Database

    async def begin_failover(self, row: FailoverRow) -> int:
        values = {
            "task": row.task, "kind": row.kind, "failed": row.failed, "destination": row.destination, "options": row.options,
            "course": row.course, "is_open": row.is_open,
        }  # fmt: skip
        statement = upsert(failovers).values(values).on_conflict_do_nothing().returning(failovers.c.failover_id)
        async with self._database.begin() as connection:
            failover_id = (await connection.execute(statement)).scalar()
        if failover_id is None:
            raise rules.move_is_open(row.task)
        return int(failover_id)

    async def save_failover(self, holder: str, row: FailoverRow) -> bool:
        async with self._database.begin() as connection:
            if await coordinator_token(connection, holder) is None:
                return False
            values = {"course": row.course, "is_open": row.is_open, "updated_at": func.now()}
            await connection.execute(update(failovers).where(failovers.c.failover_id == row.failover_id).values(values))
            return True

    async def ask_abort(self, failover_id: int) -> bool:
        statement = update(failovers).where(failovers.c.failover_id == failover_id, failovers.c.is_open).values(abort_asked=True)
        async with self._database.begin() as connection:
            return (await connection.execute(statement)).rowcount > 0

    async def failovers(self, task: str | None = None, *, open_only: bool = False, limit: int = 100) -> Sequence[FailoverRow]:
        query = select(failovers)
        if task is not None:
            query = query.where(failovers.c.task == task)
        if open_only:
            query = query.where(failovers.c.is_open)
        async with self._database.begin() as connection:
            found = await connection.execute(query.order_by(failovers.c.failover_id.desc()).limit(limit))
            return [_row(one) for one in found][::-1]

    async def save_sightings(self, holder: str, task: str, sightings: Mapping[str, Mapping[str, Any]]) -> bool:
        async with self._database.begin() as connection:
            if await coordinator_token(connection, holder) is None:
                return False
            if sightings:
                values = [{"task": task, "cluster": name, "info": dict(info)} for name, info in sightings.items()]
                statement = upsert(cluster_sightings).values(values)
                change = {"info": statement.excluded.info, "at": func.now()}
                key = [column for column in cluster_sightings.c if column.primary_key]
                await connection.execute(statement.on_conflict_do_update(index_elements=key, set_=change))
            return True

    async def sightings(self, task: str) -> Mapping[str, Sighting]:
        async with self._database.begin() as connection:
            found = await connection.execute(select(cluster_sightings).where(cluster_sightings.c.task == task))
            return {row.cluster: Sighting(row.at, row.info) for row in found}


def _row(row: Row[Any]) -> FailoverRow:
    return FailoverRow(
        row.task, row.kind, row.failed, row.destination, row.options, row.course, row.is_open, row.abort_asked, row.failover_id,
        row.created_at, row.updated_at,
    )
