"""Writing progress: what goes side by side."""

from __future__ import annotations

import asyncio

from connectors.rocketmq.remoting.codes import RequestCode
from replicator.core.groups import GroupSettings
from replicator.core.record import MessageQueue
from tests.fakes.tcp import Action
from tests.unit.rocketmq.conftest import until

COMMITS = [RequestCode.UPDATE_CONSUMER_OFFSET]


async def test_the_first_commit_of_a_topic_goes_alone(fake, connector):
    """Two at once, and a broker keeps one of them only."""
    fake.create_topic("many", 6)
    queues = [MessageQueue("many", fake.broker.name, number) for number in range(6)]
    assert await connector.create_groups([GroupSettings("readers")]) == {}
    before = fake.broker.counts[RequestCode.UPDATE_CONSUMER_OFFSET]
    fake.broker.inject(Action.DELAY_ANSWER, COMMITS, seconds=0.3)
    writing = asyncio.create_task(connector.write_offsets("readers", {queue: queue.queue_id for queue in queues}, running=False))
    await until(lambda: fake.broker.counts[RequestCode.UPDATE_CONSUMER_OFFSET] == before + 1)
    await asyncio.sleep(0.1)  # nothing else is sent while the first one waits for its answer
    assert fake.broker.counts[RequestCode.UPDATE_CONSUMER_OFFSET] == before + 1
    written = await writing
    assert [(one.queue, one.now, one.refused) for one in written] == [(queue, queue.queue_id, "") for queue in queues]
    assert fake.broker.counts[RequestCode.UPDATE_CONSUMER_OFFSET] == before + 6
