"""History, network, roles, locks and senders of the memory cluster, and how its connector shows them."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from connectors.memory import MemoryCluster, factory
from replicator.core.connector import Connector, ConnectorContext, FencesSource, ListsSenders, NotStored, Stored, Unknown
from replicator.core.errors import HistoryChanged, NotConnected, NotFound, Refused, Throttled
from replicator.core.record import MessageQueue, QueueSpread, TopicDescription
from tests.unit.memory.conftest import OTHER_QUEUE, QUEUE, TIMEOUT_SECONDS, Allowed, batch, send, stored

pytestmark = pytest.mark.timeout(30)


def test_settings_are_strict_and_frozen():
    settings = factory.settings_model(cluster="a")
    with pytest.raises(ValidationError):
        factory.settings_model(cluster="a", brokers=1)
    with pytest.raises(ValidationError):
        factory.settings_model(cluster="")
    with pytest.raises(ValidationError):
        settings.cluster = "b"


def test_the_connector_has_every_ability(cluster):
    connector: Connector = factory(factory.settings_model(cluster=cluster.name), ConnectorContext("declared", "i"))
    assert isinstance(connector, FencesSource)
    assert isinstance(connector, ListsSenders)
    assert (connector.kind, connector.cluster) == ("memory", "declared")


async def test_connectors_reach_the_cluster_they_name(cluster, connect):
    await send(await connect("i-1"), b"x")
    other = await connect("i-2")
    assert (await other.offset_range(QUEUE)).max_offset == 1
    assert MemoryCluster.named(cluster.name) is cluster


async def test_a_connector_that_is_not_open_reaches_nothing(cluster):
    connector = factory(factory.settings_model(cluster=cluster.name), ConnectorContext("declared", "i"))
    with pytest.raises(NotConnected):
        await connector.list_topics()


async def test_a_reader_stands_still_while_history_is_wrong(cluster, connector):
    cluster.produce_many(QUEUE, [b"x"] * 10)
    reader = connector.reader(QUEUE, 2)
    cluster.expire(QUEUE, 4)
    with pytest.raises(HistoryChanged) as raised:
        await reader.read()
    assert (raised.value.lost_from, raised.value.lost_to) == (2, 4)


async def test_truncation_and_re_creation_leave_readers_beyond_the_end(cluster, connector):
    cluster.produce_many(QUEUE, [b"x"] * 10)
    reader = connector.reader(QUEUE, 10)
    cluster.truncate(QUEUE, 8)
    with pytest.raises(HistoryChanged):
        await reader.read()
    cluster.recreate_topic("orders")
    assert cluster.produce(QUEUE, b"new") == 0
    with pytest.raises(HistoryChanged):
        await reader.read()
    assert [bytes(body) for body in (await connector.reader(QUEUE, 0).read()).bodies] == [b"new"]


async def test_a_waiting_reader_notices_truncation(cluster, connect):
    connector = await connect(long_poll_seconds=20)
    cluster.produce_many(QUEUE, [b"x"] * 3)
    reading = asyncio.create_task(connector.reader(QUEUE, 3).read())
    await asyncio.sleep(0.01)
    cluster.truncate(QUEUE, 1)
    with pytest.raises(HistoryChanged):
        await asyncio.wait_for(reading, 2)


async def test_a_record_written_again_at_the_same_offset_has_another_identity(cluster, clock):
    cluster.produce(QUEUE, b"first")
    before = cluster.records(QUEUE)[0]
    cluster.truncate(QUEUE, 0)
    clock.now_ms += 5
    cluster.produce(QUEUE, b"second")
    after = cluster.records(QUEUE)[0]
    assert before.queue_offset == after.queue_offset
    assert before.commit_log_offset < after.commit_log_offset
    assert (before.body_crc, before.store_timestamp_ms) != (after.body_crc, after.store_timestamp_ms)


async def test_losing_the_log_tail_cuts_every_queue_of_the_broker(cluster):
    elsewhere = MessageQueue("orders", "broker-b", 0)
    cluster.produce(QUEUE, b"kept")
    cluster.produce(OTHER_QUEUE, b"kept")
    position = cluster.brokers["broker-a"].commit_log_end
    cluster.produce(QUEUE, b"lost")
    cluster.produce(OTHER_QUEUE, b"lost")
    cluster.produce(elsewhere, b"kept")
    cluster.lose_log_tail("broker-a", position)
    assert stored(cluster) == stored(cluster, OTHER_QUEUE) == stored(cluster, elsewhere) == [b"kept"]
    cluster.produce(QUEUE, b"again")
    assert cluster.records(QUEUE)[1].commit_log_offset == position


async def test_holes_are_told_by_next_offset(cluster, connector):
    cluster.produce_many(QUEUE, [b"%d" % i for i in range(6)])
    cluster.punch_hole(QUEUE, 2, 4)
    cluster.skip_offsets(QUEUE, 3)
    reader = connector.reader(QUEUE, 0)
    batch = await reader.read()
    assert list(batch.offsets) == [0, 1, 4, 5]
    assert batch.next_offset == 9
    cluster.punch_hole(QUEUE, 4, 6)
    batch = await connector.reader(QUEUE, 2).read()
    assert (len(batch), batch.next_offset, batch.max_offset) == (0, 9, 9)


async def test_dispatch_lags_and_the_barrier_waits_for_it(cluster, connector):
    cluster.pause_dispatch("broker-a")
    assert await send(connector, b"x") == Stored(0)
    assert (await connector.offset_range(QUEUE)).max_offset == 0
    with pytest.raises(NotConnected):
        await connector.write_barrier("broker-a", Allowed(), 0.1)
    barrier = asyncio.create_task(connector.write_barrier("broker-a", Allowed(), 10))
    await asyncio.sleep(0.01)
    assert not barrier.done()
    cluster.resume_dispatch("broker-a")
    await barrier
    assert (await connector.offset_range(QUEUE)).max_offset == 1


async def test_read_faults(cluster, connector):
    cluster.produce_many(QUEUE, [b"x"] * 3)
    reader = connector.reader(QUEUE, 0)
    cluster.throttle_next_read(QUEUE, retry_after_seconds=0.3)
    with pytest.raises(Throttled) as raised:
        await reader.read()
    assert raised.value.retry_after_seconds == 0.3
    cluster.cut_readers("broker-a")
    with pytest.raises(NotConnected):
        await reader.read()
    assert list((await reader.read()).offsets) == [0, 1, 2]


@pytest.mark.parametrize("fault", ["cut", "cut_readers", "throttle"])
async def test_a_fault_reaches_a_waiting_reader(cluster, connect, fault):
    connector = await connect(long_poll_seconds=20)
    reading = asyncio.create_task(connector.reader(QUEUE, 0).read())
    await asyncio.sleep(0.01)
    if fault == "cut":
        cluster.cut()
    elif fault == "cut_readers":
        cluster.cut_readers()
    else:
        cluster.throttle_next_read()
    with pytest.raises((NotConnected, Throttled)):
        await asyncio.wait_for(reading, 2)


async def test_a_refused_cut_is_known_at_once_and_heals(cluster, connector):
    assert await send(connector, b"x") == Stored(0)
    cluster.cut()
    with pytest.raises(NotConnected):
        await connector.list_topics()
    outcome = await send(connector, b"y")
    assert isinstance(outcome, NotStored)
    assert outcome.scope == "unreachable"
    cluster.heal()
    assert await send(connector, b"z") == Stored(1)


async def test_a_silent_cut_leaves_an_open_connection_in_doubt(cluster, connector):
    assert await send(connector, b"x") == Stored(0)
    cluster.cut("broker-a", mode="silent")
    assert isinstance(await send(connector, b"y", timeout_seconds=0.1), Unknown)
    await connector.sender("broker-a").reset(connector.sender("broker-a").identity)
    assert (await send(connector, b"y")).scope == "unreachable"
    assert stored(cluster) == [b"x"]


async def test_a_silent_cut_that_heals_answers(cluster, connector):
    cluster.cut(mode="silent")
    asking = asyncio.create_task(connector.list_topics())
    await asyncio.sleep(0.01)
    assert not asking.done()
    cluster.heal()
    assert await asking == ["orders"]


async def test_a_cut_may_concern_one_instance_or_one_broker(cluster, connect):
    first, second = await connect("i-1"), await connect("i-2")
    cluster.cut(instance="i-1")
    assert (await send(first, b"x")).scope == "unreachable"
    assert await send(second, b"x") == Stored(0)
    cluster.heal(instance="i-1")
    cluster.cut("broker-b")
    assert await send(first, b"x") == Stored(1)
    assert (await send(first, b"x", queue=MessageQueue("orders", "broker-b", 0))).scope == "unreachable"


async def test_a_planned_call_fails_once(cluster, connector):
    cluster.fail_next_call("describe_topic", Refused("no"))
    with pytest.raises(Refused):
        await connector.describe_topic("orders")
    assert (await connector.describe_topic("orders")).name == "orders"


async def test_a_role_change_is_told_once_to_each_sender(cluster, connect):
    first, second = await connect("i-1"), await connect("i-2")
    assert await send(first, b"1") == Stored(0)
    reader = first.reader(QUEUE, 0)
    await first.lock_queues("g", "h-1", [QUEUE])
    cluster.change_role("broker-a")
    outcome = await first.sender("broker-a").append(QUEUE, batch(b"2"), Allowed(), TIMEOUT_SECONDS)
    assert isinstance(outcome, NotStored)
    assert outcome.scope == "moved"
    assert await send(first, b"2") == Stored(1)
    assert await send(second, b"3") == Stored(2)
    with pytest.raises(NotConnected):
        await reader.read()
    assert list((await reader.read()).offsets) == [0, 1, 2]
    assert await second.lock_queues("g", "h-2", [QUEUE]) == {QUEUE}


async def test_locks_expire_and_can_be_refused(cluster, connect, clock):
    connector = await connect()
    assert await connector.lock_queues("g", "h-1", [QUEUE]) == {QUEUE}
    clock.now_ms += cluster.lock_life_ms - 1
    assert await connector.lock_queues("g", "h-2", [QUEUE]) == set()
    clock.now_ms += 1
    assert await connector.lock_queues("g", "h-2", [QUEUE]) == {QUEUE}
    cluster.refuse_locks(QUEUE)
    assert await connector.lock_queues("g", "h-2", [QUEUE, OTHER_QUEUE]) == {OTHER_QUEUE}
    cluster.allow_locks(QUEUE)
    assert await connector.lock_queues("g", "h-2", [QUEUE]) == {QUEUE}


async def test_senders_that_linger_or_cannot_be_listed(cluster, connect):
    connector = await connect()
    await send(connector, b"x")
    sender = connector.sender("broker-a")
    identity = sender.identity
    cluster.senders_linger = True
    await sender.reset(sender.identity)
    assert await connector.sender_identities("broker-a") == {identity}
    cluster.forget_reset_senders()
    assert await connector.sender_identities("broker-a") == set()
    cluster.lists_senders = False
    assert await connector.sender_identities("broker-a") is None


async def test_an_unknown_broker_changes_nothing(cluster, connector):
    with pytest.raises(NotFound):
        await connector.create_topic(TopicDescription("new", ()), [QueueSpread("broker-z", 1)])
    assert await connector.describe_topic("new") is None


async def test_topic_attributes_are_described(cluster, connector):
    await connector.create_topic(
        TopicDescription("typed", (), True, "FIFO", {"k": "v"}), [QueueSpread("broker-b", 1), QueueSpread("broker-a", 2)]
    )
    described = await connector.describe_topic("typed")
    assert (described.ordered, described.message_type, described.attributes) == (True, "FIFO", {"k": "v"})
    assert [str(queue) for queue in described.queues] == ["typed broker-a/0", "typed broker-a/1", "typed broker-b/0"]
    cluster.add_topic("static", 1, unsupported="static topic", readable=False)
    described = await connector.describe_topic("static")
    assert (described.unsupported, described.queues) == ("static topic", ())
    with pytest.raises(Refused):
        await connector.reader(MessageQueue("static", "broker-a", 0), 0).read()
