"""Reading the offset map, parked records, events, workers and figures, in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, insert, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from replicator.core.task import STATES
from replicator.store.driver import Database
from replicator.store.limits import EVENTS_PER_TASK_MAX, FIGURES_SECONDS_MAX, PARKED_ROWS_MAX, SKIP_REASONS, WORKER_DAYS_MAX
from replicator.store.port import Assignment, Event, Hole, Parked, Run
from replicator.store.rows import ASSIGNMENTS, EFFECTIVE_STATE, assignment_of
from replicator.store.sharing import announce
from replicator.store.tables import assignments, events, flows, holes, parked, runs, workers

_PRUNE_EVERY = 100

_FRESH = "progress.observed_at > clock_timestamp() - make_interval(secs => :figures_seconds_max)"

_FIGURES = text(f"""
    WITH queues AS (
        SELECT flows.flow_id,
            CASE WHEN assignments.assignment_id IS NULL THEN 'blocked' ELSE {EFFECTIVE_STATE} END AS state,
            CASE WHEN {_FRESH} THEN progress.lag_messages END AS lag_messages,
            CASE WHEN {_FRESH} AND progress.lag_messages IS NOT NULL THEN progress.lag_seconds END AS lag_seconds,
            CASE WHEN {_FRESH} THEN progress.rate_per_second END AS rate_per_second,
            CASE WHEN {_FRESH} THEN progress.latency_p50_ms END AS p50,
            CASE WHEN {_FRESH} THEN progress.latency_p99_ms END AS p99,
            progress.lag_seconds + CAST(extract(epoch FROM clock_timestamp() - progress.observed_at) AS double precision) AS uncopied_age,
            assignments.source_broker,
            coalesce(progress.copied_total, 0) AS copied_total,
            {", ".join(f"coalesce(CAST(progress.skipped_total ->> '{r}' AS bigint), 0) AS {r}" for r in SKIP_REASONS)},
            coalesce(nullif(progress.error, ''), pairs.reason) AS error,
            (SELECT count(*) FROM parked WHERE parked.assignment_id = assignments.assignment_id AND parked.state = 'parked') AS parked
        FROM flows JOIN pairs ON pairs.flow_id = flows.flow_id
        LEFT JOIN assignments ON assignments.pair_id = pairs.pair_id
        LEFT JOIN progress ON progress.assignment_id = assignments.assignment_id
        WHERE assignments.assignment_id IS NOT NULL OR pairs.state = 'blocked')
    SELECT f.task, f.source, f.destination, f.paused,
        {", ".join(f'count(*) FILTER (WHERE q.state = {chr(39)}{s}{chr(39)}) AS "{s}"' for s in STATES)},
        CASE WHEN bool_and(q.lag_messages IS NOT NULL) THEN CAST(sum(q.lag_messages) AS bigint) END AS lag_messages,
        CASE WHEN bool_and(q.lag_seconds IS NOT NULL) THEN max(q.lag_seconds) END AS lag_seconds,
        CASE WHEN bool_and(q.uncopied_age IS NOT NULL) THEN max(q.uncopied_age) END AS uncopied_age_seconds,
        coalesce(array_agg(DISTINCT q.source_broker) FILTER (WHERE q.source_broker IS NOT NULL), '{{}}') AS source_brokers,
        CAST(coalesce(sum(q.copied_total), 0) AS bigint) AS copied_total,
        {", ".join(f"CAST(coalesce(sum(q.{r}), 0) AS bigint) AS {r}" for r in SKIP_REASONS)},
        CAST(coalesce(sum(q.parked), 0) AS bigint) AS parked,
        sum(q.rate_per_second) AS rate_per_second, max(q.p50) AS p50, max(q.p99) AS p99,
        coalesce((array_agg(q.error ORDER BY array_position(CAST(:states AS text[]), q.state) DESC)
            FILTER (WHERE q.error <> ''))[1], '') AS error
    FROM flows f LEFT JOIN queues q ON q.flow_id = f.flow_id
    WHERE NOT f.deleted
    GROUP BY f.flow_id
    ORDER BY f.task, f.source, f.destination""")


class Inspection:
    _database: Database

    async def runs(
        self,
        assignment_id: int,
        *,
        epoch: int | None = None,
        around_source: int | None = None,
        around_destination: int | None = None,
        limit: int = 1000,
    ) -> Sequence[Run]:
        assert around_source is None or around_destination is None, "around one side at a time"
        chosen = (runs.c.assignment_id == assignment_id) & (runs.c.epoch == epoch if epoch is not None else runs.c.epoch > 0)
        order = [runs.c.source_start, runs.c.epoch]
        query = select(runs).where(chosen)
        for column, offset in ((runs.c.source_start, around_source), (runs.c.destination_start, around_destination)):
            if offset is not None:
                begin = select(func.max(column)).where(chosen, column <= offset).scalar_subquery()
                query = query.where(column >= func.coalesce(begin, literal(offset)))
                order = [column, *order]
        async with self._database.begin() as connection:
            found = await connection.execute(query.order_by(*order).limit(limit))
            return sorted(
                (Run(row.epoch, row.source_start, row.destination_start, row.length) for row in found),
                key=lambda run: (run.source_start, run.epoch),
            )

    async def last_runs(self, assignment_id: int, limit: int) -> Sequence[Run]:
        query = select(runs).where(runs.c.assignment_id == assignment_id, runs.c.epoch > 0)
        query = query.order_by(runs.c.epoch.desc(), runs.c.source_start.desc())
        async with self._database.begin() as connection:
            found = await connection.execute(query.limit(limit))
            return [Run(row.epoch, row.source_start, row.destination_start, row.length) for row in found]

    async def holes(self, assignment_id: int, *, around_source: int | None = None, limit: int = 1000) -> Sequence[Hole]:
        chosen = (holes.c.assignment_id == assignment_id) & (holes.c.epoch > 0)
        query = select(holes).where(chosen)
        if around_source is not None:
            begin = select(func.max(holes.c.source_start)).where(chosen, holes.c.source_start <= around_source).scalar_subquery()
            query = query.where(holes.c.source_start >= func.coalesce(begin, literal(around_source)))
        async with self._database.begin() as connection:
            found = await connection.execute(query.order_by(holes.c.source_start, holes.c.epoch).limit(limit))
            return [Hole(row.epoch, row.source_start, row.length, row.reason) for row in found]

    async def parked(self, task: str) -> Sequence[tuple[Assignment, Parked]]:
        columns = (parked.c.parked_id, parked.c.source_offset, parked.c.size_bytes)
        labelled = (parked.c.reason.label("parked_reason"), parked.c.state.label("parked_state"))
        query: Select[Any] = (
            ASSIGNMENTS.add_columns(*columns, *labelled)
            .join(parked, parked.c.assignment_id == assignments.c.assignment_id)
            .where(flows.c.task == task)
            .order_by(None)
            .order_by(parked.c.parked_id)
            .limit(PARKED_ROWS_MAX)
        )
        async with self._database.begin() as connection:
            return [
                (assignment_of(row), Parked(row.source_offset, row.parked_reason, row.size_bytes, row.parked_id, row.parked_state))
                for row in await connection.execute(query)
            ]

    async def set_parked_state(self, parked_id: int, state: str) -> bool:
        async with self._database.begin() as connection:
            return (await connection.execute(update(parked).where(parked.c.parked_id == parked_id).values(state=state))).rowcount == 1

    async def record_event(self, task: str, kind: str, message: str, detail: dict[str, Any] | None = None) -> None:
        row = {"task": task, "kind": kind, "message": message, "detail": detail or {}}
        async with self._database.begin() as connection:
            event_id = (await connection.execute(insert(events).values(**row).returning(events.c.event_id))).scalar_one()
            if event_id % _PRUNE_EVERY == 0:
                own = select(events.c.event_id).where(events.c.task == task).order_by(events.c.event_id.desc())
                oldest = own.offset(EVENTS_PER_TASK_MAX - 1).limit(1).scalar_subquery()
                await connection.execute(delete(events).where(events.c.task == task, events.c.event_id < oldest))

    async def events(self, task: str, limit: int = 200) -> Sequence[Event]:
        query = select(events).where(events.c.task == task).order_by(events.c.event_id.desc()).limit(limit)
        async with self._database.begin() as connection:
            found = [Event(row.at, row.task, row.kind, row.message, row.detail) for row in await connection.execute(query)]
        return found[::-1]

    async def worker_seen(self, holder: str, info: dict[str, Any]) -> None:
        now = func.clock_timestamp()
        statement = upsert(workers).values(holder=holder, info=info, seen_at=now)
        statement = statement.on_conflict_do_update(index_elements=[workers.c.holder], set_={"info": info, "seen_at": now})
        known = select(workers.c.holder).where(workers.c.holder == holder)
        async with self._database.begin() as connection:
            is_new = (await connection.execute(known)).scalar() is None
            await connection.execute(statement)
            if is_new:
                await announce(connection)
            await connection.execute(delete(workers).where(workers.c.seen_at < now - func.make_interval(0, 0, 0, WORKER_DAYS_MAX)))

    async def workers(self, within_seconds: float) -> Sequence[tuple[str, dict[str, Any], datetime]]:
        since = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, within_seconds)
        query = select(workers).where(workers.c.seen_at >= since, workers.c.info["left"].is_(None)).order_by(workers.c.holder)
        async with self._database.begin() as connection:
            return [(row.holder, row.info, row.seen_at) for row in await connection.execute(query)]

    async def flow_figures(self) -> Sequence[dict[str, Any]]:
        values = {"figures_seconds_max": FIGURES_SECONDS_MAX, "states": list(STATES)}
        async with self._database.begin() as connection:
            rows = (await connection.execute(_FIGURES, values)).mappings().all()
        return [
            {
                **{name: row[name] for name in ("task", "source", "destination", "paused", "lag_messages", "lag_seconds", "copied_total")},
                **{name: row[name] for name in ("parked", "rate_per_second", "error", "uncopied_age_seconds")},
                "source_brokers": sorted(row["source_brokers"]),
                "queues_by_state": {state: row[state] for state in STATES if row[state]},
                "skipped_total": {reason: row[reason] for reason in SKIP_REASONS},
                "latency_ms": {"p50": row["p50"], "p99": row["p99"]},
            }
            for row in rows
        ]
