"""The four kinds of ``start``, on a present source and on one of 4.9, whose answers about times and groups are less exact."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from deploy.local import LocalCluster, start_clusters
from tests.acceptance.command import refused
from tests.acceptance.process import cluster_yaml, one_way, task_yaml
from tests.acceptance.truth import assert_copied_exactly
from tests.integration.conftest import PATIENT

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(240)]
QUEUES = 2
EARLY, MIDDLE, LATE = 40, 30, 20
COMMITTED = {0: 7, 1: 13}
"""Of the group, by queue."""
FOUND_SECONDS_MAX = 10.0
APART_MS = 20
"""Between two stages: 4.x answers a moment between two records with the nearer one, here the earlier."""


@pytest.fixture(scope="module")
def old_source() -> Iterator[LocalCluster]:
    cluster = LocalCluster("ningbo", version="4.9.7", broker_properties=PATIENT)
    start_clusters(cluster)
    yield cluster
    cluster.stop()


@pytest.fixture(params=["5.3.3", "4.9.7"])
def source(request: pytest.FixtureRequest, two_clusters) -> LocalCluster:
    return two_clusters[0] if request.param == "5.3.3" else request.getfixturevalue("old_source")


def moment(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fill(witness, source: LocalCluster, topics: list[str], stage: str, count: int) -> None:
    for topic in topics:
        witness.bulk(source.name_servers, topic, count, prefix=stage, batch_size=5, with_keys=True, body_bytes=40)


def test_each_kind_of_start(source, two_clusters, witness, replicator, topic_name, tmp_path) -> None:
    destination = two_clusters[1]
    stem = topic_name("start")
    topics = {kind: f"{stem}-{kind}" for kind in ("earliest", "latest", "time", "between", "group")}
    for topic in topics.values():
        witness.create_topic(source.name_servers, topic, queues=QUEUES)
    fill(witness, source, list(topics.values()), "early", EARLY)
    early_ms, between_ms = (
        max(row.stored_ms for row in witness.drain(source.name_servers, topics[kind], expect=EARLY)) for kind in ("time", "between")
    )
    while time.time_ns() // 1_000_000 <= max(early_ms, between_ms) + APART_MS:
        time.sleep(0.001)
    fill(witness, source, list(topics.values()), "middle", MIDDLE)
    middle_ms = min(
        row.stored_ms for row in witness.drain(source.name_servers, topics["time"], expect=EARLY + MIDDLE) if row.keys.startswith("middle")
    )
    assert early_ms < middle_ms
    group = f"{stem}-readers"
    witness.create_group(source.name_servers, group)
    for queue, offset in COMMITTED.items():
        witness.set_progress(source.name_servers, topics["group"], group, offset, queue=queue, broker=source.broker_names[0])
    starts = {
        "earliest": "earliest", "latest": "latest", "time": f"{{timestamp: {moment(middle_ms)}}}",
        "between": f"{{timestamp: {moment(between_ms + 1)}}}", "group": f"{{consumer_group: {group}}}",
    }  # fmt: skip
    clusters = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in (source, destination)]
    spec = one_way(source.name, destination.name)
    # The task that starts at the latest message also takes what comes later under its pattern.
    patterns = {kind: f"{topic}*" if kind == "latest" else topic for kind, topic in topics.items()}
    tasks = [task_yaml(kind, patterns[kind], spec, start=start) for kind, start in starts.items()]
    process = replicator(*clusters, *tasks)
    process.start()
    process.wait_ready()
    process.wait_caught_up(60, copied_at_least=EARLY + 3 * MIDDLE)
    fill(witness, source, list(topics.values()), "late", LATE)
    process.wait_caught_up(60, copied_at_least=EARLY + 3 * MIDDLE + 4 * LATE)

    born = {kind: witness.drain(source.name_servers, topic, expect=EARLY + MIDDLE + LATE) for kind, topic in topics.items()}
    expected = {
        "earliest": born["earliest"],
        "latest": [row for row in born["latest"] if row.keys.startswith("late")],
        "time": [row for row in born["time"] if row.stored_ms >= middle_ms],
        "between": [row for row in born["between"] if not row.keys.startswith("early")],
        "group": [row for row in born["group"] if row.offset >= COMMITTED[row.queue]],
    }
    assert len(expected["time"]) == MIDDLE + LATE
    for kind, topic in topics.items():
        copies = witness.drain(destination.name_servers, topic, expect=len(expected[kind]))
        assert_copied_exactly(expected[kind], copies, {"origin": source.name})

    later = f"{topics['latest']}-later"
    witness.create_topic(source.name_servers, later, queues=QUEUES)
    fill(witness, source, [later], "first", EARLY)
    process.wait_topic(witness, destination.name_servers, later, FOUND_SECONDS_MAX + 5)
    process.wait_caught_up(60)
    assert_copied_exactly(
        witness.drain(source.name_servers, later, expect=EARLY), witness.drain(destination.name_servers, later, expect=EARLY),
        {"origin": source.name},
    )  # fmt: skip
    refused_start = tmp_path / "nobody.yaml"
    nobody = task_yaml("nobody", topics["group"], one_way(source.name, destination.name), start="{consumer_group: nobody-ever}")
    refused_start.write_text(nobody.replace(f'"{topics["group"]}"', f'"{later}"'))
    said = refused(process.command("apply", "-f", refused_start), 4)
    assert "nobody" in said
    process.assert_no_traceback()
    assert process.stop() < 10
