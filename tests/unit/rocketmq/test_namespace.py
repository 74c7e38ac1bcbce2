"""Namespaces of 4.x: names as the applications see them above, as the brokers know them below."""

from __future__ import annotations

import pytest

from connectors.rocketmq.namespace import Namespace
from replicator.core.record import MessageQueue
from tests.unit.rocketmq.conftest import make_connector


@pytest.mark.parametrize(
    ("bare", "wired"),
    [
        ("orders", "ns%orders"),
        ("%RETRY%billing", "%RETRY%ns%billing"),
        ("%DLQ%billing", "%DLQ%ns%billing"),
        ("replicator-barrier", "replicator-barrier"),
        ("nsx", "ns%nsx"),
    ],
)
def test_names_go_down_and_come_up_again(bare, wired):
    namespace = Namespace("ns")
    assert (namespace.wired(bare), namespace.bare(wired)) == (wired, bare)
    assert namespace.wired(wired) == wired, "never written twice"


async def test_a_namespace_sees_its_own_topics_and_groups_only(fake):
    for topic in ("ns%pay", "ns%%RETRY%x", "other%pay", "ns%replicator-x"):
        fake.create_topic(topic, 1)
    connector = make_connector(fake, namespace="ns")
    plain = make_connector(fake)
    try:
        await connector.open()
        await plain.open()
        assert list(await connector.list_topics()) == ["pay"]
        assert await connector.describe_topic("orders") is None
        assert (await connector.describe_topic("pay")).queues[0] == MessageQueue("pay", "fake-0", 0)
        await connector.write_mark("abc")
        assert list(await connector.read_marks()) == list(await plain.read_marks()) == ["abc"]
        wired = MessageQueue("ns%pay", "fake-0", 0)
        await plain.publish_position("ns%billing", {wired: 4})
        assert await connector.consumer_offset("billing", MessageQueue("pay", "fake-0", 0)) == 4
        overheads = [(await one.describe()).record_overhead_bytes for one in (connector, plain)]
        assert overheads[0] - overheads[1] == len("ns%")
    finally:
        await connector.close()
        await plain.close()
