"""Brokers whose slaves act for their master: refused by name, before a message is copied."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.local import LocalCluster, running_clusters
from tests.acceptance.process import cluster_yaml, one_way, task_yaml
from tests.integration.conftest import PATIENT

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.long, pytest.mark.timeout(300)]
BLOCKED_SECONDS_MAX = 30.0


@pytest.fixture
def acting() -> Iterator[tuple[LocalCluster, LocalCluster]]:
    source = LocalCluster("suzhou", broker_properties=PATIENT | {"enableSlaveActingMaster": True})
    destination = LocalCluster("ningbo", broker_properties=PATIENT)
    with running_clusters(source, destination):
        yield source, destination


def test_a_topic_of_such_a_broker_is_blocked_with_the_setting_named(acting, witness, replicator, topic_name) -> None:
    source, destination = acting
    topic = topic_name("acting")
    witness.create_topic(source.name_servers, topic, queues=2)
    witness.bulk(source.name_servers, topic, 10)
    clusters = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in acting]
    process = replicator(*clusters, task_yaml("acting", topic, one_way(source.name, destination.name)))
    process.start()
    process.wait_ready()
    flow = process.wait_flow("the setting named", lambda one: "enableSlaveActingMaster" in one["error"], BLOCKED_SECONDS_MAX)
    assert flow["error"].count(source.broker_names[0]) >= 1
    assert flow["copied_total"] == 0
