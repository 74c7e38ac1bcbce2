"""Rate of ``rebuild`` over one real queue of small copies: ``python -m tests.benchmarks.bench_rebuild``.

Prints records a second of reading the destination's log, recognising copies and writing the map, and the CPU of it. Brokers,
Postgres and replicator share one machine: compare CPU, not rates.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from deploy.local import LocalCluster, start_clusters, stop_clusters
from tests.acceptance.process import task_yaml
from tests.benchmarks.bench_copy import DRAIN_SECONDS_MAX, ONE_WAY, copying, cpu_seconds, peak_mib
from tests.witness.client import Witness


def measure(count: int, body_bytes: int) -> None:
    clusters = [LocalCluster("hangzhou"), LocalCluster("shanghai")]
    start_clusters(*clusters)
    try:
        with tempfile.TemporaryDirectory() as folder, Witness() as witness:
            for cluster in clusters:
                witness.create_topic(cluster.name_servers, "bench", queues=1)
            witness.bulk(clusters[0].name_servers, "bench", count, body_bytes=body_bytes, with_keys=True)
            with copying(clusters, task_yaml("bench", "bench", ONE_WAY), Path(folder)) as process:
                process.wait_ready()
                process.wait_caught_up(DRAIN_SECONDS_MAX, copied_at_least=count)
                before = cpu_seconds(process.pid)
                answer = process.answer_of("rebuild", "bench")
                used = cpu_seconds(process.pid) - before
                (queue,) = answer["queues"]
                assert (answer["state"], queue["copies"], queue["duplicates"]) == ("done", count, 0)
                print(
                    f"{count} copies of {body_bytes} B in one queue, {queue['runs']} runs: {count / queue['seconds']:,.0f} records/s, "
                    f"{used / count * 1e6:.2f} µs CPU a record, {answer['seconds']:.2f} s with letting go, "
                    f"peak RSS {peak_mib(process.pid):.0f} MiB"
                )
    finally:
        stop_clusters(*clusters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--body-bytes", type=int, default=128)
    options = parser.parse_args()
    measure(options.count, options.body_bytes)


if __name__ == "__main__":
    main()
