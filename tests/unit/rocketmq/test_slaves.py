"""A slave in the place of a master that is away: only for those who ask for it, and told."""

from __future__ import annotations

import asyncio

import pytest

from connectors.rocketmq import source
from connectors.rocketmq.remoting.codes import RequestCode
from replicator.core.errors import NotConnected, Throttled
from tests.fakes.broker import answer
from tests.unit.rocketmq.conftest import TOPIC, become_master


def lose_master(fake):
    """The name server knows only the second process of the group from now on, as a slave."""
    former, slave = fake.brokers.values()
    become_master(fake)
    slave.replica = 1
    return former, slave


@pytest.fixture
def slave(fake, connector):
    _, slave = lose_master(fake)
    slave.put(TOPIC, 0, b"replicated")
    return slave


async def test_bounds_records_and_locks_of_a_slave_are_for_those_who_ask(connector, queue, slave):
    for refused in (connector.offset_range(queue), connector.lock_queues("g", "h", [queue]), connector.sender(queue.broker_name).connect()):
        with pytest.raises(NotConnected, match="no master"):
            await refused
    bounds = await connector.offset_range(queue, any_replica=True)
    assert (bounds.min_offset, bounds.max_offset, bounds.may_lack_newest) == (0, 1, True)
    assert await connector.lock_queues("g", "h", [queue], any_replica=True) == {queue}
    reader = connector.reader(queue, 0, any_replica=True)
    batch = await reader.read()
    assert list(map(bytes, batch.bodies)) == [b"replicated"]
    assert slave.address in batch.remark
    assert "no master" in batch.remark
    await reader.close()
    (broker,) = (await connector.describe()).brokers
    assert broker.address == slave.address


async def test_a_slave_that_is_behind_is_waited_for(connector, queue, slave):
    """It answers 20 where a master would say that the history is another one."""
    bounds = {"minOffset": 0, "maxOffset": 1, "nextBeginOffset": 1, "suggestWhichBrokerId": 0}
    slave.handlers[RequestCode.PULL_MESSAGE] = lambda command, connection: answer(code=20, **bounds)
    reader = connector.reader(queue, 5, any_replica=True)
    with pytest.raises(Throttled, match="ends at 1"):
        await reader.read()
    await reader.close()


async def test_the_master_is_read_again_when_there_is_one(fake, connector, queue, monkeypatch):
    monkeypatch.setattr(source, "SLAVE_CHECK_SECONDS", 0.0)
    former, slave = lose_master(fake)
    slave.put(TOPIC, 0, b"first")
    reader = connector.reader(queue, 0, any_replica=True)
    reader.release(await reader.read())
    for body in (b"first", b"second"):
        former.put(TOPIC, 0, body)
    fake.name_server_process.brokers = {former.name: former}
    connector._client.forget_masters()
    with pytest.raises(NotConnected, match="another process is master"):
        await asyncio.wait_for(reader.read(), 5)
    batch = await asyncio.wait_for(reader.read(), 5)
    assert (list(map(bytes, batch.bodies)), batch.remark) == ([b"second"], "")
    await reader.close()
