"""Progress of stopped groups carried over between real clusters, judged by official consumers: nothing lost, nothing seen twice.

One-way, one queue to one, nothing born at the destination: there the start is exact, and the promise is repeated 0.
"""

from __future__ import annotations

import time

import pytest

from tests.acceptance.process import cluster_yaml, one_way, task_yaml

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(300)]
QUEUES = 4
COUNT = 4_000
LAGS = (0, 1, 10, 1_000, 1_999, 3_990)
SYNCED_SECONDS_MAX = 40.0
"""Some idle intervals until a group has an owner, then one more."""
POLL_SECONDS = 0.5
AUTOMATIC = "  progress: {interval_seconds: 1}\n"
MANUAL = "  progress: {sync: manual}\n"


def started(replicator, clusters, witness, topic_name, name: str, progress: str, queues: int = QUEUES):
    """A process that has copied ``COUNT`` messages of a new topic."""
    source, destination = clusters
    topic = topic_name(name)
    witness.create_topic(source.name_servers, topic, queues=queues)
    documents = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in clusters]
    process = replicator(*documents, task_yaml(name, topic, one_way(source.name, destination.name) + progress), name=name)
    process.start()
    process.wait_ready()
    witness.bulk(source.name_servers, topic, COUNT, prefix=name, with_keys=True)
    process.wait_caught_up(60, copied_at_least=COUNT)
    return process, topic


def keys(rows) -> list[str]:
    return [row.keys for row in rows]


def put_behind(witness, cluster, topic: str, group: str, lag: int, rows) -> set[str]:
    """Gives a group a committed offset in every queue, ``lag`` messages behind in all; returns the keys of what it has to see."""
    witness.create_group(cluster.name_servers, group)
    shares = [lag // QUEUES + (queue < lag % QUEUES) for queue in range(QUEUES)]
    offsets = [COUNT // QUEUES - share for share in shares]
    for queue, offset in enumerate(offsets):
        witness.set_progress(cluster.name_servers, topic, group, offset, broker=cluster.broker_names[0], queue=queue)
    return {row.keys for row in rows if row.offset >= offsets[row.queue]}


def test_stopped_groups_go_on_exactly_where_they_were(two_clusters, witness, replicator, topic_name) -> None:
    source, destination = two_clusters
    process, topic = started(replicator, two_clusters, witness, topic_name, "carried", MANUAL)
    everything = witness.drain(source.name_servers, topic, expect=COUNT)
    groups = {lag: f"{topic}-lag-{lag}" for lag in LAGS}
    left = {lag: put_behind(witness, source, topic, group, lag, everything) for lag, group in groups.items()}
    assert {lag: len(rest) for lag, rest in left.items()} == {lag: lag for lag in LAGS}
    flags = ("--source", source.name, "--destination", destination.name)
    plan = process.answer_of("groups", "plan", "carried", *flags)
    planned = {one["group"]: one["queues"] for one in plan["groups"] if one["group"] in groups.values()}
    assert set(planned) == set(groups.values())
    for queues in planned.values():
        assert {queue["action"] for queue in queues} <= {"move", "keep"}, queues
        assert sum(queue["seen_again"] for queue in queues) == 0
    for group in groups.values():
        done = process.command("groups", "sync", "carried", *flags, "--group", group, "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
    for lag, group in groups.items():
        rest = keys(witness.take(destination.name_servers, topic, group, COUNT))
        assert len(rest) == len(set(rest)) == lag, f"lag {lag}"
        assert set(rest) == left[lag], f"lag {lag}: not the messages that were left"
    process.assert_no_traceback()
    assert process.stop() < 10


def test_progress_follows_by_itself(two_clusters, witness, replicator, topic_name) -> None:
    source, destination = two_clusters
    process, topic = started(replicator, two_clusters, witness, topic_name, "followed", AUTOMATIC, queues=1)
    everything = set(keys(witness.drain(source.name_servers, topic, expect=COUNT)))
    group = f"{topic}-readers"
    processed: set[str] = set()
    # Movement is what makes a side the owner: it is seen twice before anything is written.
    for part in (300, 500, 700):
        processed.update(keys(witness.take(source.name_servers, topic, group, part)))
        time.sleep(2.5)
    deadline = time.monotonic() + SYNCED_SECONDS_MAX
    reached = sum(row.consumer_offset for row in witness.consumer_progress(source.name_servers, group, topic))
    assert reached == len(processed) == 1_500
    while _progress_of(process, source, destination, group) != reached:
        assert time.monotonic() < deadline, process.answer_of("groups", "list", "followed", "--source", source.name,
                                                              "--destination", destination.name)
        time.sleep(POLL_SECONDS)
    rest = keys(witness.take(destination.name_servers, topic, group, COUNT))
    assert len(rest) == len(set(rest)) == COUNT - len(processed)
    assert set(rest) == everything - processed
    process.assert_no_traceback()
    assert process.stop() < 10


def _progress_of(process, source, destination, group: str) -> int | None:
    """The sum of the group's offsets at the destination, None before the first was written."""
    answer = process.answer_of("groups", "list", "followed", "--source", source.name, "--destination", destination.name, "--group", group)
    rows = [row for row in answer["groups"] if row["group"] == group]
    offsets = [offset for row in rows for offset in row["destination_offsets"].values()]
    return sum(offsets) if offsets else None
