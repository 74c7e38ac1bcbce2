"""How late copies are: ``python -m tests.benchmarks.bench_latency [--rate N] [--seconds S]``.

An official producer sends at a steady rate; each copy's store time in the destination is compared with its message's store
time in the source (both brokers on one machine, one clock). Prints percentiles and the replicator's CPU at that rate.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from deploy.local import LocalCluster, start_clusters, stop_clusters
from tests.acceptance.process import ReplicatorProcess, cluster_yaml, task_yaml
from tests.benchmarks.bench_copy import ONE_WAY, cpu_seconds
from tests.witness.client import Witness

TOPIC = "latency"
TICK_SECONDS = 0.02
CAUGHT_UP_SECONDS_MAX = 60
WARM_UP_SHARE = 0.1
"""Of the messages, sent first and not counted: connections open, code and caches warm up."""


def send_steadily(witness: Witness, name_servers: str, rate_per_second: int, seconds: float) -> int:
    """Messages sent; a producer that cannot keep the rate raises."""
    per_tick = round(rate_per_second * TICK_SECONDS)
    sent, began = 0, time.monotonic()
    pending: deque[Future[Any]] = deque()
    while time.monotonic() - began < seconds:
        pending.append(
            witness.submit("bulk", name_servers=name_servers, topic=TOPIC, count=per_tick, batch_size=1, body_bytes=128,
                           prefix="l", first=sent, with_keys=True)
        )  # fmt: skip
        sent += per_tick
        while pending[0].done():
            pending.popleft().result()
            if not pending:
                break
        time.sleep(max(0.0, began + sent / rate_per_second - time.monotonic()))
    for future in pending:
        future.result(30)
    behind = time.monotonic() - began - seconds
    if behind > 1.0:
        raise SystemExit(f"the producer could not keep {rate_per_second}/s: {behind:.1f} s behind")
    return sent


def percentile(ordered: list[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def measure(witness: Witness, clusters: list[LocalCluster], process: ReplicatorProcess, rate: int, seconds: float) -> None:
    source, destination = clusters
    used = cpu_seconds(process.pid)
    count = send_steadily(witness, source.name_servers, rate, seconds)
    used = cpu_seconds(process.pid) - used
    process.wait_caught_up(CAUGHT_UP_SECONDS_MAX, copied_at_least=count)
    born = {row.keys: row.stored_ms for row in witness.drain(source.name_servers, TOPIC, expect=count)}
    copies = {row.keys: row.stored_ms for row in witness.drain(destination.name_servers, TOPIC, expect=count)}
    assert len(born) == len(copies) == count
    first = sorted(born.values())[int(count * WARM_UP_SHARE)]
    late = sorted(copies[keys] - stored for keys, stored in born.items() if stored > first)
    print(
        f"{rate}/s for {seconds:.0f} s, 8 queues, {len(late)} messages: latency p50 {percentile(late, 0.5)} ms, "
        f"p99 {percentile(late, 0.99)} ms, max {late[-1]} ms; replicator {used / seconds:.1%} of a core"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    clusters = [LocalCluster("hangzhou"), LocalCluster("shanghai")]
    start_clusters(*clusters)
    try:
        with tempfile.TemporaryDirectory() as folder, Witness() as witness:
            for cluster in clusters:
                witness.create_topic(cluster.name_servers, TOPIC, queues=8)
            file = Path(folder) / "latency.yaml"
            documents = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in clusters]
            file.write_text("---\n".join([*documents, task_yaml("latency", TOPIC, ONE_WAY)]))
            process = ReplicatorProcess(file, Path(folder) / "data")
            process.start()
            try:
                process.wait_ready()
                measure(witness, clusters, process, options.rate, options.seconds)
                process.stop()
            finally:
                process.end()
    finally:
        stop_clusters(*clusters)


if __name__ == "__main__":
    main()
