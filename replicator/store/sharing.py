"""Sharing of assignments among workers, in Postgres. Changes are announced with NOTIFY, so that a hand-over takes no poll."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from replicator.store.driver import Database
from replicator.store.limits import COORDINATOR_LEASE, WORKER_GONE_SECONDS
from replicator.store.notices import CHANNEL
from replicator.store.sharing_port import Released, Share, Staff, Watch
from replicator.store.tables import leases

_WANTED = "p.state = 'active' AND NOT p.paused AND NOT f.paused"
_LIVES = "w.info -> 'left' IS NULL AND w.seen_at > clock_timestamp() - make_interval(secs => :gone_seconds)"

_STAFF = text(f"""
    SELECT w.holder, coalesce(w.info ->> 'near', '') AS near, {_LIVES} AS lives FROM workers w WHERE w.info -> 'left' IS NULL""")

_REST = text(f"""
    SELECT pg_postmaster_start_time() + make_interval(secs => :gone_seconds) <= clock_timestamp() AS is_settled,
        (SELECT count(*) FROM assignments a JOIN pairs p ON p.pair_id = a.pair_id JOIN flows f ON f.flow_id = p.flow_id
         WHERE {_WANTED} AND NOT EXISTS (SELECT FROM workers w WHERE w.holder = a.worker AND {_LIVES})) AS strays""")

_SHARES = text(f"""
    SELECT a.assignment_id, f.destination, progress.rate_per_second, a.worker,
        CASE WHEN a.lease_until > clock_timestamp() THEN a.holder ELSE '' END AS holder
    FROM assignments a JOIN pairs p ON p.pair_id = a.pair_id JOIN flows f ON f.flow_id = p.flow_id
        JOIN progress ON progress.assignment_id = a.assignment_id
    WHERE {_WANTED} ORDER BY a.assignment_id""")

_PLACE = text("""
    WITH chosen AS (
        SELECT a.assignment_id, i.worker
        FROM assignments a JOIN unnest(CAST(:ids AS bigint[]), CAST(:workers AS text[])) i (id, worker) ON a.assignment_id = i.id
        WHERE a.worker <> i.worker ORDER BY a.assignment_id FOR NO KEY UPDATE OF a)
    UPDATE assignments a SET worker = chosen.worker FROM chosen WHERE a.assignment_id = chosen.assignment_id""")

_RELEASE = text("""
    WITH given AS (
        SELECT a.assignment_id, i.clean
        FROM assignments a
        JOIN unnest(CAST(:ids AS bigint[]), CAST(:tokens AS bigint[]), CAST(:clean AS boolean[])) i (id, token, clean)
            ON a.assignment_id = i.id
        WHERE a.token = i.token AND a.lease_until IS NOT NULL ORDER BY a.assignment_id FOR NO KEY UPDATE OF a)
    UPDATE assignments a SET lease_until = NULL, clean = given.clean FROM given WHERE given.assignment_id = a.assignment_id
    RETURNING a.assignment_id""")

_LEFT = text("UPDATE workers SET info = info || '{\"left\": true}' WHERE holder = :holder")
_DROP = text("UPDATE leases SET lease_until = '-infinity' WHERE name = :name AND holder = :holder")
_TELL = text("UPDATE leases SET detail = CAST(:detail AS jsonb) WHERE name = :name AND detail <> CAST(:detail AS jsonb)")
_TOLD = text("SELECT holder, detail FROM leases WHERE name = :name AND lease_until > clock_timestamp()")


async def coordinator_token(connection: AsyncConnection, holder: str) -> int | None:
    """Of the lease ``coordinator``, where ``holder`` has it; nobody takes it over before this transaction has ended."""
    is_held = (leases.c.name == COORDINATOR_LEASE) & (leases.c.holder == holder) & (leases.c.lease_until > func.clock_timestamp())
    return (await connection.execute(select(leases.c.token).where(is_held).with_for_update(read=True))).scalar()


async def announce(connection: AsyncConnection) -> None:
    """Watches hear of it when the transaction has ended."""
    await connection.execute(text(f"NOTIFY {CHANNEL}"))


class Sharing:
    _database: Database

    def watch(self) -> Watch:
        return self._database.notices.watch()

    async def staff(self) -> Staff:
        values = {"gone_seconds": WORKER_GONE_SECONDS}
        async with self._database.begin() as connection:
            workers = (await connection.execute(_STAFF, values)).all()
            rest = (await connection.execute(_REST, values)).one()
        near = {row.holder: row.near for row in workers if row.lives}
        return Staff(near, frozenset(row.holder for row in workers) - near.keys(), rest.is_settled, rest.strays)

    async def shares(self) -> Sequence[Share]:
        async with self._database.begin() as connection:
            rows = await connection.execute(_SHARES)
            return [Share(row.assignment_id, row.destination, row.worker, row.holder, row.rate_per_second) for row in rows]

    async def place(self, coordinator: str, placed: Mapping[int, str]) -> bool:
        async with self._database.begin() as connection:
            if await coordinator_token(connection, coordinator) is None:
                return False
            if placed:
                await connection.execute(_PLACE, {"ids": list(placed), "workers": list(placed.values())})
                await announce(connection)
            return True

    async def release_all(self, released: Sequence[Released]) -> set[int]:
        if not released:
            return set()
        ids, tokens, clean = (list(column) for column in zip(*released, strict=True))
        async with self._database.begin() as connection:
            found = await connection.execute(_RELEASE, {"ids": ids, "tokens": tokens, "clean": clean})
            await announce(connection)
            return set(found.scalars())

    async def worker_left(self, holder: str) -> None:
        async with self._database.begin() as connection:
            await connection.execute(_LEFT, {"holder": holder})
            await announce(connection)

    async def drop_coordinator(self, holder: str) -> None:
        async with self._database.begin() as connection:
            await connection.execute(_DROP, {"name": COORDINATOR_LEASE, "holder": holder})
            await announce(connection)

    async def tell_as_coordinator(self, holder: str, detail: dict[str, Any]) -> bool:
        async with self._database.begin() as connection:
            if await coordinator_token(connection, holder) is None:
                return False
            await connection.execute(_TELL, {"name": COORDINATOR_LEASE, "detail": json.dumps(detail)})
            return True

    async def told_by_coordinator(self) -> tuple[str, dict[str, Any]]:
        async with self._database.begin() as connection:
            row = (await connection.execute(_TOLD, {"name": COORDINATOR_LEASE})).one_or_none()
        return (row.holder, row.detail) if row is not None else ("", {})
