"""From rows to the port's values, and the one select every look at assignments is made of."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, Select, false, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from replicator.core.record import MessageQueue, RecordIdentity
from replicator.store.limits import STICKY_STATES
from replicator.store.port import Assignment, Checkpoint, TopicPair, ToRelearn
from replicator.store.tables import assignments, flows, pairs, progress

EFFECTIVE_STATE = f"""CASE
    WHEN progress.state IN ({", ".join(f"'{state}'" for state in STICKY_STATES)}) THEN progress.state
    WHEN pairs.state = 'blocked' THEN 'blocked'
    WHEN assignments.lease_until > clock_timestamp() THEN progress.state
    WHEN flows.paused OR pairs.paused THEN 'paused'
    ELSE 'waiting-for-worker' END"""
"""Paused is what its worker has let go of: until then it may still copy."""

ASSIGNMENTS: Select[Any] = (
    select(
        assignments,
        *(column for column in progress.c if column.name not in ("assignment_id", "state")),
        literal_column(EFFECTIVE_STATE).label("effective_state"),
        (flows.c.paused | pairs.c.paused).label("any_paused"),
        flows.c.flow_id, flows.c.task, flows.c.source, flows.c.destination,
    )
    .join(progress, progress.c.assignment_id == assignments.c.assignment_id)
    .join(pairs, pairs.c.pair_id == assignments.c.pair_id)
    .join(flows, flows.c.flow_id == pairs.c.flow_id)
    .order_by(assignments.c.assignment_id)
)
"""Of living flows only: the pair of a tombstone has no flow to join."""

ASSIGNMENTS_KEPT: Select[Any] = (
    select(
        assignments,
        *(column for column in progress.c if column.name not in ("assignment_id", "state")),
        literal_column(EFFECTIVE_STATE).label("effective_state"),
        (func.coalesce(flows.c.paused, false()) | pairs.c.paused).label("any_paused"),
        func.coalesce(flows.c.flow_id, "").label("flow_id"),
        func.coalesce(flows.c.task, "").label("task"),
        func.coalesce(flows.c.source, pairs.c.source).label("source"),
        func.coalesce(flows.c.destination, pairs.c.destination).label("destination"),
    )
    .join(progress, progress.c.assignment_id == assignments.c.assignment_id)
    .join(pairs, pairs.c.pair_id == assignments.c.pair_id)
    .outerjoin(flows, flows.c.flow_id == pairs.c.flow_id)
    .order_by(assignments.c.assignment_id)
)
"""Those of tombstones too, without flow id and task."""

PAIRS: Select[Any] = select(pairs, flows.c.task).outerjoin(flows, flows.c.flow_id == pairs.c.flow_id).order_by(pairs.c.pair_id)


def checkpoint_of(row: Row[Any]) -> Checkpoint | None:
    if not row.has_checkpoint:
        return None
    identity = None
    if row.identity_offset is not None:
        identity = RecordIdentity(
            row.identity_offset, row.identity_store_timestamp_ms, row.identity_commit_log_offset, row.identity_body_crc
        )
    return Checkpoint(
        epoch=row.epoch,
        examined_through=row.examined_through,
        confirmed_source_offset=row.confirmed_source_offset,
        confirmed_destination_offset=row.confirmed_destination_offset,
        identity=identity,
        scanned_through=row.scanned_through,
        seen=row.seen,
        in_flight=row.in_flight,
        copied_total=row.copied_total,
        skipped_total=row.skipped_total,
        to_relearn=ToRelearn(**row.to_relearn) if row.to_relearn is not None else None,
    )


def assignment_of(row: Row[Any]) -> Assignment:
    return Assignment(
        assignment_id=row.assignment_id,
        pair_id=row.pair_id,
        flow_id=row.flow_id,
        task=row.task,
        source=row.source,
        destination=row.destination,
        source_queue=MessageQueue(row.source_topic, row.source_broker, row.source_queue),
        destination_queue=MessageQueue(row.destination_topic, row.destination_broker, row.destination_queue),
        start_offset=row.start_offset,
        checkpoint=checkpoint_of(row),
        token=row.token,
        holder=row.holder,
        clean=row.clean,
        senders=tuple(row.senders),
        state=row.effective_state,
        error=row.error,
        paused=row.any_paused,
        lag_messages=row.lag_messages,
        lag_seconds=row.lag_seconds,
        observed_at=row.observed_at,
        worker=row.worker,
        rate_per_second=row.rate_per_second,
    )


def pair_of(row: Row[Any]) -> TopicPair:
    return TopicPair(
        pair_id=row.pair_id,
        source_cluster_id=row.source_cluster_id,
        source_topic=row.source_topic,
        destination_cluster_id=row.destination_cluster_id,
        destination_topic=row.destination_topic,
        flow_id=row.flow_id,
        task=row.task,
        source=row.source,
        destination=row.destination,
        state=row.state,
        reason=row.reason,
        paused=row.paused,
    )


async def read_assignments(connection: AsyncConnection, query: Select[Any]) -> list[Assignment]:
    return [assignment_of(row) for row in await connection.execute(query)]
