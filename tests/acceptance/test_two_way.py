"""Two-way between two real clusters, every kind of message from official clients on both sides.

``REPLICATOR_TWO_WAY_MESSAGES`` sets how many ordinary ones each side gets besides (2,000 in the ordinary run, 20,000 as a target).
"""

from __future__ import annotations

import os

import pytest

from tests.acceptance.process import TWO_WAY, task_yaml
from tests.acceptance.truth import assert_copied_exactly, born_and_copied

MESSAGES = int(os.environ.get("REPLICATOR_TWO_WAY_MESSAGES", "2000"))
pytestmark = [pytest.mark.rocketmq, pytest.mark.timeout(420)]
USER_PROPERTIES = {"region": "cn", "amount": "{i}", "ключ": "значение"}
LARGE_BODY_BYTES = 4 * 1024 * 1024 - 4096


def produce_everything(witness, cluster, topic: str) -> int:
    """Every kind once or more; returns how many must become visible."""
    servers, name = cluster.name_servers, cluster.name
    expected = 0

    def some(kind: str, count: int, *, visible: bool = True, **options: object) -> None:
        nonlocal expected
        prefix = f"{name}-{kind}-{len(options)}"
        witness.produce(servers, topic, count, kind=kind, prefix=prefix, properties=USER_PROPERTIES, tags="TagA", **options)
        expected += count if visible else 0

    some("normal", 60)
    some("ordered", 60)
    some("batch", 60)
    some("delay", 5)
    some("timer", 5)
    some("transaction", 10)
    some("transaction", 5, visible=False, decision="rollback", body_bytes=10)
    some("compressed", 10)
    some("compressed", 5, compression="LZ4", body_bytes=20_000, with_keys=True)
    some("normal", 1, body_bytes=LARGE_BODY_BYTES)
    witness.bulk(servers, topic, MESSAGES, prefix=f"{name}-bulk", with_keys=True, body_bytes=128)
    return expected + MESSAGES


def test_every_kind_both_ways_once_in_order_and_tagged(two_clusters, witness, replicator, cluster_documents, topic_name) -> None:
    hangzhou, shanghai = two_clusters
    topic = topic_name("two-way")
    witness.create_topic(hangzhou.name_servers, topic, queues=4)  # the other side's is created by the replicator
    process = replicator(*cluster_documents, task_yaml("two-way", topic, TWO_WAY))
    process.start()
    process.wait_ready()
    process.wait_topic(witness, shanghai.name_servers, topic)
    expected = {cluster.name: produce_everything(witness, cluster, topic) for cluster in two_clusters}
    total = sum(expected.values())
    status = process.wait_caught_up(180, copied_at_least=total)
    rows = {cluster.name: witness.drain(cluster.name_servers, topic, expect=total, timeout_seconds=60) for cluster in two_clusters}
    for origin, other in ((hangzhou.name, shanghai.name), (shanghai.name, hangzhou.name)):
        born, _ = born_and_copied(rows[origin], origin)
        _, copies = born_and_copied(rows[other], other)
        assert len(born) == expected[origin]
        assert_copied_exactly(born, copies, {"origin": origin})
    flows = status["tasks"][0]["flows"]
    assert sorted(flow["skipped_total"]["loop"] for flow in flows) == sorted(expected.values())
    for cluster, expression, count in (
        (shanghai, "origin = 'hangzhou'", expected["hangzhou"]),
        (shanghai, "origin IS NULL", expected["shanghai"]),
    ):
        seen = witness.consume(
            cluster.name_servers, topic, topic_name("witness"), expect=count, quiet_seconds=30, timeout_seconds=90,
            expression=expression, expression_type="SQL92", from_first=True,
        )
        assert len({row.keys for row in seen}) == count, expression
    lag = witness.consumer_progress(hangzhou.name_servers, "replicator-two-way-shanghai", topic)
    assert sum(queue.diff for queue in lag) == 0
    assert process.stop() < 10
