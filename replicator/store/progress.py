"""Checkpoints and the offset map, in Postgres.

A save is one transaction with the same few statements for any number of assignments: what belongs to them travels as
arrays. It begins by locking the assignments whose token is still the newest, so that no new holder can read a
checkpoint while an old one is about to write it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from replicator.core.correspondence import Intervals
from replicator.core.offset_map import Epoch
from replicator.core.record import UNSEEN_COMMIT_LOG_OFFSET
from replicator.core.stamping import NOTHING_TO_RESTORE, Restoration
from replicator.store import rules, tables
from replicator.store.driver import Database
from replicator.store.merging import Segment, free_of, hole_segment, merge, run_segment
from replicator.store.port import Checkpoint, Hole, Progress

_LOCK = text("""
    SELECT a.assignment_id FROM assignments a
    JOIN unnest(CAST(:ids AS bigint[]), CAST(:tokens AS bigint[])) i (id, token) ON a.assignment_id = i.id
    WHERE a.token = i.token AND a.lease_until IS NOT NULL
    ORDER BY a.assignment_id FOR NO KEY UPDATE OF a""")

_SENDERS = text("""
    UPDATE assignments a SET senders = ARRAY(SELECT jsonb_array_elements_text(CAST(i.senders AS jsonb)))
    FROM unnest(CAST(:ids AS bigint[]), CAST(:senders AS text[])) i (id, senders)
    WHERE a.assignment_id = i.id
      AND a.senders IS DISTINCT FROM ARRAY(SELECT jsonb_array_elements_text(CAST(i.senders AS jsonb)))""")

_COLUMNS: dict[str, str] = {
    "epoch": "integer",
    "examined_through": "bigint",
    "confirmed_source_offset": "bigint",
    "confirmed_destination_offset": "bigint",
    "identity_offset": "bigint",
    "identity_store_timestamp_ms": "bigint",
    "identity_commit_log_offset": "bigint",
    "identity_body_crc": "bigint",
    "scanned_through": "bigint",
    "seen": "text",
    "in_flight": "boolean",
    "copied_total": "bigint",
    "skipped_total": "text",
    "state": "text",
    "error": "text",
    "lag_messages": "bigint",
    "lag_seconds": "double precision",
    "rate_per_second": "double precision",
    "latency_p50_ms": "double precision",
    "latency_p99_ms": "double precision",
    "to_relearn": "text",
    "map_changes": "bigint",
    "map_rewrites": "bigint",
}
_COUNTED = {
    "map_changes": "map_version = p.map_version + i.map_changes",
    "map_rewrites": "map_rewritten = CASE WHEN i.map_rewrites > 0 THEN p.map_version + i.map_changes ELSE p.map_rewritten END",
}
_JSON_COLUMNS = ("seen", "skipped_total", "to_relearn")


def _assigned(name: str) -> str:
    value = f"CAST(i.{name} AS jsonb)" if name in _JSON_COLUMNS else f"i.{name}"
    return _COUNTED.get(name, f"{name} = {value}")


_CHECKPOINTS = text(f"""
    UPDATE progress p SET has_checkpoint = true, observed_at = clock_timestamp(), {", ".join(map(_assigned, _COLUMNS))}
    FROM unnest(CAST(:ids AS bigint[]), {", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in _COLUMNS.items())})
        i (id, {", ".join(_COLUMNS)})
    WHERE p.assignment_id = i.id""")

_LAST_ROWS = text("""
    SELECT i.id, r.epoch AS runs_epoch, r.source_start AS runs_start, h.epoch AS holes_epoch, h.source_start AS holes_start
    FROM unnest(CAST(:ids AS bigint[])) i (id)
    LEFT JOIN LATERAL (SELECT u.epoch, u.source_start FROM runs u WHERE u.assignment_id = i.id
        ORDER BY u.epoch DESC, u.source_start DESC LIMIT 1) r ON true
    LEFT JOIN LATERAL (SELECT u.epoch, u.source_start FROM holes u WHERE u.assignment_id = i.id
        ORDER BY u.epoch DESC, u.source_start DESC LIMIT 1) h ON true""")

_DROP_ITEMS = "unnest(CAST(:ids AS bigint[]), CAST(:epochs AS integer[]), CAST(:froms AS bigint[])) i (id, epoch, first)"


def _drops(table: str) -> tuple[Any, Any]:
    same = "t.assignment_id = i.id AND t.epoch = i.epoch"
    return (
        text(f"DELETE FROM {table} t USING {_DROP_ITEMS} WHERE {same} AND t.source_start >= i.first"),
        text(f"""
            UPDATE {table} t SET length = i.first - t.source_start FROM {_DROP_ITEMS}
            WHERE {same} AND t.source_start = (
                SELECT max(u.source_start) FROM {table} u WHERE u.assignment_id = i.id AND u.epoch = i.epoch AND u.source_start < i.first)
              AND t.source_start + t.length > i.first"""),
    )


def _neighbours(table: str, label: str) -> Any:
    """Stored segments that may touch or overlap ``[first, last]`` of an assignment's new ones."""
    return text(f"""
        SELECT t.assignment_id, t.epoch, t.source_start, t.length, t.{label} AS label
        FROM unnest(CAST(:ids AS bigint[]), CAST(:epochs AS integer[]), CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[]))
            i (id, epoch, first, last)
        CROSS JOIN LATERAL (
            SELECT coalesce(max(u.source_start), i.first) AS start FROM {table} u
            WHERE u.assignment_id = i.id AND u.epoch = i.epoch AND u.source_start < i.first) b
        JOIN {table} t ON t.assignment_id = i.id AND t.epoch = i.epoch AND t.source_start BETWEEN b.start AND i.last
        ORDER BY t.assignment_id, t.epoch, t.source_start""")


def _writes(table: str, label: str, label_type: str) -> tuple[Any, Any]:
    return (
        text(f"""
            DELETE FROM {table} t
            USING unnest(CAST(:ids AS bigint[]), CAST(:epochs AS integer[]), CAST(:starts AS bigint[])) i (id, epoch, start)
            WHERE t.assignment_id = i.id AND t.epoch = i.epoch AND t.source_start = i.start"""),
        text(f"""
            INSERT INTO {table} (assignment_id, epoch, source_start, length, {label})
            SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:epochs AS integer[]), CAST(:starts AS bigint[]),
                CAST(:lengths AS bigint[]), CAST(:labels AS {label_type}[]))
            ON CONFLICT (assignment_id, epoch, source_start)
            DO UPDATE SET length = excluded.length, {label} = excluded.{label}"""),
    )


Kind = Literal["runs", "holes"]
_LABELS: dict[Kind, tuple[str, str]] = {"runs": ("destination_start", "bigint"), "holes": ("reason", "text")}
_DROPS = {kind: _drops(kind) for kind in _LABELS}
_NEIGHBOURS = {kind: _neighbours(kind, label) for kind, (label, _) in _LABELS.items()}
_WRITES = {kind: _writes(kind, label, label_type) for kind, (label, label_type) in _LABELS.items()}

_DUPLICATES = text("""
    INSERT INTO duplicates (assignment_id, epoch, source_offset, destination_offset, kind)
    SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:epochs AS integer[]), CAST(:sources AS bigint[]),
        CAST(:destinations AS bigint[]), CAST(:kinds AS text[]))
    ON CONFLICT DO NOTHING""")

_PARKED = text("""
    INSERT INTO parked (assignment_id, epoch, source_offset, reason, size_bytes)
    SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:epochs AS integer[]), CAST(:sources AS bigint[]),
        CAST(:reasons AS text[]), CAST(:sizes AS bigint[]))
    ON CONFLICT ON CONSTRAINT parked_place DO NOTHING""")

_LOCK_FOR_EPOCH = text("""
    SELECT p.epoch, p.skipped_total, a.clean, a.holder,
       CASE WHEN p.has_checkpoint THEN p.examined_through ELSE a.start_offset END AS examined_through,
        a.lease_until IS NOT NULL AND a.lease_until > clock_timestamp() AS leased
    FROM assignments a JOIN progress p ON p.assignment_id = a.assignment_id
    WHERE a.assignment_id = :assignment_id FOR NO KEY UPDATE OF a, p""")

_NEW_TOKEN = text("UPDATE assignments SET token = token + 1, lease_until = NULL WHERE assignment_id = :assignment_id")

_NEW_EPOCH = text("""
    UPDATE progress SET map_version = map_version + 1, map_rewritten = map_version + 1,
        has_checkpoint = true, epoch = :epoch, examined_through = :examined_through,
        confirmed_source_offset = -1, confirmed_destination_offset = -1,
        identity_offset = NULL, identity_store_timestamp_ms = NULL, identity_commit_log_offset = NULL, identity_body_crc = NULL,
        seen = '{}', state = 'starting', error = '', lag_messages = NULL, lag_seconds = NULL,
        skipped_total = skipped_total || CAST(:skipped AS jsonb)
    WHERE assignment_id = :assignment_id""")

_NOT_SEEN = f"identity_commit_log_offset = {UNSEEN_COMMIT_LOG_OFFSET}"

_RESTORING_EPOCH = text(f"""
    UPDATE progress SET map_version = map_version + 1, map_rewritten = map_version + 1,
        has_checkpoint = true, epoch = :epoch, examined_through = :examined_through,
        confirmed_source_offset = -1, confirmed_destination_offset = -1,
        identity_offset = CASE WHEN {_NOT_SEEN} THEN NULL ELSE identity_offset END,
        identity_store_timestamp_ms = CASE WHEN {_NOT_SEEN} THEN NULL ELSE identity_store_timestamp_ms END,
        identity_commit_log_offset = CASE WHEN {_NOT_SEEN} THEN NULL ELSE identity_commit_log_offset END,
        identity_body_crc = CASE WHEN {_NOT_SEEN} THEN NULL ELSE identity_body_crc END,
        state = 'starting', error = '', lag_messages = NULL, lag_seconds = NULL
    WHERE assignment_id = :assignment_id""")

_EPOCH_ROW = text("""
    INSERT INTO epochs (assignment_id, epoch, divergence_offset, start_offset)
    VALUES (:assignment_id, :epoch, :divergence_offset, :examined_through)""")

_RESTORATION = text("""
    SELECT e.divergence_offset, r.source_start, r.length
    FROM restorations r JOIN epochs e ON e.assignment_id = r.assignment_id AND e.epoch = r.epoch
    WHERE r.assignment_id = :assignment_id AND r.epoch = :epoch ORDER BY r.source_start""")

_EPOCHS_FOUND = text("""
    INSERT INTO epochs (assignment_id, epoch, divergence_offset, start_offset)
    SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:epochs AS integer[]), CAST(:divergences AS bigint[]), CAST(:starts AS bigint[]))
    ON CONFLICT DO NOTHING RETURNING assignment_id""")

_EPOCH_EVENT = text("""
    INSERT INTO events (task, kind, message, detail)
    SELECT p.last_task, 'epoch', :message, CAST(:detail AS jsonb)
    FROM assignments a JOIN pairs p ON p.pair_id = a.pair_id WHERE a.assignment_id = :assignment_id""")

Place = tuple[int, int]
"""(assignment_id, epoch)."""


class ProgressWrites:
    _database: Database

    async def save_progress(self, items: Sequence[Progress]) -> set[int]:
        if not items:
            return set()
        ids = [item.assignment_id for item in items]
        assert len(set(ids)) == len(ids), "one save holds an assignment once"
        async with self._database.begin() as connection:
            tokens = [item.token for item in items]
            newest = set((await connection.execute(_LOCK, {"ids": ids, "tokens": tokens})).scalars())
            kept = [item for item in items if item.assignment_id in newest]
            if kept:
                await _save(connection, kept)
        return set(ids) - newest

    async def set_epoch(
        self,
        assignment_id: int,
        epoch: int,
        examined_through: int,
        reason: str,
        *,
        given_up: Hole | None = None,
        divergence_offset: int | None = None,
    ) -> None:
        divergence = examined_through if divergence_offset is None else divergence_offset
        async with self._database.begin() as connection:
            row = (await connection.execute(_LOCK_FOR_EPOCH, {"assignment_id": assignment_id})).one_or_none()
            if row is None:
                raise rules.assignment_is_gone(assignment_id)
            rules.refuse_epoch(assignment_id, epoch, row.epoch, row.holder if row.leased else None)
            await connection.execute(_NEW_TOKEN, {"assignment_id": assignment_id})
            skipped = {}
            if given_up is not None:
                count = await _give_up(connection, assignment_id, given_up)
                skipped[given_up.reason] = row.skipped_total.get(given_up.reason, 0) + count
            values = {"epoch": epoch, "examined_through": examined_through, "skipped": json.dumps(skipped)}
            await connection.execute(_NEW_EPOCH, {"assignment_id": assignment_id, **values})
            place = {"assignment_id": assignment_id, "epoch": epoch, "examined_through": examined_through}
            await connection.execute(_EPOCH_ROW, {**place, "divergence_offset": divergence})
            message, detail = rules.epoch_event(assignment_id, epoch, examined_through, reason, given_up, divergence)
            await connection.execute(_EPOCH_EVENT, {"assignment_id": assignment_id, "message": message, "detail": json.dumps(detail)})

    async def begin_restore(self, assignment_id: int, ranges: Sequence[tuple[int, int]], reason: str) -> int:
        async with self._database.begin() as connection:
            row = (await connection.execute(_LOCK_FOR_EPOCH, {"assignment_id": assignment_id})).one_or_none()
            if row is None:
                raise rules.assignment_is_gone(assignment_id)
            rules.refuse_leased(assignment_id, row.holder if row.leased else None)
            rules.refuse_unclean(assignment_id, row.clean)
            rules.refuse_unexamined(assignment_id, ranges, row.examined_through)
            await connection.execute(_NEW_TOKEN, {"assignment_id": assignment_id})
            place = {"assignment_id": assignment_id, "epoch": row.epoch + 1, "examined_through": ranges[0][0]}
            await connection.execute(_RESTORING_EPOCH, place)
            await connection.execute(_EPOCH_ROW, {**place, "divergence_offset": row.examined_through})
            rows = [{"assignment_id": assignment_id, "epoch": row.epoch + 1, "source_start": a, "length": b - a} for a, b in ranges]
            await connection.execute(insert(tables.restorations), rows)
            message, detail = rules.restore_event(assignment_id, row.epoch + 1, ranges, row.examined_through, reason)
            await connection.execute(_EPOCH_EVENT, {"assignment_id": assignment_id, "message": message, "detail": json.dumps(detail)})
            return int(row.epoch + 1)

    async def restoration(self, assignment_id: int, epoch: int) -> Restoration:
        async with self._database.begin() as connection:
            rows = (await connection.execute(_RESTORATION, {"assignment_id": assignment_id, "epoch": epoch})).all()
        if not rows:
            return NOTHING_TO_RESTORE
        return Restoration(rows[0].divergence_offset, Intervals((row.source_start, row.source_start + row.length) for row in rows))


async def _save(connection: AsyncConnection, items: Sequence[Progress]) -> None:
    ids = [item.assignment_id for item in items]
    changes = await _save_map(connection, items)
    await save_checkpoints(connection, items, changes)
    await connection.execute(_SENDERS, {"ids": ids, "senders": [json.dumps(item.senders) for item in items]})
    await _save_parked(connection, items)


async def save_checkpoints(connection: AsyncConnection, items: Sequence[Progress], changes: Changes) -> None:
    rows = [_columns(item, changes) for item in items]
    ids = [item.assignment_id for item in items]
    await connection.execute(_CHECKPOINTS, {"ids": ids, **{name: [row[name] for row in rows] for name in _COLUMNS}})


@dataclass(slots=True)
class Changes:
    """Which maps a save changes, and in which of them more than the end."""

    last_rows: dict[tuple[Kind, int], Place] = field(default_factory=dict)
    """Of each kind and assignment: (epoch, source start) before the save."""
    changed: set[int] = field(default_factory=set)
    rewritten: set[int] = field(default_factory=set)

    def note(self, kind: Kind, assignment_id: int, epoch: int, source_start: int) -> None:
        self.changed.add(assignment_id)
        if (epoch, source_start) < self.last_rows.get((kind, assignment_id), (0, 0)):
            self.rewritten.add(assignment_id)

    def note_all(self, assignment_id: int) -> None:
        self.changed.add(assignment_id)
        self.rewritten.add(assignment_id)


async def _read_last_rows(connection: AsyncConnection, assignment_ids: Sequence[int], changes: Changes) -> None:
    for row in await connection.execute(_LAST_ROWS, {"ids": assignment_ids}):
        if row.runs_epoch is not None:
            changes.last_rows["runs", row.id] = (row.runs_epoch, row.runs_start)
        if row.holes_epoch is not None:
            changes.last_rows["holes", row.id] = (row.holes_epoch, row.holes_start)


async def _save_map(connection: AsyncConnection, items: Sequence[Progress]) -> Changes:
    changes = Changes()
    touched = [item.assignment_id for item in items if item.runs or item.holes]
    if touched:
        await _read_last_rows(connection, touched, changes)
    drops = [(item.assignment_id, item.checkpoint.epoch, item.drop_runs_from) for item in items if item.drop_runs_from is not None]
    if drops:
        values = dict(zip(("ids", "epochs", "froms"), _arrays(drops), strict=True))
        for statements in _DROPS.values():
            for statement in statements:
                await connection.execute(statement, values)
        for assignment_id, _, _ in drops:
            changes.note_all(assignment_id)
    runs: dict[Place, list[Segment]] = defaultdict(list)
    holes: dict[Place, list[Segment]] = defaultdict(list)
    for item in items:
        for run in item.runs:
            runs[item.assignment_id, run.epoch].append(run_segment(run))
        for hole in item.holes:
            holes[item.assignment_id, hole.epoch].append(hole_segment(hole))
    await append_segments(connection, "runs", runs, changes)
    await append_segments(connection, "holes", holes, changes)
    seconds = [
        (item.assignment_id, one.epoch, one.source_offset, one.destination_offset, one.kind) for item in items for one in item.duplicates
    ]
    await save_duplicates(connection, seconds)
    changes.changed.update(assignment_id for assignment_id, *_ in seconds)
    found = [(item.assignment_id, *epoch_row(one)) for item in items for one in item.epochs]
    if found:
        values = dict(zip(("ids", "epochs", "divergences", "starts"), _arrays(found), strict=True))
        for assignment_id in (await connection.execute(_EPOCHS_FOUND, values)).scalars():
            changes.note_all(assignment_id)
    return changes


def epoch_row(one: Epoch) -> tuple[int, int, int]:
    """(epoch, divergence offset, start offset)"""
    return one.number, one.divergence_offset, one.divergence_offset if one.start_offset is None else one.start_offset


def _columns(item: Progress, changes: Changes) -> dict[str, Any]:
    checkpoint: Checkpoint = item.checkpoint
    identity = checkpoint.identity
    latency = item.latency_ms
    return {
        "epoch": checkpoint.epoch,
        "examined_through": checkpoint.examined_through,
        "confirmed_source_offset": checkpoint.confirmed_source_offset,
        "confirmed_destination_offset": checkpoint.confirmed_destination_offset,
        "identity_offset": identity.queue_offset if identity else None,
        "identity_store_timestamp_ms": identity.store_timestamp_ms if identity else None,
        "identity_commit_log_offset": identity.commit_log_offset if identity else None,
        "identity_body_crc": identity.body_crc if identity else None,
        "scanned_through": checkpoint.scanned_through,
        "seen": json.dumps(checkpoint.seen),
        "in_flight": checkpoint.in_flight,
        "copied_total": checkpoint.copied_total,
        "skipped_total": json.dumps(checkpoint.skipped_total),
        "state": item.state,
        "error": item.error,
        "lag_messages": item.lag_messages,
        "lag_seconds": item.lag_seconds,
        "rate_per_second": item.rate_per_second,
        "latency_p50_ms": latency[0] if latency else None,
        "latency_p99_ms": latency[1] if latency else None,
        "to_relearn": json.dumps(asdict(checkpoint.to_relearn)) if checkpoint.to_relearn else None,
        "map_changes": int(item.assignment_id in changes.changed),
        "map_rewrites": int(item.assignment_id in changes.rewritten),
    }


async def append_segments(connection: AsyncConnection, kind: Kind, new: dict[Place, list[Segment]], changes: Changes) -> None:
    if not new:
        return
    bounds = [(*place, min(s.start for s in segments), max(s.end for s in segments)) for place, segments in new.items()]
    stored = await _near(connection, kind, bounds)
    written, removed = [], []
    for place, segments in new.items():
        change = merge(stored[place], segments)
        removed += [(*place, start) for start in change.removed]
        for start, end, label in change.written:
            value = start + label if isinstance(label, int) else label
            written.append((*place, start, end - start, value))
        for start in (*change.removed, *(segment.start for segment in change.written)):
            changes.note(kind, *place, start)
    remove, write = _WRITES[kind]
    if removed:
        await connection.execute(remove, dict(zip(("ids", "epochs", "starts"), _arrays(removed), strict=True)))
    if written:
        await connection.execute(write, dict(zip(("ids", "epochs", "starts", "lengths", "labels"), _arrays(written), strict=True)))


async def _near(connection: AsyncConnection, kind: Kind, bounds: Sequence[tuple[int, int, int, int]]) -> dict[Place, list[Segment]]:
    """Stored segments that may touch or overlap ``(assignment, epoch, first, end)``."""
    values = dict(zip(("ids", "epochs", "firsts", "lasts"), _arrays(bounds), strict=True))
    stored: dict[Place, list[Segment]] = defaultdict(list)
    for row in await connection.execute(_NEIGHBOURS[kind], values):
        label = row.label - row.source_start if kind == "runs" else row.label
        stored[row.assignment_id, row.epoch].append(Segment(row.source_start, row.source_start + row.length, label))
    return stored


async def _give_up(connection: AsyncConnection, assignment_id: int, hole: Hole) -> int:
    """Adds what of the hole no run or hole answers for; returns how many offsets that is."""
    place, bounds = (assignment_id, hole.epoch), [(assignment_id, hole.epoch, hole.source_start, hole.source_start + hole.length)]
    runs, holes = (await _near(connection, "runs", bounds))[place], (await _near(connection, "holes", bounds))[place]
    pieces = free_of(hole, runs, holes)
    await append_segments(connection, "holes", {place: [hole_segment(piece) for piece in pieces]} if pieces else {}, Changes())
    return sum(piece.length for piece in pieces)


async def save_duplicates(connection: AsyncConnection, rows: Sequence[tuple[int, int, int, int, str]]) -> None:
    """``rows``: (assignment, epoch, source offset, destination offset, kind)."""
    if rows:
        names = ("ids", "epochs", "sources", "destinations", "kinds")
        await connection.execute(_DUPLICATES, dict(zip(names, _arrays(rows), strict=True)))


async def _save_parked(connection: AsyncConnection, items: Sequence[Progress]) -> None:
    refused = [
        (item.assignment_id, item.checkpoint.epoch, one.source_offset, one.reason, one.size_bytes)
        for item in items for one in item.parked
    ]
    if refused:
        names = ("ids", "epochs", "sources", "reasons", "sizes")
        await connection.execute(_PARKED, dict(zip(names, _arrays(refused), strict=True)))


def _arrays(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
