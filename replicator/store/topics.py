"""Claims of topic pairs, queue maps and assignments, in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from replicator.core.record import MessageQueue
from replicator.store import rules
from replicator.store.driver import Database
from replicator.store.port import Assignment, NewAssignment, TopicPair
from replicator.store.rows import ASSIGNMENTS, ASSIGNMENTS_KEPT, PAIRS, pair_of, read_assignments
from replicator.store.sharing import announce
from replicator.store.tables import assignments, clusters, flows, pairs, progress, queue_map_entries, queue_maps


class Topics:
    _database: Database

    async def claim_pair(self, flow_id: str, source_topic: str, destination_topic: str) -> TopicPair:
        async with self._database.begin() as connection:
            flow = (
                await connection.execute(select(flows).where(flows.c.flow_id == flow_id, ~flows.c.deleted).with_for_update(read=True))
            ).one_or_none()
            if flow is None:
                raise rules.flow_is_gone(flow_id)
            source_id, destination_id = await _cluster_ids(connection, flow.source, flow.destination)
            four = {
                "source_cluster_id": source_id, "source_topic": source_topic,
                "destination_cluster_id": destination_id, "destination_topic": destination_topic,
            }
            holder = {"flow_id": flow_id, "last_task": flow.task, "source": flow.source, "destination": flow.destination}
            map_id = await _queue_map_id(connection, (source_id, source_topic), (destination_id, destination_topic))
            await connection.execute(upsert(pairs).values(**four, **holder, map_id=map_id).on_conflict_do_nothing(constraint="pairs_claim"))
            query = PAIRS.where(*(pairs.c[name] == value for name, value in four.items())).with_for_update(of=pairs)
            row = (await connection.execute(query)).one()
            if row.flow_id is None:
                taken = {**holder, "state": "active", "reason": "", "paused": False}
                await connection.execute(update(pairs).where(pairs.c.pair_id == row.pair_id).values(**taken))
                row = (await connection.execute(query)).one()
            if row.flow_id != flow_id:
                raise rules.already_copied(source_topic, flow.source, destination_topic, flow.destination, row.task)
            return pair_of(row)

    async def set_pair_state(self, pair_id: int, state: str, reason: str) -> None:
        async with self._database.begin() as connection:
            await connection.execute(update(pairs).where(pairs.c.pair_id == pair_id).values(state=state, reason=reason))

    async def release_pair(self, pair_id: int) -> bool:
        async with self._database.begin() as connection:
            held = select(assignments.c.assignment_id).where(assignments.c.pair_id == pair_id, assignments.c.lease_until.is_not(None))
            ids = (await connection.execute(held.order_by(assignments.c.assignment_id).with_for_update())).scalars().all()
            free = {"flow_id": None, "state": "active", "reason": "", "paused": False}
            living = update(pairs).where(pairs.c.pair_id == pair_id, pairs.c.flow_id.is_not(None))
            if (await connection.execute(living.values(**free))).rowcount == 0:
                return False
            await connection.execute(update(assignments).where(assignments.c.assignment_id.in_(ids)).values(revoked=True))
            return True

    async def pairs(self, flow_id: str | None = None) -> Sequence[TopicPair]:
        query = PAIRS if flow_id is None else PAIRS.where(pairs.c.flow_id == flow_id)
        async with self._database.begin() as connection:
            return [pair_of(row) for row in await connection.execute(query)]

    async def queue_map(self, pair_id: int) -> Mapping[str, Sequence[MessageQueue]]:
        async with self._database.begin() as connection:
            map_id = (await connection.execute(select(pairs.c.map_id).where(pairs.c.pair_id == pair_id))).scalar()
            return await _read_map(connection, map_id)

    async def extend_queue_map(self, pair_id: int, queues: Mapping[str, Sequence[MessageQueue]]) -> Mapping[str, Sequence[MessageQueue]]:
        async with self._database.begin() as connection:
            locked = select(queue_maps.c.map_id).join(pairs, pairs.c.map_id == queue_maps.c.map_id).where(pairs.c.pair_id == pair_id)
            map_id = (await connection.execute(locked.with_for_update(of=queue_maps))).scalar()
            if map_id is None:
                raise rules.pair_is_gone(pair_id)
            known = await _read_map(connection, map_id)
            rows = []
            for cluster_id, wanted in queues.items():
                listed = list(known.get(cluster_id, ()))
                for queue in wanted:
                    if queue not in listed:
                        rows.append(_entry(map_id, cluster_id, len(listed), queue))
                        listed.append(queue)
            if rows:
                await connection.execute(insert(queue_map_entries), rows)
            return await _read_map(connection, map_id)

    async def add_assignments(self, pair_id: int, rows: Sequence[NewAssignment]) -> int:
        if not rows:
            return 0
        values = [
            {
                "pair_id": pair_id,
                "source_topic": row.source_queue.topic,
                "source_broker": row.source_queue.broker_name,
                "source_queue": row.source_queue.queue_id,
                "destination_topic": row.destination_queue.topic,
                "destination_broker": row.destination_queue.broker_name,
                "destination_queue": row.destination_queue.queue_id,
                "start_offset": row.start_offset,
            }
            for row in rows
        ]
        async with self._database.begin() as connection:
            pair = select(pairs.c.pair_id).where(pairs.c.pair_id == pair_id).with_for_update(read=True)
            if (await connection.execute(pair)).scalar() is None:
                raise rules.pair_is_gone(pair_id)
            statement = upsert(assignments).values(values).on_conflict_do_nothing(constraint="assignments_source_queue")
            added = (await connection.execute(statement.returning(assignments.c.assignment_id))).scalars().all()
            if added:
                await connection.execute(insert(progress), [{"assignment_id": assignment_id} for assignment_id in added])
                await announce(connection)
            return len(added)

    async def assignments(self, *, task: str | None = None, flow_id: str | None = None) -> Sequence[Assignment]:
        query = ASSIGNMENTS
        if task is not None:
            query = query.where(flows.c.task == task)
        if flow_id is not None:
            query = query.where(flows.c.flow_id == flow_id)
        async with self._database.begin() as connection:
            return await read_assignments(connection, query)

    async def topic_assignments(self, cluster_id: str, topic: str) -> Sequence[tuple[TopicPair, Assignment]]:
        reads = (pairs.c.source_cluster_id == cluster_id) & (pairs.c.source_topic == topic)
        writes = (pairs.c.destination_cluster_id == cluster_id) & (pairs.c.destination_topic == topic)
        async with self._database.begin() as connection:
            touching = {row.pair_id: pair_of(row) for row in await connection.execute(PAIRS.where(reads | writes))}
            query = ASSIGNMENTS_KEPT.where(assignments.c.pair_id.in_(touching))
            return [(touching[one.pair_id], one) for one in await read_assignments(connection, query)]


async def _cluster_ids(connection: AsyncConnection, source: str, destination: str) -> tuple[str, str]:
    rows = await connection.execute(select(clusters.c.name, clusters.c.cluster_id).where(clusters.c.name.in_((source, destination))))
    ids = {row.name: row.cluster_id for row in rows}
    for name in (source, destination):
        if ids.get(name) is None:
            raise rules.not_marked(name)
    return ids[source], ids[destination]


async def _queue_map_id(connection: AsyncConnection, one: tuple[str, str], other: tuple[str, str]) -> int:
    (cluster_a, topic_a), (cluster_b, topic_b) = sorted((one, other))
    four = {"cluster_a": cluster_a, "topic_a": topic_a, "cluster_b": cluster_b, "topic_b": topic_b}
    await connection.execute(upsert(queue_maps).values(**four).on_conflict_do_nothing(constraint="queue_maps_topics"))
    # Locked, so that a purge of the opposite pair does not take the map away before this pair holds it.
    query = select(queue_maps.c.map_id).where(*(queue_maps.c[name] == value for name, value in four.items()))
    return int((await connection.execute(query.with_for_update(key_share=True))).scalar_one())


def _entry(map_id: int, cluster_id: str, position: int, queue: MessageQueue) -> dict[str, Any]:
    return {
        "map_id": map_id, "cluster_id": cluster_id, "position": position,
        "topic": queue.topic, "broker_name": queue.broker_name, "queue_id": queue.queue_id,
    }


async def _read_map(connection: AsyncConnection, map_id: int | None) -> dict[str, list[MessageQueue]]:
    entries = queue_map_entries.c
    rows = await connection.execute(
        select(queue_map_entries).where(entries.map_id == map_id).order_by(entries.cluster_id, entries.position)
    )
    found: dict[str, list[MessageQueue]] = {}
    for row in rows:
        found.setdefault(row.cluster_id, []).append(MessageQueue(row.topic, row.broker_name, row.queue_id))
    return found
