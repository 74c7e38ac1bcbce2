"""Groups: one table serves all queues of a start, our own commits are seen at once, and a group goes with its progress."""

from __future__ import annotations

import asyncio

import pytest

from connectors.rocketmq.remoting.codes import RequestCode
from replicator.core.record import MessageQueue
from tests.unit.rocketmq.conftest import TOPIC


def count_tables(fake) -> list[str]:
    asked: list[str] = []
    for broker in fake.brokers.values():
        inner = broker.handlers[RequestCode.GET_ALL_CONSUMER_OFFSET]

        def counted(command, connection, inner=inner, name=broker.name):
            asked.append(name)
            return inner(command, connection)

        broker.handlers[RequestCode.GET_ALL_CONSUMER_OFFSET] = counted
    return asked


async def test_the_table_of_a_broker_is_read_once_for_all_queues_of_a_start(connector, fake):
    await connector.open()
    queues = [MessageQueue(TOPIC, name, number) for name in fake.brokers for number in range(4)]
    await connector.publish_position("g", {queue: number for number, queue in enumerate(queues) if number != 2})
    asked = count_tables(fake)
    found = await asyncio.gather(*(connector.consumer_offset("g", queue) for queue in queues))
    assert list(found) == [number if number != 2 else None for number in range(len(queues))]
    assert sorted(asked) == sorted(fake.brokers)
    assert await connector.consumer_offset("other", queues[0]) is None
    assert len(asked) == 2


async def test_what_we_commit_ourselves_is_seen_at_once(connector, queue):
    await connector.open()
    assert await connector.consumer_offset("g", queue) is None
    await connector.publish_position("g", {queue: 5})
    assert await connector.consumer_offset("g", queue) == 5


async def test_a_group_is_removed_from_every_broker_with_its_progress(connector, fake):
    await connector.open()
    queues = [MessageQueue(TOPIC, name, 0) for name in fake.brokers]
    await connector.publish_position("g", dict.fromkeys(queues, 7))
    await connector.publish_position("other", dict.fromkeys(queues, 8))
    await connector.remove_group("g")
    assert [set(broker.groups) & {"g", "other"} for broker in fake.brokers.values()] == [{"other"}, {"other"}]
    assert [await connector.consumer_offset("g", one) for one in queues] == [None, None]
    assert [await connector.consumer_offset("other", one) for one in queues] == [8, 8]
    await connector.remove_group("g")


@pytest.mark.parametrize(("configured", "seconds"), [("72", 259_200.0), ("", None), ("soon", None)])
async def test_retention_is_what_the_broker_is_configured_to_keep(connector, fake, configured, seconds):
    await connector.open()
    fake.broker.config["fileReservedTime"] = configured
    assert await connector.retention_seconds(fake.broker.name) == seconds


async def test_pull_limits_are_raised_where_they_are_lower_and_set_back(connector, fake):
    await connector.open()
    names = list(fake.brokers)
    fake.brokers[names[1]].config |= {"maxTransferCountOnMessageInMemory": "2048", "maxTransferBytesOnMessageInMemory": "4194304"}
    plan = await connector.plan_tuning()
    assert plan == {names[0]: {
        "maxTransferCountOnMessageInMemory": ("32", "1024"), "maxTransferBytesOnMessageInMemory": ("262144", "1048576"),
    }}
    await connector.change_settings(names[0], {name: after for name, (_, after) in plan[names[0]].items()})
    assert (await connector.read_settings(names[0]))["maxTransferCountOnMessageInMemory"] == "1024"
    assert await connector.plan_tuning() == {}
