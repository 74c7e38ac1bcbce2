"""What a ``check`` asks workers, and what they answer, in Postgres."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select, text

from replicator.store.driver import Database
from replicator.store.limits import CHECK_SECONDS_MAX
from replicator.store.port import AskedCheck, ClusterRow
from replicator.store.tables import check_answers, checks

_ANSWER = text("""
    INSERT INTO check_answers (check_id, worker, clusters)
    SELECT check_id, :worker, CAST(:clusters AS jsonb) FROM checks WHERE check_id = :check_id
    ON CONFLICT DO NOTHING""")


def _oldest() -> ColumnElement[Any]:
    return func.clock_timestamp() - timedelta(seconds=CHECK_SECONDS_MAX)


class Checks:
    _database: Database

    async def ask_check(self, clusters: Sequence[ClusterRow]) -> int:
        asked = [{"name": one.name, "connector": one.connector, "region": one.region, "settings": one.settings} for one in clusters]
        async with self._database.begin() as connection:
            await connection.execute(delete(checks).where(checks.c.asked_at < _oldest()))
            return int((await connection.execute(insert(checks).values(clusters=asked).returning(checks.c.check_id))).scalar_one())

    async def asked_checks(self, worker: str) -> Sequence[AskedCheck]:
        is_answered = select(check_answers).where(check_answers.c.check_id == checks.c.check_id, check_answers.c.worker == worker).exists()
        query = select(checks.c.check_id, checks.c.clusters).where(checks.c.asked_at >= _oldest(), ~is_answered).order_by(checks.c.check_id)
        async with self._database.begin() as connection:
            rows = (await connection.execute(query)).all()
        return [AskedCheck(row.check_id, [ClusterRow(**one, cluster_id=None) for one in row.clusters]) for row in rows]

    async def answer_check(self, check_id: int, worker: str, clusters: Sequence[Mapping[str, Any]]) -> None:
        async with self._database.begin() as connection:
            answered = json.dumps([dict(one) for one in clusters])
            await connection.execute(_ANSWER, {"check_id": check_id, "worker": worker, "clusters": answered})

    async def check_answers(self, check_id: int) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        query = select(check_answers.c.worker, check_answers.c.clusters).where(check_answers.c.check_id == check_id)
        async with self._database.begin() as connection:
            return {row.worker: row.clusters for row in await connection.execute(query)}
