"""CPU microseconds a message of pulls and appends against a real broker: ``python -m tests.benchmarks.bench_client``.

Starts a throw-away cluster, or uses ``--name-server HOST:PORT``. Counts this process's CPU time only, so a busy machine
disturbs it little; the rate beside it depends on who else is running.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import time
import uuid
from collections.abc import Iterator

import uvloop

from connectors.rocketmq import RocketMQConnector, factory
from connectors.rocketmq.remoting import headers
from deploy.local import LocalCluster, running_clusters
from replicator.core.connector import ConnectorContext, Stored
from replicator.core.record import AppendBatch, MessageQueue, QueueSpread, TopicDescription, pack_properties

QUEUE_COUNT = 8
APPEND_RECORDS = 500
ANSWER_SECONDS = 30.0
DEFAULT_LIMITS = {
    "maxTransferCountOnMessageInMemory": "32", "maxTransferBytesOnMessageInMemory": "262144",
    "maxTransferCountOnMessageInDisk": "8", "maxTransferBytesOnMessageInDisk": "65536",
}  # fmt: skip
RAISED_LIMITS = {
    "maxTransferCountOnMessageInMemory": "1024", "maxTransferBytesOnMessageInMemory": "4194304",
    "maxTransferCountOnMessageInDisk": "1024", "maxTransferBytesOnMessageInDisk": "4194304",
}  # fmt: skip


class AlwaysValid:
    def is_valid(self) -> bool:
        return True


class Stopwatch:
    """CPU and wall time of what stands inside ``with``."""

    def __enter__(self) -> Stopwatch:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_seconds = time.process_time() - self._cpu
        self.wall_seconds = time.perf_counter() - self._wall

    def report(self, what: str, count: int) -> None:
        print(f"{what}: {self.cpu_seconds / count * 1e6:.2f} µs CPU a message, {count / self.wall_seconds:,.0f}/s", flush=True)


async def fill(connector: RocketMQConnector, queue: MessageQueue, count: int, body_bytes: int) -> None:
    sender = connector.sender(queue.broker_name)
    properties = [pack_properties({"KEYS": f"k{i}", "level": "1"}) for i in range(APPEND_RECORDS)]
    bodies = [bytes([i % 256]) * body_bytes for i in range(APPEND_RECORDS)]
    flags = [0] * APPEND_RECORDS
    for start in range(0, count, APPEND_RECORDS):
        size = min(APPEND_RECORDS, count - start)
        batch = AppendBatch(bodies[:size], properties[:size], flags[:size], born_timestamp_ms=1_700_000_000_000)
        await sender.connect()
        outcome = await sender.append(queue, batch, AlwaysValid(), ANSWER_SECONDS)
        if outcome != Stored(start):
            raise SystemExit(f"append at {start} of {queue}: {outcome}")


async def drain(connector: RocketMQConnector, queue: MessageQueue, count: int) -> int:
    """Reads ``[0, count)``; returns the number of reads."""
    reader = connector.reader(queue, 0)
    position = reads = 0
    while position < count:
        batch = await reader.read()
        position = batch.next_offset
        reads += 1
        reader.release(batch)
    await reader.close()
    return reads


async def measure(name_server: str, count: int, body_bytes: int, rounds: int) -> None:
    connector = factory(factory.settings_model(name_servers=[name_server]), ConnectorContext("bench", f"bench-{uuid.uuid4().hex[:8]}"))
    await connector.open()
    broker_name = (await connector.describe()).brokers[0].broker_name
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    await connector.create_topic(TopicDescription(topic, ()), [QueueSpread(broker_name, QUEUE_COUNT)])
    queues = [MessageQueue(topic, broker_name, i) for i in range(QUEUE_COUNT)]
    share = count // QUEUE_COUNT
    with Stopwatch() as watch:
        await asyncio.gather(*(fill(connector, queue, share, body_bytes) for queue in queues))
    watch.report(f"append in batches of {APPEND_RECORDS}", share * QUEUE_COUNT)
    await connector.write_barrier(broker_name, AlwaysValid(), ANSWER_SECONDS)
    for name, limits in (("default limits", DEFAULT_LIMITS), ("raised limits", RAISED_LIMITS)):
        await connector._client.ask(broker_name, headers.update_broker_config(limits))
        connector._client._limits.clear()  # believed for a minute otherwise
        best: Stopwatch | None = None
        for _ in range(rounds):
            with Stopwatch() as watch:
                reads = await asyncio.gather(*(drain(connector, queue, share) for queue in queues))
            best = watch if best is None or watch.cpu_seconds < best.cpu_seconds else best
        assert best is not None
        best.report(f"pull, {name}, best of {rounds}, {share * QUEUE_COUNT // sum(reads)} records a read", share * QUEUE_COUNT)
    await connector._client.ask(broker_name, headers.update_broker_config(DEFAULT_LIMITS))
    await connector.close()


@contextlib.contextmanager
def name_server(given: str) -> Iterator[str]:
    if given:
        yield given
        return
    cluster = LocalCluster("bench")
    with running_clusters(cluster):
        yield cluster.name_servers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name-server", default="")
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--body-bytes", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gc-threshold", type=int, default=0, help="first garbage collection threshold; 0: Python's own")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    options = parser.parse_args()
    if options.gc_threshold:
        gc.set_threshold(options.gc_threshold, *gc.get_threshold()[1:])
    with name_server(options.name_server) as address:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop if options.loop == "uvloop" else None)
        with runner:
            runner.run(measure(address, options.count, options.body_bytes, options.rounds))


if __name__ == "__main__":
    main()
