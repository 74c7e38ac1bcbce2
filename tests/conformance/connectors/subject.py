"""How the suite reaches one kind of cluster: makes connectors, and does by another way what the tests compare with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from connectors.memory import MemoryCluster
from connectors.memory import factory as memory_factory
from replicator.core.connector import AppendOutcome, Connector, ConnectorContext, SendPermit, Stored
from replicator.core.record import AppendBatch, MessageQueue, QueueSpread, RecordBatch, TopicDescription

MEMORY_BYTES_MAX = 64 * 1024 * 1024
ANSWER_SECONDS = 10.0

_serial = itertools.count(1)


@dataclass
class Permit:
    """A ``SendPermit`` in the hands of the test."""

    valid: bool = True

    def is_valid(self) -> bool:
        return self.valid


def append_batch(bodies: Sequence[bytes], properties: Sequence[bytes] | bytes = b"", **columns: object) -> AppendBatch:
    packed = [properties] * len(bodies) if isinstance(properties, bytes) else list(properties)
    return AppendBatch(list(bodies), packed, [0] * len(bodies), **columns)  # type: ignore[arg-type]


class ConnectorUnderTest:
    """One cluster and its connectors. What is not overridden goes through a second connector of the same kind."""

    kind: str
    small_memory_bytes: int
    """A memory limit that the kind can still read with."""
    lists_senders = True
    wakes_within_seconds = 2.0

    def __init__(self) -> None:
        self._connectors: list[Connector] = []
        self._other: Connector | None = None

    async def start(self) -> None:
        """The cluster answers afterwards."""

    async def stop(self) -> None:
        for connector in self._connectors:
            await connector.close()

    def build(self, context: ConnectorContext) -> Connector:
        raise NotImplementedError

    async def expire_head(self, queue: MessageQueue, min_offset: int) -> None:
        """Only asked of kinds that the ``expiring`` fixture names."""
        raise NotImplementedError

    async def connector(self, *, memory_bytes_max: int = MEMORY_BYTES_MAX) -> Connector:
        """A new open connector with an instance of its own, closed by the fixture."""
        connector = self.build(ConnectorContext("under-test", f"instance-{next(_serial)}", memory_bytes_max))
        self._connectors.append(connector)
        await connector.open()
        return connector

    async def other(self) -> Connector:
        if self._other is None:
            self._other = await self.connector()
        return self._other

    async def topic(self, queue_count: int = 1, *, ordered: bool = False) -> list[MessageQueue]:
        """Queues of a new topic on the first broker."""
        name = f"conformance-{next(_serial)}"
        other = await self.other()
        broker_name = (await other.describe()).brokers[0].broker_name
        await other.create_topic(TopicDescription(name, (), ordered), [QueueSpread(broker_name, queue_count)])
        return [MessageQueue(name, broker_name, i) for i in range(queue_count)]

    async def produce(self, queue: MessageQueue, bodies: Sequence[bytes], properties: bytes = b"") -> None:
        """A foreign producer's messages, readable afterwards."""
        other = await self.other()
        start = (await other.offset_range(queue)).max_offset
        outcome = await try_append(other, queue, append_batch(bodies, properties))
        assert isinstance(outcome, Stored), outcome
        await other.write_barrier(queue.broker_name, Permit(), ANSWER_SECONDS)
        assert (await other.offset_range(queue)).max_offset >= start + len(bodies)

    async def count(self, queue: MessageQueue) -> int:
        """Records of a queue, after everything underway is readable."""
        other = await self.other()
        await other.write_barrier(queue.broker_name, Permit(), ANSWER_SECONDS)
        bounds = await other.offset_range(queue)
        return bounds.max_offset - bounds.min_offset


class MemoryUnderTest(ConnectorUnderTest):
    kind = "memory"
    small_memory_bytes = 256 * 1024

    def __init__(self) -> None:
        super().__init__()
        self.name = f"conformance-{next(_serial)}"
        self.cluster = MemoryCluster.create(self.name)

    def build(self, context: ConnectorContext) -> Connector:
        settings = memory_factory.settings_model(cluster=self.name, long_poll_seconds=4.0)
        return memory_factory(settings, context)

    async def stop(self) -> None:
        await super().stop()
        MemoryCluster.forget(self.name)

    async def produce(self, queue: MessageQueue, bodies: Sequence[bytes], properties: bytes = b"") -> None:
        self.cluster.produce_many(queue, bodies, properties)

    async def count(self, queue: MessageQueue) -> int:
        return len(self.cluster.records(queue))

    async def expire_head(self, queue: MessageQueue, min_offset: int) -> None:
        self.cluster.expire(queue, min_offset)


async def try_append(
    connector: Connector, queue: MessageQueue, batch: AppendBatch, permit: SendPermit | None = None, seconds: float = ANSWER_SECONDS
) -> AppendOutcome:
    """Connects where no connection is open, and appends."""
    sender = connector.sender(queue.broker_name)
    await sender.connect()
    return await sender.append(queue, batch, permit or Permit(), seconds)


async def append(connector: Connector, queue: MessageQueue, batch: AppendBatch, permit: SendPermit | None = None) -> int:
    """First offset of an append that must be stored."""
    outcome = await try_append(connector, queue, batch, permit)
    assert isinstance(outcome, Stored), outcome
    return outcome.first_offset


async def read_records(connector: Connector, queue: MessageQueue, start: int, end: int, *, prefetch: bool = True) -> RecordBatch:
    """Columns of ``[start, end)``, joined; asserts that reads join without overlap."""
    reader = connector.reader(queue, start, prefetch=prefetch)
    joined = RecordBatch([], [], [], [], [], [], [], [], [], [])
    position = start
    while position < end:
        batch = await reader.read()
        assert all(position <= offset < batch.next_offset for offset in batch.offsets)
        joined.offsets.extend(batch.offsets)
        joined.bodies.extend(map(bytes, batch.bodies))
        joined.properties.extend(map(bytes, batch.properties))
        joined.encodings.extend(batch.encodings)
        joined.flags.extend(batch.flags)
        joined.born_timestamps_ms.extend(batch.born_timestamps_ms)
        joined.store_timestamps_ms.extend(batch.store_timestamps_ms)
        position = batch.next_offset
        reader.release(batch)
    await reader.close()
    assert joined.offsets == sorted(set(joined.offsets))
    return joined
