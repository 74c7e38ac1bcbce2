"""RocketMQ's connector over the fake brokers of ``tests.fakes`` and over real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from connectors.rocketmq import factory
from replicator.core.connector import Connector, ConnectorContext
from replicator.core.record import MessageQueue
from tests.conformance.connectors.subject import ConnectorUnderTest
from tests.fakes.broker import FakeCluster
from tests.fakes.state import FakeQueue

SMALL_MEMORY_BYTES = 16 * 1024 * 1024


def build(name_server: str, context: ConnectorContext) -> Connector:
    return factory(factory.settings_model(name_servers=[name_server]), context)


class FakeUnderTest(ConnectorUnderTest):
    kind = "fake"
    small_memory_bytes = SMALL_MEMORY_BYTES

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeCluster("fake")

    async def start(self) -> None:
        await self.fake.__aenter__()

    async def stop(self) -> None:
        try:
            await super().stop()
        finally:
            await self.fake.__aexit__(None, None, None)

    def build(self, context: ConnectorContext) -> Connector:
        return build(self.fake.name_server, context)

    def _queue(self, queue: MessageQueue) -> FakeQueue:
        return self.fake.brokers[queue.broker_name].queue(queue.topic, queue.queue_id)

    async def produce(self, queue: MessageQueue, bodies: Sequence[bytes], properties: bytes = b"") -> None:
        for body in bodies:
            self.fake.brokers[queue.broker_name].put(queue.topic, queue.queue_id, body, properties)

    async def count(self, queue: MessageQueue) -> int:
        return len(self._queue(queue).records)

    async def expire_head(self, queue: MessageQueue, min_offset: int) -> None:
        self._queue(queue).expire(min_offset)


class NamespacedUnderTest(FakeUnderTest):
    """One namespace of a cluster; what a test fills and counts are the topics as the broker knows them."""

    kind = "namespaced"

    def build(self, context: ConnectorContext) -> Connector:
        return factory(factory.settings_model(name_servers=[self.fake.name_server], namespace="MQ_INST_1"), context)

    def _queue(self, queue: MessageQueue) -> FakeQueue:
        return super()._queue(replace(queue, topic=f"MQ_INST_1%{queue.topic}"))

    async def produce(self, queue: MessageQueue, bodies: Sequence[bytes], properties: bytes = b"") -> None:
        await super().produce(replace(queue, topic=f"MQ_INST_1%{queue.topic}"), bodies, properties)


class RocketMQUnderTest(ConnectorUnderTest):
    """Tests of one session share the cluster; every test makes topics of its own."""

    kind = "rocketmq"
    small_memory_bytes = SMALL_MEMORY_BYTES

    def __init__(self, name_server: str) -> None:
        super().__init__()
        self._name_server = name_server

    def build(self, context: ConnectorContext) -> Connector:
        return build(self._name_server, context)
