"""What a group failed on follows it: the source is killed while messages wait for their retry, and the group goes on without it.

The source delivers a first retry after 3 s; a second one waits for ten minutes, so that it is still waiting when the source dies.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.local import LocalCluster, running_clusters
from deploy.local.jars import DEFAULT_VERSION
from tests.acceptance.process import cluster_yaml, one_way, task_yaml
from tests.integration.conftest import PATIENT

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(600)]
LEVELS = "1s 2s 3s 600s 5s 6s 7s 8s 9s 10s 11s 12s 13s 14s 15s 16s 17s 18s"
TAGS = ["ok", "ok", "fail-1", "ok", "fail-2"]
COUNT = 40
KNOWN = 5
EACH = COUNT // len(TAGS)
SYNCED_SECONDS_MAX = 60.0
POLL_SECONDS = 0.5
QUIET_SECONDS = 6.0
COMMITTED_SECONDS = 1.5


@contextmanager
def two(version: str) -> Iterator[tuple[LocalCluster, LocalCluster]]:
    """A source of that version that retries by ``LEVELS``, and a destination."""
    source = LocalCluster("nanjing", version=version, broker_properties=PATIENT | {"messageDelayLevel": LEVELS})
    destination = LocalCluster("tianjin", broker_properties=PATIENT)
    with running_clusters(source, destination):
        yield source, destination


def consumed(witness, cluster, topic: str, group: str, *, expect: int, **options):
    """Everything a push consumer saw until it had seen ``expect`` and told its broker so (twice a second)."""
    with witness.start_consumer(cluster.name_servers, topic, group, with_properties=True, **options) as consumer:
        consumer.wait(expect=expect, timeout_seconds=60)
        consumer.wait(quiet_seconds=COMMITTED_SECONDS)
    return consumer.seen


def wait_synced(process, source, destination, groups) -> dict[str, int]:
    """Waits until the plan has nothing left to move for these groups in their topics and retry topics; {group: seen again}."""
    flags = ("--source", source.name, "--destination", destination.name)
    deadline = time.monotonic() + SYNCED_SECONDS_MAX
    while True:
        plans = [one for one in process.answer_of("groups", "plan", "failing", *flags)["groups"] if one["group"] in groups]
        topics = {(one["group"], one["topic"].partition(one["group"])[0]) for one in plans if one["topic"].startswith("%")}
        rows = [queue for one in plans for queue in one["queues"]]
        if len(topics) == len(groups) and {queue["action"] for queue in rows} == {"keep"}:
            return {
                group: sum(queue["seen_again"] for one in plans if one["group"] == group for queue in one["queues"]) for group in groups
            }
        assert time.monotonic() < deadline, f"{plans}\n{process.tail()}"
        time.sleep(POLL_SECONDS)


def make_known(process, witness, cluster, other, topic: str, group: str) -> None:
    """The group has consumed a little, and what it fails on from now on is copied at once: first attempts before second ones."""
    witness.produce(cluster.name_servers, topic, KNOWN, with_keys=True, tags="ok", prefix="known")
    assert len(consumed(witness, cluster, topic, group, expect=KNOWN)) == KNOWN
    process.wait_topic(witness, other.name_servers, f"%RETRY%{group}")
    process.wait_caught_up(60)


def wait_until_stored(witness, cluster, topic: str, count: int) -> None:
    deadline = time.monotonic() + SYNCED_SECONDS_MAX
    while topic not in witness.topics(cluster.name_servers) or (
        sum(high for _, high in witness.offsets(cluster.name_servers, topic).values()) < count
    ):
        assert time.monotonic() < deadline, topic
        time.sleep(POLL_SECONDS)


def consumed_and_known(process, witness, flags, cluster, topic: str, group: str, expect: int):
    """As ``consumed``, and what the group subscribes to has been seen: a two-way task carries no group without."""
    with witness.start_consumer(cluster.name_servers, topic, group, fail_by_tag=True) as consumer:
        consumer.wait(expect=expect, timeout_seconds=60)
        deadline = time.monotonic() + SYNCED_SECONDS_MAX
        while not _is_subscribed(process, flags, group):
            assert time.monotonic() < deadline, process.answer_of("groups", "list", "to-and-fro", *flags)
            time.sleep(POLL_SECONDS)
        consumer.wait(quiet_seconds=COMMITTED_SECONDS)
    return consumer.seen


def _is_subscribed(process, flags, group: str) -> bool:
    listed = process.answer_of("groups", "list", "to-and-fro", *flags, "--group", group)["groups"]
    return bool(listed) and all(one["carried"] == "synced" for one in listed)


def wait_kept(process, flags, group: str, owner: str):
    deadline = time.monotonic() + SYNCED_SECONDS_MAX
    while True:
        plans = process.answer_of("groups", "plan", "to-and-fro", *flags, "--group", group)["groups"]
        rows = [queue for one in plans for queue in one["queues"]]
        if len(plans) == 2 and {one["owner"] for one in plans} == {owner} and {queue["action"] for queue in rows} == {"keep"}:
            return plans
        assert time.monotonic() < deadline, f"{plans}\n{process.tail()}"
        time.sleep(POLL_SECONDS)


@pytest.fixture
def clusters(request) -> Iterator[tuple[LocalCluster, LocalCluster]]:
    with two(getattr(request, "param", DEFAULT_VERSION)) as made:
        yield made


@pytest.mark.long
def test_a_group_takes_what_waits_there_and_back(clusters, witness, replicator, topic_name) -> None:
    here, there = clusters
    topic = topic_name("to-and-fro")
    group = f"{topic}-moving"
    witness.create_topic(here.name_servers, topic, queues=1)
    witness.create_group(here.name_servers, group)
    documents = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in clusters]
    body = f"  mode: two-way\n  clusters: [{here.name}, {there.name}]\n  retry: true\n  progress: {{interval_seconds: 1}}\n"
    process = replicator(*documents, task_yaml("to-and-fro", topic, body), name="to-and-fro")
    process.start()
    process.wait_ready()
    process.wait_topic(witness, there.name_servers, topic)
    to, fro = ("--source", here.name, "--destination", there.name), ("--source", there.name, "--destination", here.name)

    make_known(process, witness, here, there, topic, group)
    witness.produce(here.name_servers, topic, COUNT, with_keys=True, tags=TAGS, prefix="here")
    first = consumed_and_known(process, witness, to, here, topic, group, COUNT + 2 * EACH)
    left = sorted(row.keys for row in first if row.tags == "fail-2" and row.reconsume_times == 1)
    assert len(left) == EACH
    assert all(queue["seen_again"] == 0 for one in wait_kept(process, to, group, here.name) for queue in one["queues"])

    # There it gets what waits here, then fails on messages born there: one retry after 10 s, the second one after 30.
    witness.produce(there.name_servers, topic, COUNT, with_keys=True, tags=TAGS, prefix="there")
    second = consumed_and_known(process, witness, fro, there, topic, group, EACH + COUNT + 2 * EACH)
    assert sorted(row.keys for row in second if row.keys.startswith("here")) == left
    again = sorted(row.keys for row in second if row.tags == "fail-2" and row.reconsume_times == 1)
    assert len(again) == EACH
    plans = wait_kept(process, fro, group, there.name)
    planned = sum(queue["seen_again"] for one in plans for queue in one["queues"])

    third = consumed(witness, here, topic, group, expect=EACH, fail_by_tag=True)
    assert set(again) <= {row.keys for row in third}
    assert len(third) - EACH <= planned, [(row.keys, row.reconsume_times) for row in third]
    # Each failed message was copied once, and nothing came back: two attempts here, two there.
    process.wait_caught_up(60)
    for cluster in clusters:
        seen = [(row.keys, row.reconsume_times) for row in witness.drain(cluster.name_servers, f"%RETRY%{group}")]
        assert len([one for one in seen if one[1] == 1]) == len({one for one in seen if one[1] == 1}) == 4 * EACH
    process.assert_no_traceback()
    assert process.stop() < 10


@pytest.mark.parametrize("clusters", [DEFAULT_VERSION, pytest.param("4.9.7", marks=pytest.mark.long)], indirect=True)
def test_messages_that_wait_for_a_retry_survive_the_source(clusters, witness, replicator, topic_name) -> None:
    source, destination = clusters
    topic = topic_name("failing")
    waiting, giving_up, stopped = (f"{topic}-{name}" for name in ("waiting", "giving-up", "stopped"))
    witness.create_topic(source.name_servers, topic, queues=2)
    for group in (waiting, giving_up, stopped):
        witness.create_group(source.name_servers, group)
    documents = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in clusters]
    body = one_way(source.name, destination.name) + "  retry: true\n  progress: {interval_seconds: 1}\n"
    process = replicator(*documents, task_yaml("failing", topic, body), name="failing")
    process.start()
    process.wait_ready()
    make_known(process, witness, source, destination, topic, waiting)
    witness.produce(source.name_servers, topic, COUNT, with_keys=True, tags=TAGS)

    # All 40, then 16 for the second time; the 8 of them that fail again wait for ten minutes.
    seen = consumed(witness, source, topic, waiting, expect=COUNT + 2 * EACH, fail_by_tag=True)
    failed_twice = {row.keys for row in seen if row.tags == "fail-2" and row.reconsume_times == 1}
    assert len(seen) == COUNT + 2 * EACH
    assert len(failed_twice) == EACH
    # Gives up after the second attempt.
    given_up = consumed(witness, source, topic, giving_up, expect=2 * (COUNT + KNOWN), fail_until_attempt=9, attempts_max=1)
    assert len(given_up) == 2 * (COUNT + KNOWN)
    # Stopped after its first attempts: the retries are delivered on the source, and nobody takes them.
    first = consumed(witness, source, topic, stopped, expect=COUNT + KNOWN, fail_by_tag=True)
    assert len(first) == COUNT + KNOWN
    failed_once = {row.keys for row in first if row.tags != "ok"}
    wait_until_stored(witness, source, f"%RETRY%{stopped}", len(failed_once))
    wait_until_stored(witness, destination, f"%DLQ%{giving_up}", COUNT + KNOWN)
    planned = wait_synced(process, source, destination, (waiting, giving_up, stopped))
    assert planned == {waiting: 0, giving_up: 0, stopped: 0}

    plan = process.answer_of("groups", "plan", "failing", "--source", source.name, "--destination", destination.name)
    assert plan["waiting_for_retry"] == {waiting: EACH, stopped: len(failed_once)}

    source.kill_broker()
    source.kill_name_server()
    for group, expected, attempts in ((waiting, failed_twice, 2), (stopped, failed_once, 1), (giving_up, set(), 0)):
        rows = witness.consume(destination.name_servers, topic, group, quiet_seconds=QUIET_SECONDS, with_properties=True)
        assert sorted(row.keys for row in rows) == sorted(expected), [(group, row.topic, row.place, row.reconsume_times) for row in rows]
        assert {row.reconsume_times for row in rows} <= {attempts}
    dead = witness.drain(destination.name_servers, f"%DLQ%{giving_up}", expect=COUNT + KNOWN)
    assert sorted(row.keys for row in dead) == sorted({row.keys for row in given_up})
    assert {row.reconsume_times for row in dead} == {2}
    assert {row.properties["RETRY_TOPIC"] for row in dead} == {topic}
    process.assert_no_traceback()
    assert process.stop() < 10
