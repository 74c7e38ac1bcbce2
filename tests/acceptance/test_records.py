"""Records at the edges of what brokers take, and tasks that are paused, deleted, and made anew under another name."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from connectors.rocketmq import factory
from deploy.local import LocalCluster
from replicator.core.connector import ConnectorContext, Stored
from replicator.core.record import AppendBatch, MessageQueue
from tests.acceptance.command import refused
from tests.acceptance.process import cluster_yaml, one_way, task_yaml
from tests.acceptance.truth import assert_copied_exactly

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(180)]
PROPERTIES_BYTES_MAX = 32_767
PROPERTIES_BYTES_COPIED_MAX = 32_000
"""With stamp and tags: brokers add some of their own to every copy."""
STAMP_BYTES_MAX = 300
"""More than a stamp and a tag take."""
COUNT = 40
PAUSED_SECONDS = 4.0
"""Longer than a worker takes to let go and than the copy of a few messages takes."""


class Always:
    def is_valid(self) -> bool:
        return True


async def append(cluster: LocalCluster, topic: str, bodies: list[bytes], properties: list[bytes]) -> None:
    """What no official client would send: written by our own, into queue 0."""
    connector = factory(factory.settings_model(name_servers=[cluster.name_servers]), ConnectorContext(cluster.name, "edges"))
    await connector.open()
    try:
        sender = connector.sender(cluster.broker_names[0])
        await sender.connect()
        batch = AppendBatch(bodies, properties, [0] * len(bodies))
        outcome = await sender.append(MessageQueue(topic, cluster.broker_names[0], 0), batch, Always(), 10)
        assert isinstance(outcome, Stored), outcome
    finally:
        await connector.close()


def packed(keys: str, size_bytes: int) -> bytes:
    head = f"KEYS\x01{keys}\x02filler\x01".encode()
    return head + b"x" * (size_bytes - len(head) - 1) + b"\x02"


def make(replicator, clusters, name: str, topic: str, data: str):
    source, destination = clusters
    documents = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in clusters]
    return replicator(*documents, task_yaml(name, topic, one_way(source.name, destination.name)), name=data)


def test_empty_bodies_long_properties_and_shared_ids(two_clusters, witness, replicator, topic_name) -> None:
    source, destination = two_clusters
    topic = topic_name("edges")
    witness.create_topic(source.name_servers, topic, queues=1)
    fits, does_not = packed("fits", PROPERTIES_BYTES_COPIED_MAX - STAMP_BYTES_MAX), packed("does-not", PROPERTIES_BYTES_MAX - 60)
    asyncio.run(append(source, topic, [b"", b"between", b""], [b"KEYS\x01empty-1\x02", b"KEYS\x01between\x02", b"KEYS\x01empty-2\x02"]))
    asyncio.run(append(source, topic, [b"fits"], [fits]))
    asyncio.run(append(source, topic, [b"does not"], [does_not]))
    witness.produce(source.name_servers, topic, COUNT, kind="batch", prefix="batch", with_keys=True)
    process = make(replicator, two_clusters, "edges", topic, "edges")
    process.start()
    process.wait_ready()
    process.wait_caught_up(60, copied_at_least=4 + COUNT)
    born = witness.drain(source.name_servers, topic, expect=5 + COUNT)
    copies = witness.drain(destination.name_servers, topic, expect=4 + COUNT)
    assert_copied_exactly([row for row in born if row.keys != "does-not"], copies, {"origin": source.name})
    assert [row.body_bytes for row in copies[:4]] == [0, 7, 0, 4]
    ids = Counter(row.properties["UNIQ_KEY"] for row in born if row.keys.startswith("batch"))
    assert max(ids.values()) > 1, "the official client's batches no longer share an id: look for another producer"
    flow = process.flows()[0]
    assert (flow["parked"], flow["skipped_total"]["refused"], flow["state"]) == (1, 1, "running")
    (parked,) = process.answer_of("parked", "list", "edges")
    assert "properties" in parked["reason"]
    process.assert_no_traceback()
    assert process.stop() < 10


def test_paused_deleted_and_made_anew(two_clusters, witness, replicator, topic_name, tmp_path) -> None:
    source, destination = two_clusters
    topic = topic_name("anew")
    witness.create_topic(source.name_servers, topic, queues=2)
    process = make(replicator, two_clusters, "first", topic, "first")
    process.start()
    process.wait_ready()

    def fill(stage: str) -> None:
        witness.bulk(source.name_servers, topic, COUNT, prefix=stage, batch_size=5, with_keys=True)

    fill("a")
    process.wait_caught_up(60, copied_at_least=COUNT)
    assert process.command("pause", "first").returncode == 0
    process.wait_flow("paused", lambda flow: flow["state"] == "paused", 10)
    fill("b")
    assert len(witness.drain(destination.name_servers, topic, expect=COUNT + 1, timeout_seconds=PAUSED_SECONDS)) == COUNT
    assert process.command("resume", "first").returncode == 0
    process.wait_caught_up(60, copied_at_least=2 * COUNT)

    second = tmp_path / "second.yaml"
    second.write_text(task_yaml("second", topic, one_way(source.name, destination.name), start="latest"))
    said = refused(process.command("apply", "-f", second), 4)
    assert "first" in said
    assert topic in said
    assert process.command("delete", "tasks", "first").returncode == 0
    fill("c")
    assert process.command("apply", "-f", second).returncode == 0
    process.wait_caught_up(60, copied_at_least=3 * COUNT)
    born = witness.drain(source.name_servers, topic, expect=3 * COUNT)
    copies = witness.drain(destination.name_servers, topic, expect=3 * COUNT)
    assert_copied_exactly(born, copies, {"origin": source.name})
    process.assert_no_traceback()
    assert process.stop() < 10
