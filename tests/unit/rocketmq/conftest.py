from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from connectors.rocketmq import RocketMQConnector, factory
from replicator.core.connector import ConnectorContext
from replicator.core.record import MessageQueue
from tests.fakes.broker import FakeCluster

TOPIC = "orders"
QUEUE_COUNT = 4


@pytest.fixture
async def fake() -> AsyncIterator[FakeCluster]:
    """Two brokers, ``fake-0`` and ``fake-1``, with one topic."""
    async with FakeCluster("fake", brokers=2) as cluster:
        cluster.create_topic(TOPIC, QUEUE_COUNT)
        yield cluster


@pytest.fixture
async def connector(fake: FakeCluster) -> AsyncIterator[RocketMQConnector]:
    made = make_connector(fake)
    yield made
    await made.close()


def make_connector(fake: FakeCluster, memory_bytes_max: int = 64 * 1024 * 1024, **settings: object) -> RocketMQConnector:
    model = factory.settings_model(**{"name_servers": [fake.name_server], **settings})
    return factory(model, ConnectorContext("fake", "unit", memory_bytes_max))


@pytest.fixture
def queue(fake: FakeCluster) -> MessageQueue:
    return MessageQueue(TOPIC, fake.broker.name, 0)


async def until(condition: Callable[[], bool], seconds_max: float = 5.0) -> None:
    deadline = time.monotonic() + seconds_max
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.002)


def become_master(fake: FakeCluster) -> None:
    """The second process takes the place of the first in what the name server says."""
    former, new = fake.brokers.values()
    new.name = former.name
    fake.name_server_process.brokers = {former.name: new}
    fake.name_server_process.registered = {former.name}
