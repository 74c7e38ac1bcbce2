"""RocketMQ's connector against real brokers of each supported generation."""

from __future__ import annotations

import asyncio
import random
import ssl
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvloop

from connectors.rocketmq import RocketMQConnector, factory
from connectors.rocketmq.client.client import Client, ClusterAddress
from connectors.rocketmq.client.credentials import Security
from deploy.local import LocalCluster, running_clusters
from replicator.core.connector import ConnectorContext, NotStored, Stored, Unknown
from replicator.core.errors import Fenced, HistoryChanged, NotConnected
from replicator.core.record import MessageQueue, QueueSpread, TopicDescription, pack_properties
from tests.conformance.connectors.subject import ANSWER_SECONDS, Permit, append, append_batch, read_records, try_append

pytestmark = [pytest.mark.rocketmq, pytest.mark.timeout(180)]

PROJECT = Path(__file__).resolve().parents[2]
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
GONE_SECONDS_MAX = 15.0

SENDER_PROCESS = """
import asyncio, sys
from connectors.rocketmq import factory
from replicator.core.connector import ConnectorContext
from replicator.core.record import AppendBatch, MessageQueue
class Permit:
    def is_valid(self): return True
async def main(name_server, topic, broker):
    connector = factory(factory.settings_model(name_servers=[name_server]), ConnectorContext("killed", "killed"))
    await connector.open()
    sender = connector.sender(broker)
    await sender.connect()
    await sender.append(MessageQueue(topic, broker, 0), AppendBatch([b"x"], [b""], [0]), Permit(), 10)
    print(sender.identity, flush=True)
    await asyncio.sleep(600)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module", params=["5.3.3", "4.9.7", "4.4.0"])
def lab(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    cluster = LocalCluster("client", version=request.param)
    with running_clusters(cluster):
        yield cluster


def build(lab: LocalCluster) -> RocketMQConnector:
    settings = factory.settings_model(name_servers=[lab.name_servers])
    return factory(settings, ConnectorContext("under-test", f"instance-{uuid.uuid4().hex[:8]}"))


@pytest.fixture
async def connector(lab: LocalCluster) -> AsyncIterator[RocketMQConnector]:
    made = build(lab)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def other(lab: LocalCluster) -> AsyncIterator[RocketMQConnector]:
    made = build(lab)
    await made.open()
    yield made
    await made.close()


async def new_topic(connector: RocketMQConnector, lab: LocalCluster, queue_count: int = 1) -> list[MessageQueue]:
    topic = f"client-{uuid.uuid4().hex[:8]}"
    await connector.create_topic(TopicDescription(topic, ()), [QueueSpread(lab.broker_names[0], queue_count)])
    return [MessageQueue(topic, lab.broker_names[0], i) for i in range(queue_count)]


async def until_gone(watcher: RocketMQConnector, broker_name: str, identity: str) -> None:
    deadline = time.monotonic() + GONE_SECONDS_MAX
    while identity in (await watcher.sender_identities(broker_name) or ()):
        assert time.monotonic() < deadline, "still listed"
        await asyncio.sleep(0.05)


async def fill_and_read(connector: RocketMQConnector, queue: MessageQueue, count: int) -> None:
    bodies = [b"body %d" % i for i in range(count)]
    for start in range(0, count, 2000):
        part = bodies[start : start + 2000]
        assert await append(connector, queue, append_batch(part)) == start
    await connector.write_barrier(queue.broker_name, Permit(), ANSWER_SECONDS)
    records = await read_records(connector, queue, 0, count)
    assert records.offsets == list(range(count))
    assert records.bodies == bodies


async def test_strided_pulls_are_exact_and_in_order(lab, connector):
    (queue,) = await new_topic(connector, lab)
    await fill_and_read(connector, queue, 50_000)


async def test_records_of_all_sizes_come_back_in_order(lab, connector):
    """Large ones among small ones: answers end early again and again, and every gap is asked for."""
    (queue,) = await new_topic(connector, lab)
    source = random.Random(7)
    sizes = [source.choice([0, 1, 100, 2_000, 5_000, 150_000 if source.random() < 0.1 else 60]) for _ in range(1500)]
    bodies = [source.randbytes(size) for size in sizes]
    properties = [pack_properties([("zebra", str(i)), ("apple", "ü 世界"), ("KEYS", f"k{i}")]) for i in range(len(bodies))]
    start = 0
    while start < len(bodies):
        end = start + 1
        while end < len(bodies) and sum(map(len, bodies[start : end + 1])) < 1_500_000 and end - start < 200:
            end += 1
        await append(connector, queue, append_batch(bodies[start:end], properties[start:end]))
        start = end
    await connector.write_barrier(queue.broker_name, Permit(), ANSWER_SECONDS)
    records = await read_records(connector, queue, 0, len(bodies))
    assert records.bodies == bodies
    for sent, stored in zip(properties, records.properties, strict=True):
        assert stored.startswith(sent)


async def test_a_long_poll_wakes_at_once(lab, connector, other):
    (queue,) = await new_topic(connector, lab)
    reader = connector.reader(queue, 0)
    reading = asyncio.create_task(reader.read())
    assert (await asyncio.wait({reading}, timeout=1.0))[0] == set()
    began = time.monotonic()
    await append(other, queue, append_batch([b"arrival"]))
    batch = await reading
    assert time.monotonic() - began < 1.0
    assert list(map(bytes, batch.bodies)) == [b"arrival"]
    reader.release(batch)
    await reader.close()


async def test_the_largest_body_goes_alone(lab, connector):
    (queue,) = await new_topic(connector, lab)
    # 4.x compares the whole record with the limit, 5.x the body.
    size = MESSAGE_BYTES_MAX if lab.version.startswith("5") else MESSAGE_BYTES_MAX - 1024
    body = random.Random(1).randbytes(size)
    assert await append(connector, queue, append_batch([body], pack_properties({"k": "v"}))) == 0
    await connector.write_barrier(queue.broker_name, Permit(), ANSWER_SECONDS)
    records = await read_records(connector, queue, 0, 1)
    assert records.bodies == [body]
    too_large = append_batch([bytes(MESSAGE_BYTES_MAX + 1)])
    outcome = await try_append(connector, queue, too_large)
    assert isinstance(outcome, NotStored)
    assert outcome.scope == "record"
    assert await append(connector, queue, append_batch([b"next"])) == 1


async def test_refusals_of_a_queue_say_so(lab, connector):
    for queue in (MessageQueue("client-nowhere", lab.broker_names[0], 0), (await new_topic(connector, lab))[0]):
        wrong = MessageQueue(queue.topic, queue.broker_name, 7)
        outcome = await try_append(connector, wrong, append_batch([b"x"]))
        assert isinstance(outcome, NotStored), outcome
        assert outcome.scope == "queue"


async def test_nothing_leaves_without_the_permit(lab, connector):
    (queue,) = await new_topic(connector, lab)
    outcome = await try_append(connector, queue, append_batch([b"x"]), Permit(valid=False))
    assert isinstance(outcome, NotStored)
    assert outcome.scope == "fenced"
    with pytest.raises(Fenced):
        await connector.write_barrier(queue.broker_name, Permit(valid=False), ANSWER_SECONDS)
    assert await append(connector, queue, append_batch([b"first"])) == 0


async def test_a_barrier_makes_earlier_appends_readable(lab, connector):
    (queue,) = await new_topic(connector, lab)
    for n in range(1, 11):
        await append(connector, queue, append_batch([b"x"] * 100))
        await connector.write_barrier(queue.broker_name, Permit(), ANSWER_SECONDS)
        assert (await connector.offset_range(queue)).max_offset == n * 100


async def test_queue_locks_exclude_a_second_holder(lab, connector, other):
    queues = set(await new_topic(connector, lab, 3))
    group = f"group-{uuid.uuid4().hex[:8]}"
    assert await connector.lock_queues(group, "first", queues) == queues
    assert await other.lock_queues(group, "second", queues) == set()
    assert await connector.lock_queues(group, "first", queues) == queues
    freed = {min(queues)}
    await other.unlock_queues(group, "first", freed)
    assert await other.lock_queues(group, "second", queues) == freed


async def test_the_broker_lists_a_sender_until_it_is_reset(lab, connector, other):
    (queue,) = await new_topic(connector, lab)
    await append(connector, queue, append_batch([b"x"]))
    identity = connector.sender(queue.broker_name).identity
    assert identity in (await other.sender_identities(queue.broker_name) or ())
    await connector.sender(queue.broker_name).reset(identity)
    await until_gone(other, queue.broker_name, identity)


async def test_the_broker_lists_a_sender_until_it_is_killed(lab, connector):
    (queue,) = await new_topic(connector, lab)
    command = [sys.executable, "-c", SENDER_PROCESS, lab.name_servers, queue.topic, queue.broker_name]
    process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        identity = (await process.stdout.readline()).decode().strip()
        assert identity.startswith("killed@")
        assert identity in (await connector.sender_identities(queue.broker_name) or ())
    finally:
        process.kill()
        await process.communicate()
    await until_gone(connector, queue.broker_name, identity)


async def test_a_frozen_broker_leaves_an_append_unknown_until_it_answers(lab, connector):
    (queue,) = await new_topic(connector, lab)
    sender = connector.sender(queue.broker_name)
    await append(connector, queue, append_batch([b"before"]))
    lab.freeze_broker()
    try:
        outcome = await sender.append(queue, append_batch([b"late"]), Permit(), 1.0)
        assert outcome == Unknown(outcome.detail, sender.identity)
        assert await sender.late_answer(queue, 0.2) is None
    finally:
        lab.thaw_broker()
    late = await sender.late_answer(queue, ANSWER_SECONDS)
    # A request that waited longer than 200 ms in the broker's queue may be refused as busy instead.
    assert late == Stored(1) or (isinstance(late, NotStored) and late.scope == "busy")


async def test_offset_at_finds_the_first_of_equal_times(lab, connector):
    (queue,) = await new_topic(connector, lab)
    for _ in range(6):
        await append(connector, queue, append_batch([b"x"] * 150))
        await asyncio.sleep(0.005)  # store times are what this test is about
    await connector.write_barrier(queue.broker_name, Permit(), ANSWER_SECONDS)
    times = (await read_records(connector, queue, 0, 900)).store_timestamps_ms
    for moment in {*times, *(t + 1 for t in times), *(t - 1 for t in times), 0, times[-1] + 3_600_000}:
        expected = next((offset for offset, stored in enumerate(times) if stored >= moment), 900)
        assert await connector.offset_at(queue, moment) == expected


async def test_marks_stay_and_are_no_user_topics(lab, connector, other):
    mark = uuid.uuid4().hex[:8]
    await connector.write_mark(mark)
    await connector.write_mark(mark)
    assert mark in await other.read_marks()
    (queue,) = await new_topic(connector, lab)
    await connector.write_barrier(queue.broker_name, Permit(), ANSWER_SECONDS)
    topics = await other.list_topics()
    assert queue.topic in topics
    assert [topic for topic in topics if not topic.startswith("client-")] == []


async def test_a_topic_grows_and_keeps_its_nature(lab, connector):
    topic = f"client-{uuid.uuid4().hex[:8]}"
    broker_name = lab.broker_names[0]
    await connector.create_topic(TopicDescription(topic, (), ordered=True, message_type="FIFO"), [QueueSpread(broker_name, 2)])
    await connector.create_topic(TopicDescription(topic, ()), [QueueSpread(broker_name, 5)])
    described = await connector.describe_topic(topic)
    assert described.queues == tuple(MessageQueue(topic, broker_name, i) for i in range(5))
    assert described.ordered
    assert described.message_type == ("FIFO" if lab.version.startswith("5") else "")


async def test_positions_are_published_under_a_group_of_our_own(lab, connector):
    queues = await new_topic(connector, lab, 2)
    group = f"replicator-{uuid.uuid4().hex[:8]}"
    await append(connector, queues[0], append_batch([b"x"] * 3))
    assert await connector.consumer_offset(group, queues[0]) is None
    await connector.publish_position(group, {queues[0]: 3})
    assert await connector.consumer_offset(group, queues[0]) == 3
    assert await connector.consumer_offset(group, queues[1]) is None


async def test_describes_version_and_filters(lab, connector):
    description = await connector.describe()
    (broker,) = description.brokers
    assert (broker.broker_name, broker.address) == (lab.broker_names[0], lab.broker_addresses[0])
    assert broker.version == "V" + lab.version.replace(".", "_")
    assert broker.filters_properties is True


async def test_a_position_outside_is_a_change_of_history(lab, connector):
    (queue,) = await new_topic(connector, lab)
    await append(connector, queue, append_batch([b"x"] * 5))
    await connector.write_barrier(queue.broker_name, Permit(), ANSWER_SECONDS)
    with pytest.raises(HistoryChanged):
        await connector.reader(queue, 9).read()


@pytest.mark.parametrize("lab", ["5.3.3", "4.9.7"], indirect=True)  # 4.4.0 cannot make up a certificate on a Java of today
async def test_tls_carries_pulls_and_appends(lab):
    """Servers take TLS on the same port, with a certificate they make up when none is given."""

    def trusting() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    connector = build(lab)
    connector._client = Client(ClusterAddress([lab.name_servers]), Security(tls=trusting))
    await connector.open()
    (queue,) = await new_topic(connector, lab)
    await fill_and_read(connector, queue, 4000)
    large = random.Random(2).randbytes(3_000_000)
    assert await append(connector, queue, append_batch([large])) == 4000
    await connector.write_barrier(queue.broker_name, Permit(), ANSWER_SECONDS)
    assert (await read_records(connector, queue, 4000, 4001)).bodies == [large]
    await connector.close()


def test_works_on_uvloop(lab):
    async def all_of_it() -> None:
        connector = build(lab)
        await connector.open()
        (queue,) = await new_topic(connector, lab)
        await fill_and_read(connector, queue, 4000)
        await connector.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(all_of_it())


async def test_reader_and_sender_outlive_a_restart_of_the_broker(lab, connector):
    (queue,) = await new_topic(connector, lab)
    await append(connector, queue, append_batch([b"before"]))
    await connector.write_barrier(queue.broker_name, Permit(), ANSWER_SECONDS)
    reader = connector.reader(queue, 0)
    reader.release(await reader.read())
    before = connector.sender(queue.broker_name).identity
    await asyncio.to_thread(lab.restart_broker, graceful=False)

    async def read_on() -> None:
        while True:
            reader.release(await reader.read())

    with pytest.raises(NotConnected):
        await read_on()
    assert await append(connector, queue, append_batch([b"after"])) == 1
    assert connector.sender(queue.broker_name).identity != before
    bodies: list[bytes] = []
    while not bodies:
        batch = await reader.read()
        bodies = list(map(bytes, batch.bodies))
        reader.release(batch)
    assert bodies == [b"after"]


async def test_groups_go_retention_is_told_and_pull_limits_change_and_come_back(lab, connector):
    (queue,) = await new_topic(connector, lab)
    await connector.publish_position("replicator-unit-x", {queue: 0})
    assert await connector.consumer_offset("replicator-unit-x", queue) == 0
    for _ in range(2):
        await connector.remove_group("replicator-unit-x")
    # 4.4.0 takes the group away and keeps its offsets.
    assert await connector.consumer_offset("replicator-unit-x", queue) == (0 if lab.version == "4.4.0" else None)
    retention = await connector.retention_seconds(queue.broker_name)
    assert retention is not None
    assert retention >= 3600.0
    plan = (await connector.plan_tuning())[queue.broker_name]
    assert plan["maxTransferCountOnMessageInMemory"] == ("32", "1024")
    await connector.change_settings(queue.broker_name, {name: after for name, (_, after) in plan.items()})
    assert await connector.plan_tuning() == {}
    await connector.change_settings(queue.broker_name, {name: before for name, (before, _) in plan.items()})
    assert (await connector.plan_tuning())[queue.broker_name] == plan
