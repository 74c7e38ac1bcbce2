"""Loading whole offset maps from Postgres: columns travel as bytes, packed by the server."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from replicator.core.map_rows import HoleColumns, Place, RunColumns
from replicator.core.offset_map import Epoch
from replicator.store.driver import Database
from replicator.store.limits import MAP_PAGE_ROWS_MAX
from replicator.store.port import Duplicate, KnownRows, MapRows, MapVersion
from replicator.store.tables import duplicates, epochs

_VERSIONS = """
    SELECT a.assignment_id, a.start_offset, p.map_version, p.map_rewritten, p.scanned_through,
        CASE WHEN p.has_checkpoint THEN p.examined_through ELSE a.start_offset END AS examined_through,
        CAST(p.to_relearn ->> 'destination_start' AS bigint) AS relearn_from
    FROM assignments a JOIN progress p ON p.assignment_id = a.assignment_id"""
_VERSION_OF_MANY = text(f"{_VERSIONS} WHERE a.assignment_id = ANY(CAST(:ids AS bigint[]))")
_VERSION_OF_ONE = text(f"{_VERSIONS} WHERE a.assignment_id = :assignment_id")

_ONE_MOMENT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _page(table: str, columns: Sequence[str]) -> Any:
    packed = ", ".join(f"string_agg(int8send(CAST({column} AS bigint)), '') AS c{n}" for n, column in enumerate(columns))
    return text(f"""
        SELECT {packed} FROM (
            SELECT * FROM {table} WHERE assignment_id = :assignment_id AND (epoch, source_start) > (:epoch, :source_start)
            ORDER BY epoch, source_start LIMIT :page_rows) page""")


_RUNS = _page("runs", ("epoch", "source_start", "destination_start", "length"))
_HOLES = _page("holes", ("epoch", "source_start", "length", "array_position(CAST(:reasons AS text[]), reason) - 1"))
_REASONS = text("""
    SELECT DISTINCT reason FROM holes WHERE assignment_id = :assignment_id AND (epoch, source_start) > (:epoch, :source_start)""")


class Maps:
    _database: Database

    async def duplicates(self, assignment_id: int) -> Sequence[Duplicate]:
        async with self._database.begin() as connection:
            return await _read_duplicates(connection, assignment_id)

    async def epochs(self, assignment_id: int) -> Sequence[Epoch]:
        async with self._database.begin() as connection:
            return await _read_epochs(connection, assignment_id)

    async def map_versions(self, assignment_ids: Sequence[int]) -> Mapping[int, MapVersion]:
        async with self._database.begin() as connection:
            rows = await connection.execute(_VERSION_OF_MANY, {"ids": list(assignment_ids)})
            return {row.assignment_id: _version_of(row) for row in rows}

    async def map_rows(self, assignment_id: int, known: KnownRows | None = None) -> MapRows | None:
        async with self._database.begin() as connection:
            await connection.execute(_ONE_MOMENT)
            row = (await connection.execute(_VERSION_OF_ONE, {"assignment_id": assignment_id})).one_or_none()
            if row is None:
                return None
            version = _version_of(row)
            if known is not None and version.rewritten > known.version:
                known = None
            runs, holes = RunColumns(), HoleColumns()
            await _read_runs(connection, assignment_id, _before(known.last_run if known else None), runs)
            await _read_holes(connection, assignment_id, _before(known.last_hole if known else None), holes)
            return MapRows(
                version, known is None, runs, holes,
                await _read_duplicates(connection, assignment_id), await _read_epochs(connection, assignment_id), row.start_offset,
            )


def _version_of(row: Row[Any]) -> MapVersion:
    return MapVersion(row.map_version, row.map_rewritten, row.examined_through, row.scanned_through, row.relearn_from)


def _before(last: Place | None) -> Place:
    """The place after which to read so that ``last`` is read again; it may have grown."""
    return (0, -1) if last is None else (last[0], last[1] - 1)


async def _read_runs(connection: AsyncConnection, assignment_id: int, after: Place, runs: RunColumns) -> None:
    while True:
        columns = await _read_page(connection, _RUNS, assignment_id, after)
        runs.append(RunColumns(*columns))
        if len(columns[0]) < MAP_PAGE_ROWS_MAX or runs.last is None:
            return
        after = runs.last


async def _read_holes(connection: AsyncConnection, assignment_id: int, after: Place, holes: HoleColumns) -> None:
    place = {"assignment_id": assignment_id, "epoch": after[0], "source_start": after[1]}
    reasons = sorted((await connection.execute(_REASONS, place)).scalars())
    while reasons:
        columns = await _read_page(connection, _HOLES, assignment_id, after, reasons=reasons)
        holes.append(HoleColumns(reasons, *columns))
        if len(columns[0]) < MAP_PAGE_ROWS_MAX or holes.last is None:
            return
        after = holes.last


async def _read_page(
    connection: AsyncConnection, statement: Any, assignment_id: int, after: Place, **values: Any
) -> list[array[int]]:
    place = {"assignment_id": assignment_id, "epoch": after[0], "source_start": after[1], "page_rows": MAP_PAGE_ROWS_MAX}
    row = (await connection.execute(statement, {**place, **values})).one()
    return [_unpacked(packed) for packed in row]


def _unpacked(packed: bytes | None) -> array[int]:
    numbers = array("q")
    numbers.frombytes(packed or b"")
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


async def _read_duplicates(connection: AsyncConnection, assignment_id: int) -> list[Duplicate]:
    query = select(duplicates).where(duplicates.c.assignment_id == assignment_id, duplicates.c.epoch > 0)
    query = query.order_by(duplicates.c.epoch, duplicates.c.source_offset, duplicates.c.destination_offset)
    return [
        Duplicate(row.epoch, row.source_offset, row.destination_offset, row.kind) for row in await connection.execute(query)
    ]


async def _read_epochs(connection: AsyncConnection, assignment_id: int) -> list[Epoch]:
    query = select(epochs).where(epochs.c.assignment_id == assignment_id).order_by(epochs.c.epoch)
    return [
        Epoch(1), *(Epoch(row.epoch, row.divergence_offset, row.start_offset) for row in await connection.execute(query)),
    ]
