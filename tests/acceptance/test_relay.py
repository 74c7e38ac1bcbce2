"""Sends that land after a successor has begun: a relay holds the bytes of an append, the sender is killed or stopped, a successor
takes over, and only then the bytes reach the broker. Nothing twice, nothing lost."""

from __future__ import annotations

import signal
import time

import pytest

from tests.acceptance.process import cluster_yaml, task_yaml
from tests.acceptance.relay import Relay
from tests.acceptance.truth import assert_copied_exactly

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(420)]

FIRST, HELD = 200, 300
HELD_SECONDS = 14.0
"""Longer than lease, fence and settle time together: a successor that trusted those alone would have written by then."""
ONE_WAY = """  mode: one-way
  source: hangzhou
  destinations: [shanghai]
"""


@pytest.fixture
def relay(two_clusters):
    relay = Relay(two_clusters[1].broker_addresses[0])
    yield relay
    relay.close()


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_held_bytes_are_not_sent_again(two_clusters, witness, replicator, relay, topic_name, postgres_url, end) -> None:
    hangzhou, shanghai = two_clusters
    topic = topic_name(f"relay-{end}")
    for cluster in two_clusters:
        witness.create_topic(cluster.name_servers, topic, queues=2)
    mapped = cluster_yaml("shanghai", shanghai.name_servers) + f'    address_map: {{"{shanghai.broker_addresses[0]}": "{relay.address}"}}\n'
    documents = [cluster_yaml("hangzhou", hangzhou.name_servers), mapped, task_yaml("relay", topic, ONE_WAY)]
    first = replicator(*documents, name="first", database_url=postgres_url)
    first.start()
    first.wait_ready()
    witness.bulk(hangzhou.name_servers, topic, FIRST, prefix="hangzhou-a", with_keys=True)
    first.wait_caught_up(60, copied_at_least=FIRST)

    relay.hold()
    witness.bulk(hangzhou.name_servers, topic, HELD, prefix="hangzhou-b", with_keys=True, body_bytes=100)
    relay.wait_held(b"hangzhou-b", 20)
    if end == "killed":
        first.kill()
    else:
        first.send_signal(signal.SIGSTOP)
    second = replicator(*documents, name="second", database_url=postgres_url)
    second.start()
    second.wait_ready()
    time.sleep(HELD_SECONDS)  # what is tested is that nothing happens in this time
    assert len(witness.drain(shanghai.name_servers, topic, expect=FIRST)) == FIRST, "the successor did not wait for the held bytes"
    relay.release()
    if end == "stopped":
        first.send_signal(signal.SIGCONT)
    second.wait_caught_up(180)  # up to 150 s where only the broker ends the old connection
    time.sleep(2.0)  # a late writer would show now
    born = witness.drain(hangzhou.name_servers, topic, expect=FIRST + HELD)
    copies = witness.drain(shanghai.name_servers, topic, expect=FIRST + HELD)
    assert_copied_exactly(born, copies, {"origin": "hangzhou"})
    assert second.stop() < 10
