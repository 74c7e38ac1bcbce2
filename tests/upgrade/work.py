"""Run with the code of another release on the path: copies some messages between memory clusters, its state in the database given.
Prints where that code stands, and how many copies stand on the destination. ``python work.py URL``; imports nothing of the tests."""

from __future__ import annotations

import asyncio
import sys

from tenacity import AsyncRetrying, retry_if_result, stop_after_delay, wait_fixed

import replicator
from connectors.memory import factory
from connectors.memory.cluster import MemoryCluster
from connectors.memory.connector import MemorySettings
from replicator.coordinator.service import Coordinator
from replicator.core.connector import Connector, ConnectorContext
from replicator.core.task import Cluster, ReplicationTask, StartPoint
from replicator.store.postgres import PostgresStore
from replicator.worker.supervisor import Worker

COUNT = 50
SECONDS_MAX = 45.0


def connect(cluster: Cluster) -> Connector:
    return factory(MemorySettings(**cluster.settings), ConnectorContext(cluster.name, "before"))


async def work(url: str) -> int:
    clusters = [MemoryCluster.create(name) for name in ("hangzhou", "shanghai")]
    for cluster in clusters:
        cluster.add_topic("orders", 1)
    (queue,) = clusters[0].queues("orders")
    clusters[0].produce_many(queue, [b"body"] * COUNT)
    store, stop = PostgresStore(url), asyncio.Event()
    await store.open()
    coordinator, worker = Coordinator(store, connect, "before"), Worker(store, connect, "before")
    task = ReplicationTask("orders", "one-way", ("hangzhou", "shanghai"), ("orders",), StartPoint("earliest"))
    running = [asyncio.create_task(coordinator.run(stop)), asyncio.create_task(worker.run(stop))]
    await coordinator.apply([Cluster(one.name, "memory", {"cluster": one.name}) for one in clusters], [task])

    async def copies() -> int:
        return len(clusters[1].records(queue))

    waits = retry_if_result(lambda count: count < COUNT)
    await AsyncRetrying(retry=waits, wait=wait_fixed(0.1), stop=stop_after_delay(SECONDS_MAX))(copies)
    stop.set()
    await asyncio.gather(*running)
    (figures,) = await store.flow_figures()
    await store.close()
    assert figures["copied_total"] == len(clusters[1].records(queue)), figures
    return len(clusters[1].records(queue))


if __name__ == "__main__":
    print(replicator.__file__, asyncio.run(work(sys.argv[1])))
