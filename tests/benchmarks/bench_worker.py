"""CPU of the copy path alone: one worker over an in-memory store between two real brokers, no API, no Postgres.

``python -m tests.benchmarks.bench_worker [--count N] [--body-bytes B] [--raised]`` prints user and system CPU microseconds a message.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import time

import uvloop

from deploy.local import LocalCluster, start_clusters, stop_clusters
from replicator.cli.process import GC_THRESHOLD_OBJECTS
from replicator.config import task_to_spec
from replicator.core.task import ReplicationTask, StartPoint
from replicator.registry import connect
from replicator.store.memory import MemoryStore
from replicator.store.port import ClusterRow, NewAssignment
from replicator.worker.supervisor import Worker
from tests.benchmarks.bench_copy import RAISED
from tests.witness.client import Witness

TOPIC = "bench"
POLL_SECONDS = 0.2


async def copy(clusters: list[LocalCluster], count: int) -> tuple[float, float, float]:
    """User seconds, system seconds, wall seconds of copying ``count`` messages."""
    store = MemoryStore()
    await store.open()
    for index, cluster in enumerate(clusters):
        settings = {"name_servers": [cluster.name_servers]}
        await store.put_cluster(ClusterRow(cluster.name, "rocketmq", "", settings, f"bench{index:03d}"))
    task = ReplicationTask("bench", "one-way", ("hangzhou", "shanghai"), (TOPIC,), StartPoint("earliest"))
    await store.put_task(task.name, task_to_spec(task), task.flows)
    (flow,) = await store.flows()
    pair = await store.claim_pair(flow.flow_id, TOPIC, TOPIC)
    rows = {row.name: row for row in await store.clusters()}

    def open_connector(cluster):  # type: ignore[no-untyped-def]
        return connect(cluster, "bench-worker")

    queues = []
    for name in ("hangzhou", "shanghai"):
        connector = connect(task_cluster(rows[name]), "bench-setup")
        await connector.open()
        described = await connector.describe_topic(TOPIC)
        assert described is not None
        queues.append(described.queues)
        await connector.close()
    await store.add_assignments(pair.pair_id, [NewAssignment(a, b, 0) for a, b in zip(*queues, strict=True)])
    stop = asyncio.Event()
    worker = Worker(store, open_connector, "bench-worker")
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    running = asyncio.create_task(worker.run(stop))
    while sum(a.checkpoint.copied_total if a.checkpoint else 0 for a in await store.assignments()) < count:  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)
    after, elapsed = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - began
    stop.set()
    await running
    return after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime, elapsed


def task_cluster(row: ClusterRow):  # type: ignore[no-untyped-def]
    from replicator.core.task import Cluster

    return Cluster(row.name, row.connector, row.settings, row.region)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500_000)
    parser.add_argument("--body-bytes", type=int, default=128)
    parser.add_argument("--queues", type=int, default=8)
    parser.add_argument("--raised", action="store_true")
    options = parser.parse_args()
    gc.set_threshold(GC_THRESHOLD_OBJECTS)  # as the product itself runs
    clusters = [LocalCluster("hangzhou", broker_properties=RAISED if options.raised else {}), LocalCluster("shanghai")]
    start_clusters(*clusters)
    try:
        with Witness() as witness:
            for cluster in clusters:
                witness.create_topic(cluster.name_servers, TOPIC, queues=options.queues)
            witness.bulk(clusters[0].name_servers, TOPIC, options.count, body_bytes=options.body_bytes, with_keys=True)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            user, system, elapsed = runner.run(copy(clusters, options.count))
    finally:
        stop_clusters(*clusters)
    print(
        f"{options.count} x {options.body_bytes} B, {options.queues} queues, pull limits {'raised' if options.raised else 'default'}: "
        f"user {user / options.count * 1e6:.2f} + system {system / options.count * 1e6:.2f} µs CPU a message, "
        f"{options.count / elapsed:,.0f} messages/s"
    )


if __name__ == "__main__":
    main()
