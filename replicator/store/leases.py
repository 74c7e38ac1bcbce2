"""Leases and fencing tokens, in Postgres. Expiry is judged by the database's clock, after any wait for a row lock.

Row locks of assignments are always taken in the order of their ids; whoever only wants free ones skips locked rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import func, select, text

from replicator.store.limits import COORDINATOR_LEASE, STICKY_STATES, WORKER_GONE_SECONDS
from replicator.store.port import FORMER_LEASE_MARK, Assignment
from replicator.store.rows import ASSIGNMENTS, read_assignments
from replicator.store.sharing import Sharing
from replicator.store.sharing_port import Released
from replicator.store.tables import assignments, pairs

_SECONDS = "make_interval(secs => CAST(:lease_seconds AS double precision))"
_EXPIRY_COUNTS = f"pg_postmaster_start_time() + {_SECONDS} <= clock_timestamp()"

_MAY_TAKE = """(a.worker = :holder
    OR NOT EXISTS (SELECT FROM leases l WHERE l.name = :coordinator AND l.lease_until > clock_timestamp())
    OR (a.worker <> '' AND NOT EXISTS (
        SELECT FROM workers w WHERE w.holder = a.worker AND w.seen_at > clock_timestamp() - make_interval(secs => :gone_seconds))))"""
"""Who says goodbye was seen just now: the coordinator has this long to choose again before everybody reaches for it."""

_ACQUIRE = text(f"""
    WITH free AS (
        SELECT a.assignment_id, a.holder, a.clean, a.holder || '{FORMER_LEASE_MARK}' || a.token AS lease
        FROM assignments a JOIN pairs p ON p.pair_id = a.pair_id JOIN flows f ON f.flow_id = p.flow_id
        WHERE p.state = 'active' AND NOT p.paused AND NOT f.paused AND {_MAY_TAKE}
          AND (a.lease_until IS NULL OR (a.lease_until <= clock_timestamp() AND {_EXPIRY_COUNTS}))
        ORDER BY a.assignment_id LIMIT :limit
        FOR NO KEY UPDATE OF a SKIP LOCKED)
    UPDATE assignments a
    SET token = a.token + 1, holder = :holder, clean = false, revoked = false, lease_until = clock_timestamp() + {_SECONDS},
        senders = CASE WHEN free.clean OR free.holder = '' THEN a.senders ELSE array_append(a.senders, free.lease) END
    FROM free WHERE free.assignment_id = a.assignment_id
    RETURNING a.assignment_id, free.holder, free.clean""")

_BEGIN = text(f"""
    UPDATE progress SET state = 'starting'
    WHERE assignment_id = ANY (CAST(:ids AS bigint[])) AND state NOT IN ({", ".join(f"'{state}'" for state in STICKY_STATES)})""")
"""What the last holder reported says nothing of the new one."""

_RENEW = text(f"""
    UPDATE assignments SET lease_until = clock_timestamp() + {_SECONDS}
    WHERE assignment_id IN (
        SELECT assignment_id FROM assignments WHERE holder = :holder AND lease_until IS NOT NULL
        ORDER BY assignment_id FOR NO KEY UPDATE)
      AND holder = :holder AND lease_until IS NOT NULL
    RETURNING assignment_id, token""")

_REVOKED = text("""
    SELECT a.assignment_id FROM assignments a JOIN pairs p ON p.pair_id = a.pair_id LEFT JOIN flows f ON f.flow_id = p.flow_id
    WHERE a.holder = :holder AND a.lease_until IS NOT NULL
      AND (a.revoked OR f.flow_id IS NULL OR f.paused OR p.paused OR p.state <> 'active' OR (a.worker <> :holder AND EXISTS (
        SELECT FROM workers w WHERE w.holder = a.worker AND w.info -> 'left' IS NULL
          AND w.seen_at > clock_timestamp() - make_interval(secs => :gone_seconds))))
    ORDER BY a.assignment_id""")

_HOLD = text(f"""
    INSERT INTO leases (name, holder, lease_until, token) VALUES (:name, :holder, clock_timestamp() + {_SECONDS}, 1)
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, lease_until = clock_timestamp() + {_SECONDS},
        token = leases.token + CASE WHEN leases.holder = excluded.holder THEN 0 ELSE 1 END
    WHERE leases.holder = excluded.holder OR leases.lease_until = '-infinity'
        OR (leases.lease_until <= clock_timestamp() AND {_EXPIRY_COUNTS})
    RETURNING name""")


class Leases(Sharing):

    async def acquire(self, holder: str, lease_seconds: float, limit: int) -> Sequence[Assignment]:
        values = {
            "holder": holder, "lease_seconds": lease_seconds, "limit": limit, "coordinator": COORDINATOR_LEASE,
            "gone_seconds": max(lease_seconds, WORKER_GONE_SECONDS),
        }  # fmt: skip
        async with self._database.begin() as connection:
            before = {row.assignment_id: row for row in await connection.execute(_ACQUIRE, values)}
            if not before:
                return []
            await connection.execute(_BEGIN, {"ids": list(before)})
            taken = await read_assignments(connection, ASSIGNMENTS.where(assignments.c.assignment_id.in_(before)))
        return [replace(one, holder=before[one.assignment_id].holder, clean=before[one.assignment_id].clean) for one in taken]

    async def renew(self, holder: str, lease_seconds: float) -> Mapping[int, int]:
        async with self._database.begin() as connection:
            rows = await connection.execute(_RENEW, {"holder": holder, "lease_seconds": lease_seconds})
            return {row.assignment_id: row.token for row in rows}

    async def release(self, assignment_id: int, token: int, *, clean: bool) -> bool:
        return bool(await self.release_all([Released(assignment_id, token, clean)]))

    async def leased_count(self, task: str) -> int:
        query = select(func.count()).select_from(assignments).join(pairs, pairs.c.pair_id == assignments.c.pair_id)
        query = query.where(pairs.c.last_task == task, assignments.c.lease_until > func.clock_timestamp())
        async with self._database.begin() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def revoked(self, holder: str) -> Sequence[int]:
        async with self._database.begin() as connection:
            return list((await connection.execute(_REVOKED, {"holder": holder, "gone_seconds": WORKER_GONE_SECONDS})).scalars())

    async def hold_coordinator(self, holder: str, lease_seconds: float) -> bool:
        values = {"name": COORDINATOR_LEASE, "holder": holder, "lease_seconds": lease_seconds}
        async with self._database.begin() as connection:
            return (await connection.execute(_HOLD, values)).scalar() is not None
