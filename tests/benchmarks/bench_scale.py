"""Workers that join, stop and are killed under load: ``python -m tests.benchmarks.bench_scale [--rounds N] [--rate R] [--queues Q]``.

Three workers copy a steady stream. In each round a fourth joins, one stops, another joins, one is killed with -9. The pause of a
queue is how late its latest copy of that time came (store time of the copy less that of the message, one machine, one clock).
Afterwards both logs are read in full: each message has to stand in the destination once, in order.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from deploy.local import LocalCluster, start_clusters, stop_clusters
from replicator.core.record import MessageQueue
from replicator.core.stamp import find_stamp
from replicator.core.task import Cluster
from replicator.registry import connect
from tests.acceptance.process import cluster_yaml, one_way, task_yaml
from tests.acceptance.services import Holders, ServiceProcess, Services
from tests.witness.client import Witness

TOPIC = "scale"
WORKERS = 3
SHARED_SECONDS_MAX = 120.0
CAUGHT_UP_SECONDS_MAX = 300.0
CALM_SECONDS = 4.0
TICK_SECONDS = 0.05
QUIET_SECONDS = 1.0
"""What was born so shortly before a change may be under way when it begins."""

Log = list[tuple[int, int, int]]
"""Of one queue: (offset, store time in ms, checksum of the body)."""


@dataclass
class Change:
    kind: str
    began: float
    ended: float
    moved: set[tuple[str, int]]


@dataclass
class Producer:
    witness: Witness
    name_servers: str
    rate: int
    queues: int
    count: int = 0
    behind_seconds: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """As many into each queue with each call, in one batch: single sends at this rate keep a machine of two cores busy alone."""
        began, tick = time.monotonic(), self.queues * max(1, round(self.rate * TICK_SECONDS / self.queues))
        while not self.stop.is_set():
            self.witness.call(
                "bulk", name_servers=self.name_servers, topic=TOPIC, count=tick, batch_size=tick // self.queues, body_bytes=128, prefix="s",
                first=self.count, with_keys=True,
            )  # fmt: skip
            self.count += tick
            ahead = began + self.count / self.rate - time.monotonic()
            self.behind_seconds = max(self.behind_seconds, -ahead)
            self.stop.wait(max(0.0, ahead))


class Bench:
    def __init__(self, services: Services, queues: int) -> None:
        self._services = services
        self._queues = queues
        self.workers: list[ServiceProcess] = []
        self.changes: list[Change] = []

    def _shared(self) -> Holders:
        least = max(1, self._queues // len(self.workers) // 2)
        names = {worker.started()["instance"] for worker in self.workers}
        return self._services.wait_shared(
            self.workers, SHARED_SECONDS_MAX, is_so=lambda counts: counts.keys() == names and min(counts.values()) >= least
        )

    def begin(self) -> None:
        self.workers = [self._services.worker() for _ in range(WORKERS)]
        self._shared()

    def change(self, kind: str) -> None:
        before, began = self._services.holders(), time.time()
        if kind == "join":
            self.workers.append(self._services.worker())
        elif kind == "stop":
            self.workers.pop(0).stop()
        else:
            self.workers.pop(0).kill()
        after = self._shared()
        ended = time.time()
        time.sleep(CALM_SECONDS)
        moved = {queue for queue, holder in before.items() if after[queue] != holder}
        self.changes.append(Change(kind, began, ended, moved))
        up = f", {ended - self._up_at():.1f} s after it was up" if kind == "join" else ""
        print(f"{kind}: {len(moved)} of {len(before)} queues moved, seen {ended - began:.1f} s after it began{up}", flush=True)

    def _up_at(self) -> float:
        return datetime.fromisoformat(self.workers[-1].started()["timestamp"]).timestamp()


async def read_logs(cluster: LocalCluster, *, stamped: bool) -> dict[int, Log]:
    """Everything each queue of the topic keeps; of copies, with the offset of their original."""
    connector = connect(Cluster(cluster.name, "rocketmq", {"name_servers": [cluster.name_servers]}), "bench-reader")
    await connector.open()
    try:
        described = await connector.describe_topic(TOPIC)
        assert described is not None
        logs = {}
        for queue in described.queues:
            logs[queue.queue_id] = await _read_log(connector, queue, stamped=stamped)
        return logs
    finally:
        await connector.close()


async def _read_log(connector, queue: MessageQueue, *, stamped: bool) -> Log:  # type: ignore[no-untyped-def]
    found: Log = []
    bounds = await connector.offset_range(queue)
    reader, position = connector.reader(queue, bounds.min_offset), bounds.min_offset
    try:
        while position < bounds.max_offset:
            batch = await reader.read()
            for index, offset in enumerate(batch.offsets):
                if stamped:
                    stamp = find_stamp(batch.properties[index])
                    assert stamp is not None
                    offset = stamp.hop.offset
                found.append((offset, batch.store_timestamps_ms[index], batch.body_crcs[index]))
            position = batch.next_offset
            reader.release(batch)
    finally:
        await reader.close()
    return found


def report(changes: list[Change], broker: str, born: dict[int, Log], copies: dict[int, Log]) -> None:
    lost = doubled = misplaced = total = 0
    late: dict[int, list[tuple[int, float]]] = {}
    for queue, originals in born.items():
        seen = [offset for offset, _, _ in copies[queue]]
        total += len(originals)
        lost += len({offset for offset, _, _ in originals} - set(seen))
        doubled += len(seen) - len(set(seen))
        misplaced += sum(a > b for a, b in zip(seen, seen[1:], strict=False))
        stored = {offset: (at, crc) for offset, at, crc in copies[queue]}
        misplaced += sum(stored[offset][1] != crc for offset, _, crc in originals if offset in stored)
        late[queue] = [(at, (stored[offset][0] - at) / 1000) for offset, at, _ in originals if offset in stored]
    pauses: dict[str, list[float]] = defaultdict(list)
    others: dict[str, list[float]] = defaultdict(list)
    for change in changes:
        for queue, rows in late.items():
            worst = max((by for at, by in rows if change.began - QUIET_SECONDS <= at / 1000 <= change.ended), default=0.0)
            (pauses if (broker, queue) in change.moved else others)[change.kind].append(worst)
    for kind in sorted(pauses.keys() | others.keys()):
        moved, rest = sorted(pauses[kind]) or [0.0], sorted(others[kind]) or [0.0]
        print(
            f"{kind} x {sum(change.kind == kind for change in changes)}: pause of {len(pauses[kind])} moved queues p50 "
            f"{statistics.median(moved):.2f} s, max {moved[-1]:.2f} s; of {len(others[kind])} others p50 {statistics.median(rest):.2f} s, "
            f"max {rest[-1]:.2f} s"
        )
    print(f"{total} messages: lost {lost}, doubled {doubled}, out of order or different {misplaced}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--queues", type=int, default=64)
    options = parser.parse_args()
    clusters = [LocalCluster("hangzhou"), LocalCluster("shanghai")]
    start_clusters(*clusters)
    try:
        with tempfile.TemporaryDirectory() as folder, Witness() as witness:
            for cluster in clusters:
                witness.create_topic(cluster.name_servers, TOPIC, queues=options.queues)
            with Services(Path(folder)) as services:
                services.apply(
                    *(cluster_yaml(cluster.name, cluster.name_servers) for cluster in clusters),
                    task_yaml(TOPIC, TOPIC, one_way("hangzhou", "shanghai")),
                )
                bench = Bench(services, options.queues)
                bench.begin()
                producer = Producer(witness, clusters[0].name_servers, options.rate, options.queues)
                thread = threading.Thread(target=producer.run, name="producer")
                thread.start()
                try:
                    time.sleep(CALM_SECONDS)
                    for _ in range(options.rounds):
                        for kind in ("join", "stop", "join", "kill"):
                            bench.change(kind)
                finally:
                    producer.stop.set()
                    thread.join()
                services.coordinator.wait_caught_up(CAUGHT_UP_SECONDS_MAX, copied_at_least=producer.count)
                print(f"{options.rate}/s wanted over {options.queues} queues, the producer at most {producer.behind_seconds:.1f} s behind")
                born = asyncio.run(read_logs(clusters[0], stamped=False))
                copies = asyncio.run(read_logs(clusters[1], stamped=True))
                report(bench.changes, clusters[0].broker_names[0], born, copies)
                services.assert_no_traceback()
    finally:
        stop_clusters(*clusters)


if __name__ == "__main__":
    main()
