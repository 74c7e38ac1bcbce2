"""A sending connection and the appends that are underway on it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from connectors.memory.faults import PlannedAppend
from replicator.core.connector import AppendOutcome
from replicator.core.record import MessageQueue


@dataclass(slots=True)
class Exchange:
    """One append and its answer. ``answer`` is cancelled when the connection closes before the answer came."""

    answer: asyncio.Future[AppendOutcome]
    is_lost: bool = False
    """The sender learns at once that no answer will come in time."""

    def settle(self, outcome: AppendOutcome) -> None:
        if not self.answer.done() and not self.answer.get_loop().is_closed():
            self.answer.set_result(outcome)


@dataclass(slots=True)
class Connection:
    broker_name: str
    instance: str
    identity: str
    closed: bool = False
    exchanges: dict[MessageQueue, Exchange] = field(default_factory=dict)
    """The last append to each queue."""
    unanswered: list[Exchange] = field(default_factory=list)

    def exchange(
        self, queue: MessageQueue, fault: PlannedAppend | None = None, outcome: AppendOutcome | None = None
    ) -> Exchange:
        exchange = Exchange(asyncio.get_running_loop().create_future(), fault is not None and not fault.waits)
        self.exchanges[queue] = exchange
        if outcome is not None:
            exchange.settle(outcome)
        else:
            self.unanswered = [other for other in self.unanswered if not other.answer.done()]
            self.unanswered.append(exchange)
        return exchange

    def close(self) -> None:
        """Idempotent. Frames held on the way see ``closed`` when they would arrive."""
        self.closed = True
        for exchange in self.unanswered:
            if not exchange.answer.get_loop().is_closed():
                exchange.answer.cancel()
        self.unanswered.clear()
        self.exchanges.clear()
