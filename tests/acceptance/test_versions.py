"""Two brokers of an old version against one of a new one, both ways: every kind of message, and the progress of a stopped group.

All versions against each other: ``make grid``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.local import LocalCluster, running_clusters
from tests.acceptance.process import cluster_yaml
from tests.grid.pair import GRID_BROKER, QUEUES, Pair, judge, row_of

pytestmark = [pytest.mark.long, pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(420)]


@pytest.fixture
def old_and_new() -> Iterator[tuple[LocalCluster, LocalCluster]]:
    """Of their own: the shared ones ask about transactions so soon that they commit some twice."""
    old = LocalCluster("suzhou", version="4.9.7", brokers=2, broker_properties=GRID_BROKER)
    new = LocalCluster("wuhan", broker_properties=GRID_BROKER)
    with running_clusters(old, new):
        yield old, new


def test_two_old_brokers_against_a_new_one(old_and_new, witness, replicator) -> None:
    two_brokers, one_broker = old_and_new
    pairs = [Pair(two_brokers, one_broker), Pair(one_broker, two_brokers)]
    for pair in pairs:
        pair.create_topic(witness)
    clusters = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in (two_brokers, one_broker)]
    process = replicator(*clusters, *(pair.document() for pair in pairs))
    process.start()
    process.wait_ready()
    for pair in pairs:
        outcome = judge(pair, witness, process, bulk=40)
        assert outcome.is_exact, row_of(outcome)
        made = witness.offsets(pair.destination.name_servers, pair.topic)
        brokers = pair.destination.broker_names
        assert set(made) == {(broker, queue) for broker in brokers for queue in range(QUEUES // len(brokers))}
    process.assert_no_traceback()
    assert process.stop() < 10
