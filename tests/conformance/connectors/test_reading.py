"""Readers: order, positions, bounds, waking, cancelling, history and memory."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import pytest

from replicator.core.errors import HistoryChanged
from replicator.core.record import RecordBatch
from tests.conformance.connectors.subject import read_records

pytestmark = pytest.mark.timeout(90)

BLOCKED_SECONDS = 0.2
"""A read that has not returned by then waits for memory."""


def numbered(start: int, end: int) -> list[bytes]:
    return [b"body %d" % i for i in range(start, end)]


@pytest.mark.parametrize("prefetch", [True, False])
async def test_keeps_the_order_of_a_queue(cluster, connector, prefetch):
    (queue,) = await cluster.topic()
    await cluster.produce(queue, numbered(0, 700))
    await cluster.produce(queue, numbered(700, 1500))
    records = await read_records(connector, queue, 0, 1500, prefetch=prefetch)
    assert records.bodies == numbered(0, 1500)
    assert records.offsets == list(range(1500))


@pytest.mark.parametrize("prefetch", [True, False])
async def test_resumes_from_any_position(cluster, connector, prefetch):
    (queue,) = await cluster.topic()
    await cluster.produce(queue, numbered(0, 40))
    for start in (0, 1, 17, 38, 39):
        records = await read_records(connector, queue, start, 40, prefetch=prefetch)
        assert records.offsets == list(range(start, 40))
        assert records.bodies == numbered(start, 40)


async def test_goes_on_behind_what_it_has_read_while_records_arrive(cluster, connector):
    (queue,) = await cluster.topic()
    reader = connector.reader(queue, 0)
    seen: list[bytes] = []
    for start in range(0, 100, 10):
        await cluster.produce(queue, numbered(start, start + 10))
        while len(seen) < start + 10:
            batch = await reader.read()
            seen.extend(map(bytes, batch.bodies))
            reader.release(batch)
    assert seen == numbered(0, 100)


async def test_queues_of_a_topic_are_apart(cluster, connector):
    queues = await cluster.topic(3)
    for i, queue in enumerate(queues):
        await cluster.produce(queue, [b"queue %d" % i] * (i + 1))
    for i, queue in enumerate(queues):
        records = await read_records(connector, queue, 0, i + 1)
        assert records.bodies == [b"queue %d" % i] * (i + 1)


async def test_every_batch_tells_the_bounds_of_the_queue(cluster, connector):
    (queue,) = await cluster.topic()
    await cluster.produce(queue, numbered(0, 20))
    reader = connector.reader(queue, 5, prefetch=False)
    batch = await reader.read()
    assert (batch.min_offset, batch.max_offset) == (0, 20)
    assert len(batch) > 0
    bounds = await connector.offset_range(queue)
    assert (bounds.min_offset, bounds.max_offset) == (0, 20)


@pytest.mark.parametrize("prefetch", [True, False])
async def test_an_empty_read_at_the_tail_returns_fresh_bounds(cluster, connector, prefetch):
    (queue,) = await cluster.topic()
    await cluster.produce(queue, numbered(0, 7))
    reader = connector.reader(queue, 7, prefetch=prefetch)
    batch = await asyncio.wait_for(reader.read(), 40)
    assert len(batch) == 0
    assert (batch.next_offset, batch.min_offset, batch.max_offset) == (7, 0, 7)
    reader.release(batch)


async def test_an_empty_queue_is_read_from_its_start(cluster, connector):
    (queue,) = await cluster.topic()
    assert (await connector.offset_range(queue)).max_offset == 0
    reader = connector.reader(queue, 0)
    reading = asyncio.create_task(reader.read())
    await cluster.produce(queue, [b"first"])
    batch = await reading
    while not len(batch):
        batch = await reader.read()
    assert list(map(bytes, batch.bodies)) == [b"first"]


async def test_an_arrival_wakes_a_waiting_read(cluster, connector):
    (queue,) = await cluster.topic()
    await cluster.produce(queue, numbered(0, 3))
    reader = connector.reader(queue, 3)
    reading = asyncio.create_task(reader.read())
    assert (await asyncio.wait({reading}, timeout=BLOCKED_SECONDS))[0] == set()
    started = time.monotonic()
    await cluster.produce(queue, [b"arrival"])
    batch = await reading
    assert time.monotonic() - started < cluster.wakes_within_seconds
    assert list(map(bytes, batch.bodies)) == [b"arrival"]


@pytest.mark.parametrize("prefetch", [True, False])
async def test_a_cancelled_read_loses_nothing(cluster, connector, prefetch):
    (queue,) = await cluster.topic()
    reader = connector.reader(queue, 0, prefetch=prefetch)
    seen: list[bytes] = []

    def take(batch: RecordBatch) -> None:
        seen.extend(map(bytes, batch.bodies))
        reader.release(batch)

    for i in range(40):
        reading = asyncio.create_task(reader.read())
        await asyncio.sleep(0)
        await cluster.produce(queue, [b"body %d" % i])
        for _ in range(i % 8):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
        if not reading.cancelled():
            take(reading.result())
    while len(seen) < 40:
        take(await reader.read())
    assert seen == numbered(0, 40)


async def test_a_position_beyond_the_end_is_a_change_of_history(cluster, connector):
    (queue,) = await cluster.topic()
    await cluster.produce(queue, numbered(0, 5))
    with pytest.raises(HistoryChanged):
        await connector.reader(queue, 15).read()


async def test_a_position_in_an_empty_queue_is_a_change_of_history(cluster, connector):
    (queue,) = await cluster.topic()
    with pytest.raises(HistoryChanged):
        await connector.reader(queue, 4).read()


async def test_a_position_below_the_first_kept_offset_is_a_change_of_history(expiring):
    connector = await expiring.connector()
    (queue,) = await expiring.topic()
    await expiring.produce(queue, numbered(0, 20))
    await expiring.expire_head(queue, 12)
    with pytest.raises(HistoryChanged) as raised:
        await connector.reader(queue, 3).read()
    assert (raised.value.lost_from, raised.value.lost_to) == (3, 12)
    records = await read_records(connector, queue, 12, 20)
    assert records.bodies == numbered(12, 20)
    bounds = await connector.offset_range(queue)
    assert (bounds.min_offset, bounds.max_offset) == (12, 20)


async def test_a_closed_reader_stays_closed_and_another_reads_on(cluster, connector):
    (queue,) = await cluster.topic()
    await cluster.produce(queue, numbered(0, 30))
    reader = connector.reader(queue, 0)
    reader.release(await reader.read())
    await reader.close()
    await reader.close()
    records = await read_records(connector, queue, 10, 30)
    assert records.bodies == numbered(10, 30)


async def test_closing_a_reader_ends_its_waiting_read(cluster, connector):
    (queue,) = await cluster.topic()
    reader = connector.reader(queue, 0)
    reading = asyncio.create_task(reader.read())
    assert (await asyncio.wait({reading}, timeout=BLOCKED_SECONDS))[0] == set()
    await reader.close()
    reading.cancel()
    done, _ = await asyncio.wait({reading}, timeout=5)
    assert done == {reading}
    assert reading.cancelled() or reading.exception() is not None or len(reading.result()) == 0


@pytest.mark.parametrize("prefetch", [True, False])
async def test_reads_ten_times_the_memory_limit_within_it(cluster, prefetch):
    """Held batches stop the reading at the limit; released ones let it go on."""
    limit = cluster.small_memory_bytes
    connector = await cluster.connector(memory_bytes_max=limit)
    (queue,) = await cluster.topic()
    body = bytes(16 * 1024)
    count = 10 * limit // len(body)
    for start in range(0, count, 64):
        await cluster.produce(queue, [body] * min(64, count - start))
    reader = connector.reader(queue, 0, prefetch=prefetch)
    held: deque[RecordBatch] = deque()
    seen = used_bytes = blocked = 0
    reading = asyncio.create_task(reader.read())
    while seen < count:
        done, _ = await asyncio.wait({reading}, timeout=BLOCKED_SECONDS if held else None)
        if done:
            batch = reading.result()
            held.append(batch)
            seen += len(batch)
            used_bytes += batch.size_bytes
            assert batch.size_bytes >= sum(map(len, batch.bodies))
            assert used_bytes <= limit
            reading = asyncio.create_task(reader.read())
        if not done or not len(held[-1]):
            blocked += 1
            while held:
                released = held.popleft()
                used_bytes -= released.size_bytes
                reader.release(released)
    reading.cancel()
    await asyncio.wait({reading})
    assert seen == count
    assert blocked >= 5
