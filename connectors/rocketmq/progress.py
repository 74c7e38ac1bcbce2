"""Progress of consumer groups, from the table of all groups that a broker hands out: the one answer that tells "never committed"
from "committed 0", since a question for a single queue may be answered with a guess.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from connectors.rocketmq.client.client import Client
from connectors.rocketmq.remoting import bodies, headers
from replicator.core.record import MessageQueue

TABLE_FRESH_SECONDS = 2.0
"""Long enough that one table serves all queues of a start, short enough for a group that moves."""

Table = dict[tuple[str, str], dict[int, int]]
"""{(topic, group): {queue id: offset}}"""


@dataclass(slots=True)
class _Known:
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    table: Table = field(default_factory=dict)
    asked_at: float = float("-inf")


class GroupProgress:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, _Known] = {}

    async def offset(self, group: str, queue: MessageQueue) -> int | None:
        """None where the group never committed there; at most ``TABLE_FRESH_SECONDS`` old."""
        known = self._known.setdefault(queue.broker_name, _Known())
        async with known.asking:
            now = asyncio.get_running_loop().time()
            if now - known.asked_at > TABLE_FRESH_SECONDS:
                answer = await self._client.ask(queue.broker_name, headers.all_consumer_offsets())
                known.table, known.asked_at = bodies.read_consumer_offsets(answer.body), now
            return known.table.get((queue.topic, group), {}).get(queue.queue_id)

    def note(self, group: str, queue: MessageQueue, offset: int) -> None:
        """Read back after a write: the table is large, and one write must not cost another reading of it."""
        if queue.broker_name in self._known:
            self._known[queue.broker_name].table.setdefault((queue.topic, group), {})[queue.queue_id] = offset

    def forget(self, broker_name: str) -> None:
        """We changed something there: the next question goes to the broker."""
        if broker_name in self._known:
            self._known[broker_name].asked_at = float("-inf")
