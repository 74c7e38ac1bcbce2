"""Progress of consumer groups on real brokers, with official Java consumers: what we write is exactly where they go on."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from connectors.rocketmq import RocketMQConnector, factory
from deploy.local import LocalCluster, running_clusters
from replicator.core.connector import ConnectorContext
from replicator.core.groups import GroupSettings, Subscription
from tests.integration.conftest import PATIENT

pytestmark = [pytest.mark.rocketmq, pytest.mark.timeout(240)]
COUNT = 60
COMMIT_INTERVAL_SECONDS = 5.0
SEEN_SECONDS_MAX = 40.0
"""A push consumer that misses its first rebalance needs up to 20 s for its queues."""


@pytest.fixture(scope="module", params=["5.3.3", "4.9.7", "4.4.0"])
def lab(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    cluster = LocalCluster("groups", version=request.param, broker_properties=PATIENT)
    with running_clusters(cluster):
        yield cluster


@pytest.fixture
async def connector(lab: LocalCluster) -> AsyncIterator[RocketMQConnector]:
    made = factory(factory.settings_model(name_servers=[lab.name_servers]), ConnectorContext("groups", f"groups-{uuid.uuid4().hex[:8]}"))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def topic(lab, witness) -> str:
    name = f"groups-{uuid.uuid4().hex[:8]}"
    witness.create_topic(lab.name_servers, name, queues=2)
    witness.bulk(lab.name_servers, name, COUNT, with_keys=True)
    return name


async def queues_of(connector, topic: str):
    return (await connector.describe_topic(topic)).queues


async def test_a_stopped_group_goes_on_exactly_where_it_was_put(lab, connector, witness, topic):
    group = f"{topic}-stopped"
    first, second = await queues_of(connector, topic)
    assert await connector.create_groups([GroupSettings(group, {"retryMaxTimes": 3})]) == {}
    assert (await connector.group_settings())[group].settings["retryMaxTimes"] == 3
    assert group not in await connector.group_offsets([topic])
    written = await connector.write_offsets(group, {first: 7, second: 25}, running=False)
    assert [(one.now, one.way, one.refused) for one in written] == [(7, "commit", ""), (25, "commit", "")]
    expected = [(0, offset) for offset in range(7, 30)] + [(1, offset) for offset in range(25, 30)]
    seen = await asyncio.to_thread(
        witness.consume, lab.name_servers, topic, group, expect=len(expected), quiet_seconds=30, timeout_seconds=SEEN_SECONDS_MAX
    )
    assert sorted((row.queue, row.offset) for row in seen) == expected
    assert (await connector.group_members(group)).count == 0


async def test_members_and_what_they_want_are_seen(lab, connector, witness, topic):
    group = f"{topic}-online"
    with await asyncio.to_thread(
        witness.start_consumer, lab.name_servers, topic, group, expression="a > 3 OR b IS NULL", expression_type="SQL92"
    ):
        members = await connector.group_members(group)
    assert (members.count, members.kind, members.broadcasting, members.agree) == (1, "push", False, True)
    assert members.subscriptions == (Subscription(topic, "a > 3 OR b IS NULL", "SQL92"),)


async def test_a_running_group_is_moved_exactly_or_not_at_all(lab, connector, witness, topic):
    group = f"{topic}-running"
    first, _ = await queues_of(connector, topic)
    consumer = await asyncio.to_thread(witness.start_consumer, lab.name_servers, topic, group)
    try:
        await asyncio.to_thread(consumer.wait, expect=COUNT, timeout_seconds=SEEN_SECONDS_MAX)
        (written,) = await connector.write_offsets(group, {first: 20}, running=True)
        if not await connector.can_reset_exactly(first.broker_name):
            assert lab.version.startswith("4.")
            assert "stop them first" in written.refused
        else:
            assert (written.now, written.way, written.refused) == (20, "reset", "")
            await asyncio.to_thread(consumer.wait, expect=COUNT + 10, timeout_seconds=SEEN_SECONDS_MAX)
    finally:
        seen = await asyncio.to_thread(consumer.stop)
    again = [(row.queue, row.offset) for row in seen][COUNT:]
    assert sorted(again) == ([] if written.refused else [(0, offset) for offset in range(20, 30)])


async def test_a_commit_over_a_running_member_does_not_stay(lab, connector, witness, topic):
    """Why a running group is never written by a commit: its member puts its own value back."""
    group = f"{topic}-overwritten"
    first, _ = await queues_of(connector, topic)
    with await asyncio.to_thread(witness.start_consumer, lab.name_servers, topic, group) as consumer:
        await asyncio.to_thread(consumer.wait, expect=COUNT, timeout_seconds=SEEN_SECONDS_MAX)
        await connector.write_offsets(group, {first: 3}, running=False)
        deadline = time.monotonic() + 3 * COMMIT_INTERVAL_SECONDS
        while (await connector.group_offsets([topic]))[group][first] != 30:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
