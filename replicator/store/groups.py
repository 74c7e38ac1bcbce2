"""Consumer groups in Postgres: what is known of each, and every write of their offsets.

Both are written in batches, and only by who holds the lease ``coordinator``: the row of the lease is locked for the length of the
transaction, so that nobody takes over in the middle of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from replicator.core.record import MessageQueue
from replicator.store.driver import Database
from replicator.store.group_rows import GroupState, GroupWrite, QueueWrite
from replicator.store.limits import GROUP_WRITE_DAYS_MAX
from replicator.store.sharing import coordinator_token
from replicator.store.tables import group_states, group_writes

_PRUNE_EVERY = 1000
_ROWS_MAX = 1000
"""Of one statement: Postgres takes 32,767 parameters."""


class Groups:
    _database: Database

    async def group_states(self, task: str) -> Sequence[GroupState]:
        query = select(group_states).where(group_states.c.task == task)
        order = (group_states.c.consumer_group, group_states.c.cluster_low, group_states.c.cluster_high)
        async with self._database.begin() as connection:
            found = await connection.execute(query.order_by(*order))
            return [GroupState(row.task, row.consumer_group, (row.cluster_low, row.cluster_high), row.state) for row in found]

    async def save_group_states(self, holder: str, states: Sequence[GroupState]) -> bool:
        async with self._database.begin() as connection:
            if await coordinator_token(connection, holder) is None:
                return False
            for first in range(0, len(states), _ROWS_MAX):
                rows = [
                    {"task": one.task, "consumer_group": one.group, "cluster_low": one.clusters[0], "cluster_high": one.clusters[1],
                     "state": one.state}
                    for one in states[first : first + _ROWS_MAX]
                ]
                statement = upsert(group_states).values(rows)
                key = [column for column in group_states.c if column.primary_key]
                await connection.execute(
                    statement.on_conflict_do_update(index_elements=key, set_={"state": statement.excluded.state})
                )
            return True

    async def intend_group_writes(self, holder: str, writes: Sequence[GroupWrite]) -> Sequence[int] | None:
        ids: list[int] = []
        async with self._database.begin() as connection:
            token = await coordinator_token(connection, holder)
            if token is None:
                return None
            for first in range(0, len(writes), _ROWS_MAX):
                rows = [
                    {"task": one.task, "consumer_group": one.group, "cluster": one.cluster, "owner": one.owner, "why": one.why,
                     "queues": _queues_json(one.queues), "token": token}
                    for one in writes[first : first + _ROWS_MAX]
                ]
                statement = insert(group_writes).values(rows).returning(group_writes.c.write_id)
                ids += sorted((await connection.execute(statement)).scalars())
            if any(one % _PRUNE_EVERY == 0 for one in ids):
                age = func.make_interval(0, 0, 0, GROUP_WRITE_DAYS_MAX)
                await connection.execute(delete(group_writes).where(group_writes.c.at < func.now() - age))
        return ids

    async def finish_group_writes(self, results: Mapping[int, Sequence[QueueWrite]]) -> None:
        if not results:
            return
        statement = update(group_writes).where(group_writes.c.write_id == bindparam("id"))
        values = [{"id": write_id, "read_back": _queues_json(queues)} for write_id, queues in sorted(results.items())]
        async with self._database.begin() as connection:
            await connection.execute(statement.values(queues=bindparam("read_back"), done=True), values)

    async def group_writes(self, task: str, group: str | None = None, limit: int = 200) -> Sequence[GroupWrite]:
        query = select(group_writes).where(group_writes.c.task == task)
        if group is not None:
            query = query.where(group_writes.c.consumer_group == group)
        async with self._database.begin() as connection:
            found = await connection.execute(query.order_by(group_writes.c.write_id.desc()).limit(limit))
            return [_write(row) for row in found][::-1]


def _queues_json(queues: Sequence[QueueWrite]) -> list[list[Any]]:
    return [[one.queue.topic, one.queue.broker_name, one.queue.queue_id, one.old, one.new, one.now, one.refused] for one in queues]


def _write(row: Row[Any]) -> GroupWrite:
    queues = tuple(QueueWrite(MessageQueue(*one[:3]), *one[3:]) for one in row.queues)
    return GroupWrite(
        row.task, row.consumer_group, row.cluster, row.owner, row.why, queues, row.write_id, row.token, row.done, row.at
    )
