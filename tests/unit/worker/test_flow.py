"""Which records of a source topic a flow copies."""

from __future__ import annotations

import pytest

from connectors.memory import MemoryConnector, factory
from replicator.core.connector import ConnectorContext
from replicator.core.task import ReplicationTask, StartPoint
from replicator.worker.flow import FlowContext


class Retrying(MemoryConnector):
    """A record of the group's place names the topic it came from."""

    async def retry_topics(self, groups):
        return ()

    async def waiting_ends(self):
        return {}

    async def waiting_counts(self, groups):
        return {}

    def retried_topic(self, topic, properties):
        return properties.get("from")


def flow(filter_text: str = "", connector=Retrying) -> FlowContext:
    task = ReplicationTask("t", "one-way", ("a", "b"), ("orders",), StartPoint("earliest"), filter=filter_text, retry=True)
    source = connector(factory.settings_model(cluster="a"), ConnectorContext("a", "unit"))
    return FlowContext(task, 1, source, None, None, None, {}, None, {}, None, 1, 1, 1, 1)


@pytest.mark.parametrize("topic", ["%WAITING%pay", "%DLQ%pay"])
def test_of_what_a_group_failed_on_only_the_tasks_topics(topic: str) -> None:
    passes = flow()._filter(topic)
    assert passes is not None
    assert passes({"from": "orders"})
    assert not passes({"from": "bills"})
    assert not passes({})


def test_the_tasks_filter_holds_for_it_too() -> None:
    passes = flow("region = 'cn'")._filter("%WAITING%pay")
    assert passes is not None
    assert passes({"from": "orders", "region": "cn"})
    assert not passes({"from": "orders"})
    assert not passes({"from": "bills", "region": "cn"})


def test_other_topics_know_the_filter_only() -> None:
    assert flow()._filter("orders") is None
    passes = flow("region = 'cn'")._filter("orders")
    assert passes is not None
    assert passes({"region": "cn"})
    assert flow(connector=MemoryConnector)._filter("%DLQ%pay") is None
