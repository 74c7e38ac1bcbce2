"""What a cluster still holds back from its consumers, asked now and then: with the cluster gone, the last answer is all there is."""

from __future__ import annotations

import time
from typing import Any

import structlog

from replicator.coordinator.connections import Link
from replicator.core.connector import CountsPending
from replicator.core.errors import ReplicatorError

log = structlog.get_logger(__name__)

PENDING_SECONDS = 30.0


class PendingCounts:
    def __init__(self) -> None:
        self._asked: dict[str, tuple[float, dict[str, Any]]] = {}

    async def of(self, link: Link | None) -> dict[str, Any]:
        """{"pending": {kind: messages}}, at most ``PENDING_SECONDS`` old; empty where the cluster does not say."""
        if link is None or not isinstance(link.connector, CountsPending):
            return {}
        at, known = self._asked.get(link.cluster.name, (float("-inf"), {}))
        if time.monotonic() - at >= PENDING_SECONDS:
            try:
                known = {"pending": dict(await link.ask(link.connector.pending_counts()))}
            except ReplicatorError as error:
                log.info("pending messages not counted", cluster=link.cluster.name, error=str(error))
            self._asked[link.cluster.name] = time.monotonic(), known
        return known
