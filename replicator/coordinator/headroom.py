"""How long until a source deletes what is not yet copied: what it keeps, less the age of the oldest record not yet copied.

Only as good as what is known: null while a queue of the flow has no figure at all (not started, or its source out of reach since
it was taken), and where a broker does not tell how long it keeps records or may not be asked. A broker whose disk fills up deletes
earlier than it says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from replicator.coordinator import declared
from replicator.coordinator.connections import Connections
from replicator.core.connector import TellsRetention
from replicator.core.errors import ReplicatorError
from replicator.store.port import Store

ASKED_SECONDS = 30.0
"""A broker is asked at most this often, whatever it answered."""
WAIT_SECONDS_MAX = 0.5
"""Who looks at the status waits for brokers at most this long; an answer that comes later serves the next look."""

Broker = tuple[str, str]
"""(cluster, broker)"""


class Headroom:
    def __init__(self, store: Store, connections: Connections) -> None:
        self._store = store
        self._connections = connections
        self._kept: dict[Broker, float | None] = {}
        self._asked_at: dict[Broker, float] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        asking = list(self._asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def add_to(self, figures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The figures of the store, each with ``retention_headroom_seconds``."""
        brokers = {(one["source"], name) for one in figures for name in one["source_brokers"]}
        self._forget_others(brokers)
        self._ask(broker for broker in brokers if time.monotonic() - self._asked_at.get(broker, float("-inf")) >= ASKED_SECONDS)
        if self._asking:
            await asyncio.wait(self._asking, timeout=WAIT_SECONDS_MAX)
        return [{**one, "retention_headroom_seconds": self._of(one)} for one in figures]

    def _of(self, figures: Mapping[str, Any]) -> float | None:
        kept = [self._kept.get((figures["source"], name)) for name in figures["source_brokers"]]
        known = [seconds for seconds in kept if seconds is not None]
        age = figures["uncopied_age_seconds"]
        if age is None or not known or len(known) != len(kept):
            return None
        return max(0.0, float(min(known) - age))

    def _forget_others(self, brokers: set[Broker]) -> None:
        self._kept = {broker: seconds for broker, seconds in self._kept.items() if broker in brokers}
        self._asked_at = {broker: at for broker, at in self._asked_at.items() if broker in brokers}

    def _ask(self, brokers: Iterable[Broker]) -> None:
        for broker in brokers:
            self._asked_at[broker] = time.monotonic()
            task = asyncio.create_task(self._ask_one(broker), name=f"retention of {broker}")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask_one(self, broker: Broker) -> None:
        cluster, name = broker
        try:
            known = await declared.load(self._store)
            link = await self._connections.get(known.cluster(cluster))
            connector = link.connector
            self._kept[broker] = await link.ask(connector.retention_seconds(name)) if isinstance(connector, TellsRetention) else None
        except ReplicatorError:
            # What the broker said before holds while it is away; whoever may not ask never learns it.
            self._kept.setdefault(broker, None)
