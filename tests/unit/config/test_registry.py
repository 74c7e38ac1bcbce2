from __future__ import annotations

import pytest

from connectors.memory import MemoryConnector
from replicator import registry
from replicator.core.errors import InvalidInput
from replicator.core.task import Cluster


def test_kinds_are_those_of_the_entry_points() -> None:
    assert registry.kinds() == ["memory", "rocketmq"]
    assert registry.load("rocketmq").settings_model.__name__ == "RocketMQSettings"


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="unknown connector 'rocketm'.*did you mean rocketmq"):
        registry.load("rocketm")
    with pytest.raises(InvalidInput, match="known: memory, rocketmq"):
        registry.load("kafka")


async def test_connect_builds_a_connector_for_the_cluster() -> None:
    connector = registry.connect(Cluster("a", "memory", {"cluster": "registry-test"}), "me", memory_bytes_max=1 << 20)
    assert isinstance(connector, MemoryConnector)
    assert connector.cluster == "a"


def test_connect_refuses_settings_that_do_not_fit() -> None:
    with pytest.raises(InvalidInput, match="cluster a: memory settings: cluster: Field required"):
        registry.connect(Cluster("a", "memory", {}), "me")
