"""A map made anew beside the old one, in Postgres: its rows stand under negative epochs, where nobody looks, until they replace it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import delete, insert, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from replicator.core.copies import UNKNOWN
from replicator.core.offset_map import Epoch
from replicator.store import rules, tables
from replicator.store.driver import Database
from replicator.store.merging import Segment, hole_segment, run_segment
from replicator.store.port import Checkpoint, Duplicate, Hole, Progress, Run
from replicator.store.progress import Changes, Place, append_segments, epoch_row, save_checkpoints, save_duplicates

_TABLES = (tables.runs, tables.holes, tables.duplicates)

_LEASED = text("""
    SELECT holder, lease_until IS NOT NULL AND lease_until > clock_timestamp() AS leased
    FROM assignments WHERE assignment_id = :assignment_id FOR NO KEY UPDATE""")

_NEW_TOKEN = text("""
    UPDATE assignments SET token = token + 1, lease_until = NULL WHERE assignment_id = :assignment_id RETURNING token""")

_IS_OURS = text("""
    SELECT 1 FROM assignments WHERE assignment_id = :assignment_id AND token = :token AND lease_until IS NULL FOR NO KEY UPDATE""")

_FILL_GAPS = text(f"""
    INSERT INTO holes (assignment_id, epoch, source_start, length, reason)
    SELECT :assignment_id, g.epoch, g.first, least(g.next, b.below) - g.first, '{UNKNOWN}'
    FROM (
        SELECT epoch, source_start + length AS first, lead(source_start) OVER (PARTITION BY epoch ORDER BY source_start) AS next
        FROM runs WHERE assignment_id = :assignment_id AND epoch < 0) g
    JOIN unnest(CAST(:epochs AS integer[]), CAST(:belows AS bigint[])) b (epoch, below) ON b.epoch = -g.epoch
    WHERE least(g.next, b.below) > g.first AND g.next IS NOT NULL
    ON CONFLICT DO NOTHING""")


class MapRebuilds:
    _database: Database

    async def begin_map(self, assignment_id: int) -> int:
        async with self._database.begin() as connection:
            row = (await connection.execute(_LEASED, {"assignment_id": assignment_id})).one_or_none()
            if row is None:
                raise rules.assignment_is_gone(assignment_id)
            rules.refuse_leased(assignment_id, row.holder if row.leased else None)
            for table in _TABLES:
                await connection.execute(delete(table).where(table.c.assignment_id == assignment_id, table.c.epoch < 0))
            return int((await connection.execute(_NEW_TOKEN, {"assignment_id": assignment_id})).scalar_one())

    async def stage_map(
        self, assignment_id: int, token: int, runs: Sequence[Run], holes: Sequence[Hole], duplicates: Sequence[Duplicate]
    ) -> bool:
        new_runs: dict[Place, list[Segment]] = defaultdict(list)
        new_holes: dict[Place, list[Segment]] = defaultdict(list)
        for run in runs:
            new_runs[assignment_id, -run.epoch].append(run_segment(run))
        for hole in holes:
            new_holes[assignment_id, -hole.epoch].append(hole_segment(hole))
        async with self._database.begin() as connection:
            if not await _is_ours(connection, assignment_id, token):
                return False
            await append_segments(connection, "runs", new_runs, Changes())
            await append_segments(connection, "holes", new_holes, Changes())
            seconds = [(assignment_id, -one.epoch, one.source_offset, one.destination_offset, one.kind) for one in duplicates]
            await save_duplicates(connection, seconds)
            return True

    async def replace_map(
        self, assignment_id: int, token: int, checkpoint: Checkpoint, epochs: Sequence[Epoch], unknown_below: Mapping[int, int]
    ) -> bool:
        values = {"assignment_id": assignment_id, "epochs": list(unknown_below), "belows": list(unknown_below.values())}
        async with self._database.begin() as connection:
            if not await _is_ours(connection, assignment_id, token):
                return False
            await connection.execute(_FILL_GAPS, values)
            for table in _TABLES:
                own = table.c.assignment_id == assignment_id
                await connection.execute(delete(table).where(own, table.c.epoch > 0))
                await connection.execute(update(table).where(own).values(epoch=-table.c.epoch))
            await connection.execute(delete(tables.epochs).where(tables.epochs.c.assignment_id == assignment_id))
            later = [epoch_row(one) for one in epochs[1:]]
            names = ("epoch", "divergence_offset", "start_offset")
            if later:
                rows = [{"assignment_id": assignment_id, **dict(zip(names, row, strict=True))} for row in later]
                await connection.execute(insert(tables.epochs), rows)
            changes = Changes()
            changes.note_all(assignment_id)
            await save_checkpoints(connection, [Progress(assignment_id, token, checkpoint, state="starting")], changes)
            return True


async def _is_ours(connection: AsyncConnection, assignment_id: int, token: int) -> bool:
    found = await connection.execute(_IS_OURS, {"assignment_id": assignment_id, "token": token})
    return found.scalar() is not None
