"""Topics, bounds, times, groups, marks and queue locks."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from replicator.core.connector import ClosesTopics, FencesSource
from replicator.core.record import MessageQueue, QueueSpread, TopicDescription
from tests.conformance.connectors.subject import append, append_batch, read_records

pytestmark = pytest.mark.timeout(90)

VISIBLE_SECONDS = 20.0
"""Within this time every part of a cluster knows of a change."""

_serial = itertools.count(1)


async def eventually(condition) -> None:
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.05)


async def test_describes_the_cluster(connector):
    description = await connector.describe()
    assert description.brokers
    assert all(broker.broker_name and broker.address for broker in description.brokers)
    assert description.append_bytes_max > description.record_overhead_bytes > 0
    assert description.append_records_max >= 1
    assert description.properties_bytes_max > 1024


async def test_a_topic_that_does_not_exist_is_none(connector):
    assert await connector.describe_topic("conformance-nowhere") is None


async def test_a_created_topic_can_be_written_to_at_once(cluster, connector):
    name = f"conformance-created-{next(_serial)}"
    broker_name = (await connector.describe()).brokers[0].broker_name
    await connector.create_topic(TopicDescription(name, ()), [QueueSpread(broker_name, 3)])
    queues = tuple(MessageQueue(name, broker_name, i) for i in range(3))
    for queue in queues:
        assert await append(connector, queue, append_batch([b"x", b"y"])) == 0
    described = await connector.describe_topic(name)
    assert described is not None
    assert described.queues == queues
    assert described.readable
    assert described.writable
    assert name in await connector.list_topics()


async def test_creating_again_changes_nothing_and_growing_keeps_records(cluster, connector):
    queues = await cluster.topic(2)
    name, broker_name = queues[0].topic, queues[0].broker_name
    await append(connector, queues[1], append_batch([b"kept"]))

    async def queue_ids_after(count: int) -> list[int]:
        await connector.create_topic(TopicDescription(name, ()), [QueueSpread(broker_name, count)])
        described = await connector.describe_topic(name)
        return [queue.queue_id for queue in described.queues]

    assert await queue_ids_after(2) == [0, 1]
    assert await queue_ids_after(5) == [0, 1, 2, 3, 4]
    assert await queue_ids_after(1) == [0, 1, 2, 3, 4]
    assert (await read_records(connector, queues[1], 0, 1)).bodies == [b"kept"]
    assert await append(connector, MessageQueue(name, broker_name, 4), append_batch([b"x"])) == 0


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_topic_remembers_whether_it_is_ordered(cluster, connector, ordered):
    (queue,) = await cluster.topic(ordered=ordered)
    described = await connector.describe_topic(queue.topic)
    assert described.ordered is ordered


async def test_offset_at_is_the_first_stored_at_or_after(cluster, connector):
    (queue,) = await cluster.topic()
    for i in range(4):
        await cluster.produce(queue, [b"body %d" % i] * 3)
        await asyncio.sleep(0.02)  # so that store times differ, which is what the test is about
    times = (await read_records(connector, queue, 0, 12)).store_timestamps_ms
    assert len(set(times)) >= 4
    for moment in {*times, *(t + 1 for t in times), *(t - 1 for t in times)}:
        expected = next((offset for offset, stored in enumerate(times) if stored >= moment), 12)
        assert await connector.offset_at(queue, moment) == expected, (moment, times)
    assert await connector.offset_at(queue, 0) == 0
    assert await connector.offset_at(queue, times[-1] + 3_600_000) == 12


async def test_offset_at_of_an_empty_queue_is_its_end(cluster, connector):
    (queue,) = await cluster.topic()
    assert await connector.offset_at(queue, 0) == 0
    assert await connector.offset_at(queue, int(time.time() * 1000)) == 0


async def test_no_progress_is_not_progress_zero(cluster, connector):
    first, second = await cluster.topic(2)
    await cluster.produce(first, [b"x"] * 9)
    group = f"conformance-group-{next(_serial)}"
    assert await connector.consumer_offset(group, first) is None
    await connector.publish_position(group, {first: 0})
    assert await connector.consumer_offset(group, first) == 0
    assert await connector.consumer_offset(group, second) is None
    await connector.publish_position(group, {first: 7})
    assert await connector.consumer_offset(group, first) == 7
    assert await connector.consumer_offset(f"{group}-other", first) is None


async def test_marks_are_idempotent_and_hidden(cluster, connector):
    before = set(await connector.read_marks())
    topics = set(await connector.list_topics())
    mark = f"c{next(_serial):07d}"
    await connector.write_mark(mark)
    await connector.write_mark(mark)

    async def is_marked() -> bool:
        return mark in await connector.read_marks()

    await eventually(is_marked)
    marks = list(await connector.read_marks())
    assert sorted(marks) == sorted(before | {mark})
    assert set(await connector.list_topics()) == topics
    assert mark in await (await cluster.connector()).read_marks()


async def test_locks_are_exclusive_and_change_hands_after_an_unlock(cluster, connector):
    assert isinstance(connector, FencesSource)
    other = await cluster.connector()
    queues = await cluster.topic(3)
    group = f"conformance-locks-{next(_serial)}"
    assert await connector.lock_queues(group, "holder-1", queues[:2]) == set(queues[:2])
    assert await connector.lock_queues(group, "holder-1", queues[:2]) == set(queues[:2])
    assert await other.lock_queues(group, "holder-2", queues) == {queues[2]}
    assert await connector.lock_queues(group, "holder-1", queues) == set(queues[:2])
    await other.unlock_queues(group, "holder-1", [queues[0]])
    assert await other.lock_queues(group, "holder-2", queues) == {queues[0], queues[2]}
    assert await connector.lock_queues(group, "holder-1", queues) == {queues[1]}


async def test_unlocking_what_another_holds_takes_nothing(cluster, connector):
    (queue,) = await cluster.topic()
    group = f"conformance-locks-{next(_serial)}"
    assert await connector.lock_queues(group, "holder-1", [queue]) == {queue}
    await connector.unlock_queues(group, "holder-2", [queue])
    assert await connector.lock_queues(group, "holder-2", [queue]) == set()
    assert await connector.lock_queues(f"{group}-other", "holder-2", [queue]) == {queue}


async def test_a_topic_is_closed_to_producers_and_opened_again(cluster, connector):
    assert isinstance(connector, ClosesTopics)
    (queue, *_) = await cluster.topic(3)
    before = await connector.describe_topic(queue.topic)
    assert await connector.set_topic_writable(queue.topic, False)

    async def is_closed():
        return not (await connector.describe_topic(queue.topic)).writable

    async def is_as_before():
        return await connector.describe_topic(queue.topic) == before

    await eventually(is_closed)
    closed = await connector.describe_topic(queue.topic)
    assert (closed.readable, closed.writable, closed.queues) == (True, False, before.queues)
    assert not await connector.set_topic_writable(queue.topic, False)
    assert await connector.set_topic_writable(queue.topic, True)
    await eventually(is_as_before)
    assert not await connector.set_topic_writable("no-such-topic", False)
