"""What users declare, in Postgres: clusters, tasks and their flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from replicator.store import rules
from replicator.store.driver import Database
from replicator.store.identifiers import make_flow_id
from replicator.store.port import ClusterRow, Flow, TaskRow
from replicator.store.tables import assignments, cluster_sightings, clusters, failovers, flows, group_states, pairs, queue_maps, tasks


class Declarations:
    _database: Database

    async def put_cluster(self, row: ClusterRow) -> str:
        values = {"connector": row.connector, "region": row.region, "settings": row.settings}
        async with self._database.begin() as connection:
            if row.cluster_id is not None:
                other = (
                    await connection.execute(
                        select(clusters.c.name).where(clusters.c.cluster_id == row.cluster_id, clusters.c.name != row.name)
                    )
                ).scalar()
                if other is not None:
                    raise rules.known_as_another(row.cluster_id, other, row.name)
            stored = (await connection.execute(select(clusters).where(clusters.c.name == row.name).with_for_update())).one_or_none()
            if stored is None:
                await connection.execute(insert(clusters).values(name=row.name, cluster_id=row.cluster_id, **values))
                return "created"
            rules.refuse_another_id(row.name, stored.cluster_id, row.cluster_id)
            cluster_id = row.cluster_id or stored.cluster_id
            if (stored.connector, stored.region, stored.settings, stored.cluster_id) == (
                row.connector, row.region, row.settings, cluster_id,
            ):
                return "unchanged"
            await connection.execute(update(clusters).where(clusters.c.name == row.name).values(cluster_id=cluster_id, **values))
            return "changed"

    async def clusters(self) -> Sequence[ClusterRow]:
        async with self._database.begin() as connection:
            rows = await connection.execute(select(clusters).order_by(clusters.c.name))
            return [ClusterRow(row.name, row.connector, row.region, row.settings, row.cluster_id) for row in rows]

    async def delete_cluster(self, name: str) -> bool:
        async with self._database.begin() as connection:
            # Locked first: put_task locks the rows of its clusters too, so neither can slip past the other.
            await connection.execute(select(clusters.c.name).where(clusters.c.name == name).with_for_update())
            using = flows.c.deleted.is_(False) & or_(flows.c.source == name, flows.c.destination == name)
            task = (await connection.execute(select(flows.c.task).where(using).limit(1))).scalar()
            if task is not None:
                raise rules.in_use(name, task)
            return (await connection.execute(delete(clusters).where(clusters.c.name == name))).rowcount > 0

    async def put_task(self, name: str, spec: dict[str, Any], flows: Sequence[tuple[str, str]]) -> str:
        async with self._database.begin() as connection:
            stored = (await connection.execute(select(tasks).where(tasks.c.name == name).with_for_update())).one_or_none()
            if stored is not None and not stored.deleted:
                return await _change_task(connection, name, stored.spec, spec, flows)
            await _require_clusters(connection, name, flows)
            statement = upsert(tasks).values(name=name, spec=spec, generation=1)
            if stored is not None:
                statement = statement.on_conflict_do_update(
                    index_elements=[tasks.c.name], set_={"spec": spec, "generation": tasks.c.generation + 1, "deleted": False}
                )
            await connection.execute(statement)
            for source, destination in flows:
                await _add_flow(connection, name, source, destination)
            return "created"

    async def tasks(self) -> Sequence[TaskRow]:
        async with self._database.begin() as connection:
            rows = await connection.execute(select(tasks).where(~tasks.c.deleted).order_by(tasks.c.name))
            return [TaskRow(row.name, row.spec, row.generation) for row in rows]

    async def delete_task(self, name: str) -> bool:
        async with self._database.begin() as connection:
            found = await connection.execute(update(tasks).where(tasks.c.name == name, ~tasks.c.deleted).values(deleted=True))
            if found.rowcount == 0:
                return False
            # Flows first: a claim that is under way holds its flow, so its pair is seen by the next statements.
            own = update(flows).where(flows.c.task == name, ~flows.c.deleted).values(deleted=True).returning(flows.c.flow_id)
            flow_ids = (await connection.execute(own)).scalars().all()
            of_flows = pairs.c.flow_id.in_(flow_ids)
            held = select(assignments.c.assignment_id).join(pairs, pairs.c.pair_id == assignments.c.pair_id).where(of_flows)
            locked = held.where(assignments.c.lease_until.is_not(None)).order_by(assignments.c.assignment_id)
            ids = (await connection.execute(locked.with_for_update(of=assignments))).scalars().all()
            await connection.execute(update(assignments).where(assignments.c.assignment_id.in_(ids)).values(revoked=True))
            await connection.execute(update(pairs).where(of_flows).values(flow_id=None, state="active", reason="", paused=False))
            return True

    async def purge_task(self, name: str) -> None:
        async with self._database.begin() as connection:
            await connection.execute(delete(pairs).where(pairs.c.flow_id.is_(None), pairs.c.last_task == name))
            in_use = select(pairs.c.map_id)
            await connection.execute(delete(queue_maps).where(queue_maps.c.map_id.not_in(in_use)))
            is_living = select(tasks.c.name).where(tasks.c.name == name, ~tasks.c.deleted).exists()
            for kept in (group_states, failovers, cluster_sightings):
                await connection.execute(delete(kept).where(kept.c.task == name, ~is_living))

    async def flows(self) -> Sequence[Flow]:
        async with self._database.begin() as connection:
            rows = await connection.execute(
                select(flows).where(~flows.c.deleted).order_by(flows.c.task, flows.c.source, flows.c.destination)
            )
            return [Flow(row.flow_id, row.task, row.source, row.destination, row.paused) for row in rows]

    async def set_paused(self, task: str, paused: bool, *, topic: str | None = None, flow: tuple[str, str] | None = None) -> int:
        chosen = (flows.c.task == task) & ~flows.c.deleted
        if flow is not None:
            chosen &= (flows.c.source == flow[0]) & (flows.c.destination == flow[1])
        statement = update(flows).where(chosen).values(paused=paused)
        if topic is not None:
            ids = select(flows.c.flow_id).where(chosen)
            statement = update(pairs).where(pairs.c.flow_id.in_(ids), pairs.c.source_topic == topic).values(paused=paused)
        async with self._database.begin() as connection:
            return (await connection.execute(statement)).rowcount


async def _change_task(
    connection: AsyncConnection, name: str, stored: dict[str, Any], spec: dict[str, Any], wanted: Sequence[tuple[str, str]]
) -> str:
    rows = await connection.execute(select(flows.c.source, flows.c.destination).where(flows.c.task == name, ~flows.c.deleted))
    rules.refuse_other_flows(name, {(row.source, row.destination) for row in rows}, wanted)
    if stored == spec:
        return "unchanged"
    await connection.execute(update(tasks).where(tasks.c.name == name).values(spec=spec, generation=tasks.c.generation + 1))
    return "changed"


async def _require_clusters(connection: AsyncConnection, task: str, wanted: Sequence[tuple[str, str]]) -> None:
    names = {name for flow in wanted for name in flow}
    rows = await connection.execute(
        select(clusters.c.name).where(clusters.c.name.in_(names)).order_by(clusters.c.name).with_for_update(key_share=True, read=True)
    )
    rules.refuse_undeclared(task, wanted, {row.name for row in rows})


async def _add_flow(connection: AsyncConnection, task: str, source: str, destination: str) -> None:
    while True:
        values = {"flow_id": make_flow_id(), "task": task, "source": source, "destination": destination}
        statement = upsert(flows).values(**values).on_conflict_do_nothing(index_elements=[flows.c.flow_id])
        if (await connection.execute(statement)).rowcount == 1:
            return
