from __future__ import annotations

import itertools

import pytest

from connectors.memory import MemoryCluster, MemoryConnector, factory
from replicator.core.connector import ConnectorContext, NotStored
from replicator.core.errors import NotConnected
from replicator.core.record import AppendBatch, MessageQueue

_serial = itertools.count(1)

QUEUE = MessageQueue("orders", "broker-a", 0)
OTHER_QUEUE = MessageQueue("orders", "broker-a", 1)
TIMEOUT_SECONDS = 5.0


class Clock:
    """Milliseconds that move when the test says so."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


class Allowed:
    def is_valid(self) -> bool:
        return True


def batch(*bodies: bytes) -> AppendBatch:
    return AppendBatch(bodies, [b""] * len(bodies), [0] * len(bodies))


async def send(connector: MemoryConnector, *bodies: bytes, queue: MessageQueue = QUEUE, timeout_seconds: float = TIMEOUT_SECONDS):
    """Connects where no connection is open, and appends; a broker that cannot be reached answers as an outcome too."""
    sender = connector.sender(queue.broker_name)
    try:
        await sender.connect()
    except NotConnected as error:
        return NotStored("unreachable", str(error))
    return await sender.append(queue, batch(*bodies), Allowed(), timeout_seconds)


def stored(cluster: MemoryCluster, queue: MessageQueue = QUEUE) -> list[bytes]:
    return [record.body for record in cluster.records(queue)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster(clock):
    cluster = MemoryCluster.create(f"unit-{next(_serial)}", ("broker-a", "broker-b"), clock)
    cluster.add_topic("orders", 2)
    yield cluster
    MemoryCluster.forget(cluster.name)


@pytest.fixture
async def connect(cluster):
    """Makes an open connector: ``await connect("instance")``."""
    made: list[MemoryConnector] = []

    async def open_connector(instance: str = "i-1", long_poll_seconds: float = 1.0) -> MemoryConnector:
        settings = factory.settings_model(cluster=cluster.name, long_poll_seconds=long_poll_seconds)
        connector = factory(settings, ConnectorContext("declared", instance))
        made.append(connector)
        await connector.open()
        return connector

    yield open_connector
    for connector in made:
        await connector.close()


@pytest.fixture
async def connector(connect):
    return await connect()
