"""Progress of many groups between two real brokers: ``python -m tests.benchmarks.bench_groups [--groups N] [--changed PART]``.

Every group has progress in every queue. Prints how long the first sync takes (each group is made, each offset written and read back),
what an interval costs in which nothing changes, and how long after a part of the groups moved on the last of them stands where it
should, with the CPU of the replicator process (user + system, /proc) meanwhile. The offsets that land are compared one by one.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from connectors.rocketmq import factory
from connectors.rocketmq.connector import RocketMQConnector
from connectors.rocketmq.remoting import headers
from deploy.local import LocalCluster, start_clusters, stop_clusters
from replicator.core.connector import ConnectorContext
from replicator.core.groups import GROUPS_AT_ONCE_MAX, GroupSettings
from replicator.core.record import MessageQueue
from tests.acceptance.process import ReplicatorProcess, one_way, task_yaml
from tests.benchmarks.bench_copy import copying, cpu_seconds, peak_mib
from tests.integration.conftest import PATIENT
from tests.witness.client import Witness

TOPIC = "orders"
QUEUES = 8
MESSAGES = 8_000
INTERVAL_SECONDS = 10
COMMITS_TOGETHER = 256
FIRST_SYNC_SECONDS_MAX = 900.0
CHANGED_SECONDS_MAX = 120.0
IDLE_SECONDS = 30.0
LOOK_SECONDS = 0.25

Offsets = Mapping[str, Mapping[int, int]]


def connect(cluster: LocalCluster) -> RocketMQConnector:
    settings = factory.settings_model(name_servers=[cluster.name_servers])
    return RocketMQConnector(settings, ConnectorContext(cluster.name, "bench-groups"))


async def commit(connector: RocketMQConnector, queues: list[MessageQueue], wanted: Offsets) -> None:
    """As consumers do, queue 0 of each group first: two first commits at once lose one."""
    for chosen in (queues[:1], queues[1:]):
        asked = [(group, queue, offsets[queue.queue_id]) for group, offsets in wanted.items() for queue in chosen]
        for first in range(0, len(asked), COMMITS_TOGETHER):
            await asyncio.gather(
                *(
                    connector._client.ask(queue.broker_name, headers.update_consumer_offset(group, queue.topic, queue.queue_id, offset))
                    for group, queue, offset in asked[first : first + COMMITS_TOGETHER]
                )
            )


async def stands(connector: RocketMQConnector, groups: Iterable[str]) -> dict[str, dict[int, int]]:
    found = await connector.group_offsets([TOPIC])
    return {group: {queue.queue_id: offset for queue, offset in found.get(group, {}).items()} for group in groups}


async def until(is_so: Callable[[], Awaitable[bool]], seconds_max: float, what: str) -> float:
    began = time.monotonic()
    while not await is_so():
        assert time.monotonic() - began < seconds_max, f"{what} did not come within {seconds_max:.0f} s"
        await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic() - began


async def drive(source: LocalCluster, destination: LocalCluster, process: ReplicatorProcess, groups: int, part: float) -> None:
    here, there = connect(source), connect(destination)
    for connector in (here, there):
        await connector.open()
    try:
        (broker_name,) = await here._client.brokers()
        queues = [MessageQueue(TOPIC, broker_name, number) for number in range(QUEUES)]
        wanted = {f"group-{number:05}": {queue.queue_id: 100 + number % 500 for queue in queues} for number in range(groups)}
        began, names = time.monotonic(), list(wanted)
        for first in range(0, groups, GROUPS_AT_ONCE_MAX):
            made = [GroupSettings(name) for name in names[first : first + GROUPS_AT_ONCE_MAX]]
            assert await here.create_groups(made) == {}
        print(f"{groups} groups made at the source in {time.monotonic() - began:.1f} s", flush=True)
        began = time.monotonic()
        await commit(here, queues, wanted)
        print(f"{groups} groups x {len(queues)} queues committed at the source in {time.monotonic() - began:.1f} s", flush=True)

        async def is_equal() -> bool:
            return await stands(there, wanted) == wanted

        used = cpu_seconds(process.pid)
        took = await until(is_equal, FIRST_SYNC_SECONDS_MAX, "the first sync")
        used = cpu_seconds(process.pid) - used
        print(f"first sync: {took:.1f} s, {used:.1f} s CPU of the replicator, every group made, every offset as it should be", flush=True)
        # Planned once more with nothing left to do, each group is settled after a few intervals.
        await asyncio.sleep(4 * INTERVAL_SECONDS)
        used = cpu_seconds(process.pid)
        await asyncio.sleep(IDLE_SECONDS)
        idle = (cpu_seconds(process.pid) - used) / IDLE_SECONDS
        print(f"nothing changes: {idle * INTERVAL_SECONDS:.2f} s CPU in an interval of {INTERVAL_SECONDS} s", flush=True)
        for _ in range(3):
            await change(here, queues, wanted, part, process, is_equal, idle)
    finally:
        for connector in (here, there):
            await connector.close()


async def change(
    here: RocketMQConnector, queues: list[MessageQueue], wanted: dict[str, dict[int, int]], part: float,
    process: ReplicatorProcess, is_equal: Callable[[], Awaitable[bool]], idle: float,
) -> None:  # fmt: skip
    moved = list(wanted)[: round(len(wanted) * part)]
    for group in moved:
        wanted[group] = {queue: offset + 10 for queue, offset in wanted[group].items()}
    began, used = time.monotonic(), cpu_seconds(process.pid)
    await commit(here, queues, {group: wanted[group] for group in moved})
    committed = time.monotonic() - began
    took = committed + await until(is_equal, CHANGED_SECONDS_MAX, "what changed")
    used = cpu_seconds(process.pid) - used
    print(
        f"{len(moved)} groups moved on in {committed:.1f} s: all of them follow {took:.1f} s after the first moved (interval "
        f"{INTERVAL_SECONDS} s), {used:.1f} s CPU meanwhile "
        f"({used - idle * took:.1f} more than idle), peak RSS {peak_mib(process.pid):.0f} MiB",
        flush=True,
    )


def measure(groups: int, part: float) -> None:
    clusters = [LocalCluster(name, broker_properties=PATIENT) for name in ("hangzhou", "shanghai")]
    start_clusters(*clusters)
    try:
        with tempfile.TemporaryDirectory() as folder, Witness() as witness:
            witness.create_topic(clusters[0].name_servers, TOPIC, queues=QUEUES)
            witness.bulk(clusters[0].name_servers, TOPIC, MESSAGES)
            body = one_way("hangzhou", "shanghai") + f"  progress: {{interval_seconds: {INTERVAL_SECONDS}}}\n"
            with copying(clusters, task_yaml("orders", TOPIC, body), Path(folder)) as process:
                process.wait_ready()
                process.wait_caught_up(120, copied_at_least=MESSAGES)
                asyncio.run(drive(*clusters, process, groups, part))
    finally:
        stop_clusters(*clusters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=10_000)
    parser.add_argument("--changed", type=float, default=0.1, help="part of the groups that moves on")
    options = parser.parse_args()
    measure(options.groups, options.changed)


if __name__ == "__main__":
    main()
