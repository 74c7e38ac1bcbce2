"""``check`` from where a worker runs: does it reach the clusters that somebody wants to declare, and how far away are they?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog

from replicator.core.connector import Connector
from replicator.core.errors import ReplicatorError
from replicator.core.task import Cluster
from replicator.store.port import ClusterRow, Store
from replicator.worker.limits import CHECK_REACH_SECONDS_MAX

log = structlog.get_logger(__name__)


class Checks:
    """Of one worker. ``connect`` makes an unopened connector; each check opens its own, with what it was asked."""

    def __init__(self, store: Store, connect: Callable[[Cluster], Connector], instance: str) -> None:
        self._store = store
        self._connect = connect
        self._instance = instance

    async def round(self) -> None:
        """Answers what was asked since."""
        for asked in await self._store.asked_checks(self._instance):
            answers = await asyncio.gather(*(self._reach(row) for row in asked.clusters))
            await self._store.answer_check(asked.check_id, self._instance, answers)

    async def _reach(self, row: ClusterRow) -> dict[str, Any]:
        answer: dict[str, Any] = {"name": row.name, "reachable": False, "distance_ms": None, "problem": ""}
        connector: Connector | None = None
        try:
            async with asyncio.timeout(CHECK_REACH_SECONDS_MAX):
                connector = self._connect(Cluster(row.name, row.connector, row.settings, row.region))
                await connector.open()
                began = time.perf_counter()
                described = await connector.describe()
            answer |= {"reachable": True, "distance_ms": described.distance_ms((time.perf_counter() - began) * 1000)}
        except ReplicatorError as error:
            answer["problem"] = str(error)
        except TimeoutError:
            answer["problem"] = f"cluster {row.name} did not answer within {CHECK_REACH_SECONDS_MAX:g} s"
        except Exception as error:
            # A bug of ours: it says so, and copying goes on.
            log.exception("check failed", cluster=row.name)
            answer["problem"] = f"{type(error).__name__}: {error}"
        finally:
            if connector is not None:
                await self._close(connector)
        return answer

    async def _close(self, connector: Connector) -> None:
        try:
            async with asyncio.timeout(CHECK_REACH_SECONDS_MAX):
                await connector.close()
        except (ReplicatorError, TimeoutError) as error:
            log.warning("closing", cluster=connector.cluster, error=str(error))
