"""CPU of the product for each copied message, drained from a real cluster to another: ``python -m tests.benchmarks.bench_copy``.

Prints CPU microseconds a message of the replicator process (user + system, /proc), its peak RSS, and messages a second, with the
conditions. Brokers, Postgres and replicator share one machine: compare CPU, not rates.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.local import LocalCluster, start_clusters, stop_clusters
from tests.acceptance.process import ReplicatorProcess, cluster_yaml, task_yaml
from tests.witness.client import Witness

TICKS = os.sysconf("SC_CLK_TCK")
DRAIN_SECONDS_MAX = 600
IDLE_SECONDS = 10
RAISED = {"maxTransferCountOnMessageInMemory": 1024, "maxTransferBytesOnMessageInMemory": 4 * 1024 * 1024}
ONE_WAY = """  mode: one-way
  source: hangzhou
  destinations: [shanghai]
"""


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


@contextmanager
def copying(clusters: Sequence[LocalCluster], task: str, folder: Path) -> Iterator[ReplicatorProcess]:
    """``replicator run`` over the clusters and one task, not ready yet; stopped cleanly at the end of what went well."""
    file = folder / "bench.yaml"
    file.write_text("---\n".join([*(cluster_yaml(cluster.name, cluster.name_servers) for cluster in clusters), task]))
    process = ReplicatorProcess(file, folder / "data")
    process.start()
    try:
        yield process
        process.stop()
    finally:
        process.end()


def measure(count: int, body_bytes: int, queues: int, *, raised: bool) -> None:
    properties = RAISED if raised else {}
    clusters = [LocalCluster("hangzhou", broker_properties=properties), LocalCluster("shanghai")]
    start_clusters(*clusters)
    try:
        with tempfile.TemporaryDirectory() as folder, Witness() as witness:
            for cluster in clusters:
                witness.create_topic(cluster.name_servers, "bench", queues=queues)
            witness.bulk(clusters[0].name_servers, "bench", count, body_bytes=body_bytes, with_keys=True)
            with copying(clusters, task_yaml("bench", "bench", ONE_WAY), Path(folder)) as process:
                process.wait_ready()
                idle, began = cpu_seconds(process.pid), time.perf_counter()
                process.wait_caught_up(DRAIN_SECONDS_MAX, copied_at_least=count)
                elapsed, used = time.perf_counter() - began, cpu_seconds(process.pid) - idle
                quiet = cpu_seconds(process.pid)
                time.sleep(IDLE_SECONDS)
                quiet = (cpu_seconds(process.pid) - quiet) / IDLE_SECONDS
                net = (used - quiet * elapsed) / count * 1e6
                print(
                    f"{count} x {body_bytes} B, {queues} queues, pull limits {'raised' if raised else 'default'}: "
                    f"{used / count * 1e6:.2f} µs CPU a message "
                    f"({net:.2f} without the {quiet:.1%} of a core it takes when idle), "
                    f"{count / elapsed:,.0f} messages/s with start-up and last look, "
                    f"peak RSS {peak_mib(process.pid):.0f} MiB"
                )
    finally:
        stop_clusters(*clusters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500_000)
    parser.add_argument("--body-bytes", type=int, nargs="*", default=[128, 1024])
    parser.add_argument("--queues", type=int, default=8)
    parser.add_argument("--limits", choices=("default", "raised", "both"), default="both")
    options = parser.parse_args()
    for body_bytes in options.body_bytes:
        for raised in {"default": (False,), "raised": (True,), "both": (False, True)}[options.limits]:
            measure(options.count, body_bytes, options.queues, raised=raised)


if __name__ == "__main__":
    main()
