"""Appends to one broker of a memory cluster."""

from __future__ import annotations

import asyncio

from connectors.memory.cluster import MemoryCluster
from connectors.memory.wire import Connection, Exchange
from replicator.core.connector import AppendOutcome, NotStored, SendPermit, Unknown
from replicator.core.errors import NotConnected
from replicator.core.record import AppendBatch, MessageQueue


class MemorySender:
    """See ``QueueSender``. The permit is asked in the same step in which the frame leaves."""

    def __init__(self, cluster: MemoryCluster, broker_name: str, instance: str) -> None:
        self._cluster = cluster
        self._broker_name = broker_name
        self._instance = instance
        self._identity = ""
        self._connection: Connection | None = None
        self._role_epoch: int | None = None
        self.closed = False

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def is_open(self) -> bool:
        return self._connection is not None and not self._connection.closed

    async def connect(self) -> str:
        await self._cluster.pace("sender.connect", self._instance)
        return self._connected().identity

    async def append(self, queue: MessageQueue, batch: AppendBatch, permit: SendPermit, timeout_seconds: float) -> AppendOutcome:
        connection = self._connection
        if connection is None or connection.closed:
            return NotStored("moved", f"{queue}: not connected")
        await self._cluster.pace("append.send", self._instance)
        if connection.closed:
            return NotStored("unreachable", f"{queue}: the connection was reset before the frame left")
        if self._cluster.broker(self._broker_name).role_epoch != self._role_epoch:
            await self.reset(connection.identity)
            return NotStored("moved", f"{queue}: another replica of {self._broker_name} is master now")
        if not permit.is_valid():
            return NotStored("fenced", f"{queue}: the right to send ended before the frame left")
        exchange = self._cluster.receive(connection, queue, batch)
        outcome = await self._answer(exchange, timeout_seconds)
        await self._cluster.pace("append.answer", self._instance)
        if outcome is None:
            return Unknown(f"{queue}: no answer from {self._broker_name}", connection.identity)
        if connection.closed:
            return Unknown(f"{queue}: the connection was reset before the answer came", connection.identity)
        if connection.exchanges.get(queue) is exchange:
            del connection.exchanges[queue]
        return outcome

    async def _answer(self, exchange: Exchange, timeout_seconds: float) -> AppendOutcome | None:
        if not exchange.answer.done() and not exchange.is_lost:
            await asyncio.wait((exchange.answer,), timeout=timeout_seconds)
        return exchange.answer.result() if exchange.answer.done() and not exchange.answer.cancelled() else None

    async def late_answer(self, queue: MessageQueue, timeout_seconds: float) -> AppendOutcome | None:
        exchange = self._connection.exchanges.get(queue) if self._connection is not None else None
        if exchange is None:
            return None
        if not exchange.answer.done():
            await asyncio.wait((exchange.answer,), timeout=timeout_seconds)
        return exchange.answer.result() if exchange.answer.done() and not exchange.answer.cancelled() else None

    async def reset(self, identity: str) -> None:
        if self._connection is not None and self._connection.identity == identity:
            self._cluster.disconnect(self._connection)
            self._connection = None

    async def close(self) -> None:
        self.closed = True
        await self.reset(self._identity)

    def _connected(self) -> Connection:
        if self.closed:
            raise NotConnected(f"the sender to {self._broker_name} of cluster {self._cluster.name} is closed")
        if self._connection is None or self._connection.closed:
            self._identity = self._cluster.new_identity(self._instance, self._broker_name)
            self._connection = self._cluster.connect(self._broker_name, self._instance, self._identity)
            self._role_epoch = self._cluster.broker(self._broker_name).role_epoch
        return self._connection
