"""A coordinator over a memory store and memory clusters hz, sh and bj."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest_asyncio
from tenacity import AsyncRetrying, retry_if_result, stop_after_delay, wait_fixed

from connectors.memory import MemoryCluster, factory
from replicator.coordinator.service import Coordinator
from replicator.core.connector import ConnectorContext
from replicator.core.record import MessageQueue
from replicator.core.task import Cluster, ReplicationTask, StartPoint
from replicator.store.memory import MemoryStore
from replicator.store.port import Assignment, Checkpoint, Progress, Store

EARLIEST = StartPoint("earliest")
LATEST = StartPoint("latest")
INSTANCE = "coordinator-1"


def declare(name: str, memory: str = "", **fields: object) -> Cluster:
    return Cluster(name, "memory", {"cluster": memory or name}, **fields)


def one_way(name: str, source: str, *destinations: str, topics: tuple[str, ...] = ("orders",), start: StartPoint = EARLIEST, **fields):
    return ReplicationTask(name, "one-way", (source, *destinations), topics, start, **fields)


def two_way(name: str, *clusters: str, topics: tuple[str, ...] = ("orders",), start: StartPoint = EARLIEST, **fields):
    return ReplicationTask(name, "two-way", clusters, topics, start, **fields)


def connect(cluster: Cluster):
    return factory(factory.settings_model(**cluster.settings), ConnectorContext(cluster.name, INSTANCE))


@dataclass
class World:
    store: Store
    coordinator: Coordinator
    memory: dict[str, MemoryCluster]

    @property
    def clusters(self) -> list[Cluster]:
        return [declare(name) for name in self.memory]

    async def apply(self, *tasks: ReplicationTask, dry_run: bool = False):
        return await self.coordinator.apply(self.clusters, tasks, dry_run)

    async def rounds(self, count: int = 2) -> None:
        for _ in range(count):
            await self.coordinator.reconcile_once()

    def fill(self, cluster: str, topic: str, count: int = 1) -> None:
        for queue in self.memory[cluster].queues(topic):
            self.memory[cluster].produce_many(queue, [b"body"] * count)

    async def assigned(self, source: str, destination: str, topic: str = "orders") -> list[Assignment]:
        rows = [a for a in await self.store.assignments() if (a.source, a.destination) == (source, destination)]
        return sorted((a for a in rows if a.source_queue.topic == topic), key=lambda a: a.source_queue)

    async def until_assigned(self, source: str, destination: str, seconds: float) -> None:
        retrying = AsyncRetrying(retry=retry_if_result(lambda found: not found), wait=wait_fixed(0.05), stop=stop_after_delay(seconds))
        await retrying(self.assigned, source, destination)

    async def starts(self, source: str, destination: str, topic: str = "orders") -> list[int]:
        return [one.start_offset for one in await self.assigned(source, destination, topic)]

    async def flow(self, source: str, destination: str):
        (found,) = [
            flow
            for task in (await self.coordinator.status())["tasks"]
            for flow in task["flows"]
            if (flow["source"], flow["destination"]) == (source, destination)
        ]
        return found

    async def event_kinds(self, task: str) -> list[str]:
        return [event["kind"] for event in await self.coordinator.events(task)]

    async def report(self, state: str = "running", **fields: object) -> None:
        """A worker takes everything and reports once."""
        leased = await self.store.acquire("worker-1", 5.0, 1000)
        checkpoints = {a.assignment_id: a.checkpoint or Checkpoint(examined_through=a.start_offset) for a in leased}
        items = [Progress(a.assignment_id, a.token, checkpoints[a.assignment_id], state=state, **fields) for a in leased]
        assert await self.store.save_progress(items) == set()


def queue(topic: str, broker: str, queue_id: int) -> MessageQueue:
    return MessageQueue(topic, broker, queue_id)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    memory = {
        "hz": MemoryCluster.create("hz", ("hz-a", "hz-b")),
        "sh": MemoryCluster.create("sh", ("sh-a",)),
        "bj": MemoryCluster.create("bj", ("bj-a", "bj-b", "bj-c")),
    }
    store = MemoryStore()
    coordinator = Coordinator(store, connect, INSTANCE)
    yield World(store, coordinator, memory)
    await coordinator.close()
    for name in (*memory, "other"):
        MemoryCluster.forget(name)
