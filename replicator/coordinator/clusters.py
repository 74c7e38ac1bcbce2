"""One opened connector for each declared cluster, and what is lasting about it: its id."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import structlog

from replicator.core.connector import Connector
from replicator.core.errors import ReplicatorError, Unsafe
from replicator.core.task import Cluster

CLUSTER_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
CLUSTER_ID_LENGTH = 8

log = structlog.get_logger(__name__)


def new_cluster_id() -> str:
    return "".join(secrets.choice(CLUSTER_ID_ALPHABET) for _ in range(CLUSTER_ID_LENGTH))


class Clusters:
    """Opened connectors by cluster; a changed declaration gets a new one."""

    def __init__(self, connect: Callable[[Cluster], Connector]) -> None:
        self._connect = connect
        self._open: dict[str, tuple[Cluster, Connector]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, cluster: Cluster) -> Connector:
        """Raises what ``Connector.open`` raises."""
        async with self._locks.setdefault(cluster.name, asyncio.Lock()):
            known = self._open.get(cluster.name)
            if known is not None and known[0] == cluster:
                return known[1]
            connector = self._connect(cluster)
            try:
                await connector.open()
            except BaseException:
                await connector.close()
                raise
            self._open[cluster.name] = (cluster, connector)
            if known is not None:
                await known[1].close()
            return connector

    async def close(self) -> None:
        for name, (_, connector) in self._open.items():
            try:
                await connector.close()
            except ReplicatorError as error:
                log.warning("closing", cluster=name, error=str(error))
        self._open.clear()


async def identify(cluster: Cluster, connector: Connector, known_id: str | None) -> str | None:
    """The lasting id the cluster carries, None if it has none yet. Raises ``Unsafe`` where it is not the one we know."""
    marks = list(await connector.read_marks())
    if len(marks) > 1:
        raise Unsafe(
            f"cluster {cluster.name} carries {len(marks)} identities: {', '.join(marks)}",
            hint="two clusters were merged or restored into one; delete the mark topics that are wrong",
        )
    mark = marks[0] if marks else None
    if known_id is not None and mark != known_id:
        raise Unsafe(
            f"cluster {cluster.name} is known as {known_id}, but what answers there {f'is {mark}' if mark else 'carries no mark'}",
            hint="the declaration reaches another physical cluster, or it was created anew: declare it under a new name",
        )
    return mark
