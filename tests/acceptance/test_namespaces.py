"""Namespaces of 4.x through the product: clients with ``setNamespace`` on both sides, messages and progress, from 4.9.7 to 5.3.3."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from deploy.local import LocalCluster, running_clusters
from tests.acceptance.process import cluster_yaml, one_way, task_yaml
from tests.acceptance.truth import assert_copied_exactly
from tests.integration.conftest import PATIENT
from tests.witness.client import Witness

pytestmark = [pytest.mark.long, pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(400)]
HERE, THERE = "retail", "wholesale"
COUNT, PROCESSED = 200, 120
SYNCED_SECONDS_MAX = 60.0
POLL_SECONDS = 0.5


@pytest.fixture(scope="module")
def clusters() -> Iterator[tuple[LocalCluster, LocalCluster]]:
    pair = LocalCluster("yinchuan", version="4.9.7", broker_properties=PATIENT), LocalCluster("lanzhou", broker_properties=PATIENT)
    with running_clusters(*pair):
        yield pair


@pytest.fixture(scope="module")
def tenants() -> Iterator[tuple[Witness, Witness]]:
    """The official client as the applications of each side use it."""
    with Witness(jvm_options=[f"-Dwitness.namespace={HERE}"]) as here, Witness(jvm_options=[f"-Dwitness.namespace={THERE}"]) as there:
        yield here, there


def test_messages_and_progress_go_from_namespace_to_namespace(clusters, tenants, witness, replicator, topic_name) -> None:
    source, destination = clusters
    topic = topic_name("orders")
    group, stranger = f"{topic}-readers", f"other%{topic}"
    for name in (f"{HERE}%{topic}", topic, stranger):
        witness.create_topic(source.name_servers, name, queues=1)
    for name in (topic, stranger):
        witness.bulk(source.name_servers, name, 20, prefix="not-ours", with_keys=True)
    witness.create_group(source.name_servers, f"{HERE}%{group}")
    lines = one_way(source.name, destination.name) + "  progress: {interval_seconds: 1}\n"
    process = replicator(
        cluster_yaml(source.name, source.name_servers, f"namespace: {HERE}"),
        cluster_yaml(destination.name, destination.name_servers, f"namespace: {THERE}"),
        task_yaml("tenants", "orders-*", lines),
    )
    process.start()
    process.wait_ready()
    tenants[0].produce(source.name_servers, topic, COUNT, prefix="ours", with_keys=True)
    process.wait_caught_up(60, copied_at_least=COUNT)
    born = witness.drain(source.name_servers, f"{HERE}%{topic}", expect=COUNT)
    copies = witness.drain(destination.name_servers, f"{THERE}%{topic}", expect=COUNT)
    assert_copied_exactly(born, copies, {"origin": source.name})
    assert {name for name in witness.topics(destination.name_servers) if topic in name and "RETRY" not in name} == {f"{THERE}%{topic}"}

    # Movement is what makes a side the owner: it is seen twice before anything is written.
    wired = (f"{HERE}%{topic}", f"{HERE}%{group}")
    for offset in (40, 80, PROCESSED):
        witness.set_progress(source.name_servers, wired[0], wired[1], offset)
        time.sleep(2.5)
    deadline = time.monotonic() + SYNCED_SECONDS_MAX
    while _offset(witness, destination, f"{THERE}%{group}", f"{THERE}%{topic}") != PROCESSED:
        assert time.monotonic() < deadline, process.tail()
        time.sleep(POLL_SECONDS)
    seen = tenants[1].consume(destination.name_servers, topic, group, expect=COUNT - PROCESSED)
    assert sorted(row.keys for row in seen) == sorted(f"ours-{n}" for n in range(PROCESSED, COUNT))
    process.assert_no_traceback()
    assert process.stop() < 10


def _offset(witness: Witness, cluster: LocalCluster, group: str, topic: str) -> int:
    """-1 before there is one."""
    return sum(row.consumer_offset for row in witness.consumer_progress(cluster.name_servers, group, topic))
