"""What queues cost one worker while nothing passes: ``python -m tests.benchmarks.bench_idle [--queues N] [--seconds S]``.

Prints the CPU of the worker process as part of a core (user + system, /proc) and its memory, besides that of the coordinator.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from deploy.local import LocalCluster, start_clusters, stop_clusters
from tests.acceptance.process import cluster_yaml, one_way, task_yaml
from tests.acceptance.services import ServiceProcess, Services
from tests.benchmarks.bench_copy import cpu_seconds, peak_mib
from tests.witness.client import Witness

TOPIC_QUEUES_MAX = 1000
SHARED_SECONDS_MAX = 900.0
SETTLED_SECONDS = 30.0
LOOK_SECONDS = 2.0


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def measure(queues: int, seconds: float) -> None:
    clusters = [LocalCluster("hangzhou"), LocalCluster("shanghai")]
    start_clusters(*clusters)
    try:
        with tempfile.TemporaryDirectory() as folder, Witness() as witness:
            left, number = queues, 0
            while left > 0:
                witness.create_topic(clusters[0].name_servers, f"idle-{number}", queues=min(left, TOPIC_QUEUES_MAX))
                left, number = left - TOPIC_QUEUES_MAX, number + 1
            with Services(Path(folder)) as services:
                services.apply(
                    *(cluster_yaml(cluster.name, cluster.name_servers) for cluster in clusters),
                    task_yaml("idle", "idle-*", one_way("hangzhou", "shanghai")),
                )
                worker = services.worker()
                began = time.monotonic()
                wait_running(services.coordinator, queues)
                print(f"{queues} queues copied by one worker after {time.monotonic() - began:.0f} s", flush=True)
                time.sleep(SETTLED_SECONDS)
                pids = {"worker": worker.pid, "coordinator": services.coordinator.pid}
                before = {name: cpu_seconds(pid) for name, pid in pids.items()}
                time.sleep(seconds)
                for name, pid in pids.items():
                    used = (cpu_seconds(pid) - before[name]) / seconds
                    print(f"{name}: {used:.1%} of a core, {resident_mib(pid):.0f} MiB, at most {peak_mib(pid):.0f} MiB", flush=True)
    finally:
        stop_clusters(*clusters)


def wait_running(coordinator: ServiceProcess, queues: int) -> None:
    """Looks seldom: an answer about so many queues takes the coordinator's time."""
    deadline = time.monotonic() + SHARED_SECONDS_MAX
    states: Counter[str] = Counter()
    while states["running"] < queues:
        assert time.monotonic() < deadline, f"after {SHARED_SECONDS_MAX:.0f} s: {states}"
        time.sleep(LOOK_SECONDS)
        try:
            flows = coordinator.flows()
        except OSError:
            continue
        states = sum((Counter(flow["queues_by_state"]) for flow in flows), Counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queues", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    measure(options.queues, options.seconds)


if __name__ == "__main__":
    main()
