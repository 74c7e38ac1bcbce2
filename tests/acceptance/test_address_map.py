"""Brokers that register an address which leads nowhere from here, as behind address translation, and which a gateway reaches.

The address is one of loopback where nobody listens while the product runs. The witness is "inside": for it a relay stands there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.local import LocalCluster, running_clusters
from tests.acceptance.command import refused, run_command
from tests.acceptance.process import cluster_yaml, one_way, task_yaml
from tests.acceptance.relay import Relay
from tests.acceptance.truth import assert_copied_exactly
from tests.integration.conftest import PATIENT

pytestmark = [pytest.mark.long, pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(400)]
INSIDE = "127.0.0.2"
COUNT = 200


def inside_address(cluster: LocalCluster) -> str:
    return f"{INSIDE}:{cluster.broker_addresses[0].rpartition(':')[2]}"


@pytest.fixture(scope="module")
def translated() -> Iterator[tuple[LocalCluster, LocalCluster]]:
    clusters = LocalCluster("lijiang", broker_properties=PATIENT | {"brokerIP1": INSIDE}), LocalCluster(
        "dali", broker_properties=PATIENT | {"brokerIP1": INSIDE}
    )
    with running_clusters(*clusters):
        yield clusters


@contextmanager
def inside(*clusters: LocalCluster) -> Iterator[None]:
    """What brokers register leads to them for as long as this lasts."""
    relays = [Relay(cluster.broker_addresses[0], (INSIDE, int(inside_address(cluster).rpartition(":")[2]))) for cluster in clusters]
    try:
        yield
    finally:
        for relay in relays:
            relay.close()


@pytest.fixture
def gateways(translated) -> Iterator[list[Relay]]:
    relays = [Relay(cluster.broker_addresses[0]) for cluster in translated]
    yield relays
    for relay in relays:
        relay.close()


def test_addresses_that_lead_nowhere_are_mapped(translated, gateways, witness, replicator, topic_name) -> None:
    """The source by its exact address, the destination by a pattern."""
    source, destination = translated
    topic = topic_name("mapped")
    with inside(*translated):
        witness.create_topic(source.name_servers, topic, queues=2)
        witness.bulk(source.name_servers, topic, COUNT, with_keys=True)
        born = witness.drain(source.name_servers, topic, expect=COUNT)
    port = inside_address(destination).rpartition(":")[2]
    maps = [f'"{inside_address(source)}": "{gateways[0].address}"', f'"127.0.*.2:{port}": "{gateways[1].address}"']
    documents = [
        cluster_yaml(cluster.name, cluster.name_servers, f"address_map: {{{entry}}}")
        for cluster, entry in zip(translated, maps, strict=True)
    ]
    process = replicator(*documents, task_yaml("mapped", topic, one_way(source.name, destination.name)))
    unmapped = process.file.with_name("unmapped.yaml")
    unmapped.write_text(cluster_yaml(source.name, source.name_servers))
    assert inside_address(source) in refused(run_command("check", "-f", unmapped), 1)
    checked = run_command("check", "-f", process.file)
    assert checked.returncode == 0, checked.stderr
    process.start()
    process.wait_ready()
    process.wait_caught_up(90, copied_at_least=COUNT)
    with inside(*translated):
        assert_copied_exactly(born, witness.drain(destination.name_servers, topic, expect=COUNT), {"origin": source.name})
    process.assert_no_traceback()
    assert process.stop() < 10
