"""Groups that do not stand still: members online where progress is to be written, two-way groups, one deployed anew on the other side."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from deploy.local import LocalCluster, running_clusters
from deploy.local.jars import DEFAULT_VERSION
from tests.acceptance.process import cluster_yaml, one_way, task_yaml
from tests.integration.conftest import PATIENT

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.long, pytest.mark.timeout(400)]
QUEUES = 2
COUNT = 1_000
REACHED_SECONDS_MAX = 90.0
POLL_SECONDS = 0.5
TWO_WAY = "  mode: two-way\n  clusters: [{}, {}]\n"


def begun(replicator, clusters, witness, topic_name, name: str, body: str):
    """A process that has copied ``COUNT`` messages born in the first cluster."""
    source = clusters[0]
    topic = topic_name(name)
    for cluster in clusters:
        witness.create_topic(cluster.name_servers, topic, queues=QUEUES)
    documents = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in clusters]
    process = replicator(*documents, task_yaml(name, topic, body), name=name)
    process.start()
    process.wait_ready()
    witness.bulk(source.name_servers, topic, COUNT, prefix="m", with_keys=True)
    process.wait_caught_up(60, copied_at_least=COUNT)
    return process, topic


def keys(rows) -> list[str]:
    return [row.keys for row in rows]


def until(is_so, what: str, process) -> None:
    deadline = time.monotonic() + REACHED_SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline, f"{what}\n{process.tail()}"
        time.sleep(POLL_SECONDS)


def stands(witness, cluster, topic: str, group: str) -> int:
    return sum(row.consumer_offset for row in witness.consumer_progress(cluster.name_servers, group, topic))


def half_done(witness, cluster, topic: str, group: str) -> None:
    witness.create_group(cluster.name_servers, group)
    for queue in range(QUEUES):
        witness.set_progress(cluster.name_servers, topic, group, COUNT // QUEUES // 2, broker=cluster.broker_names[0], queue=queue)


@pytest.fixture(scope="module", params=[DEFAULT_VERSION, "4.9.7"])
def destination(request):
    cluster = LocalCluster("tianjin", version=request.param, broker_properties=PATIENT)
    with running_clusters(cluster):
        yield cluster


def test_members_online_are_set_exactly_or_left_alone(two_clusters, destination, witness, replicator, topic_name) -> None:
    source = two_clusters[0]
    body = one_way(source.name, destination.name) + "  progress: {sync: manual}\n"
    process, topic = begun(replicator, (source, destination), witness, topic_name, "online", body)
    group = f"{topic}-pay"
    half_done(witness, source, topic, group)
    flags = ("online", "--source", source.name, "--destination", destination.name, "--group", group)

    def reached() -> int:
        """Of the destination, as the product reads it: the official admin client of 5.x cannot ask a broker of 4.9.7."""
        (listed,) = process.answer_of("groups", "list", *flags)["groups"]
        return sum((listed["destination_offsets"] or {}).values())

    with witness.start_consumer(destination.name_servers, topic, group, from_first=True) as consumer:
        consumer.wait(expect=COUNT, timeout_seconds=REACHED_SECONDS_MAX)
        until(lambda: reached() == COUNT, "the consumer's last commit", process)
        (planned,) = process.answer_of("groups", "plan", *flags, "--back")["groups"]
        assert {queue["action"] for queue in planned["queues"]} == {"refuse"}, planned
        assert all("members" in queue["reason"] for queue in planned["queues"]), planned
        done = process.command("groups", "sync", *flags, "--back", "--running", "--yes")
        if destination.version == DEFAULT_VERSION:
            assert done.returncode == 0, done.stdout + done.stderr
            consumer.wait(expect=COUNT + COUNT // 2, timeout_seconds=REACHED_SECONDS_MAX)
            until(lambda: reached() == COUNT, "the consumer's last commit", process)
        else:
            assert done.returncode == 4, done.stdout + done.stderr
            assert f"refused: {QUEUES}" in done.stdout, done.stdout + done.stderr
            consumer.wait(quiet_seconds=10, timeout_seconds=REACHED_SECONDS_MAX)
    seen = Counter(keys(consumer.seen))
    again = {row.keys for row in consumer.seen if row.offset >= COUNT // QUEUES // 2} if destination.version == DEFAULT_VERSION else set()
    assert {key for key, count in seen.items() if count == 2} == again
    assert set(seen.values()) <= {1, 2}
    assert len(seen) == COUNT
    process.assert_no_traceback()


def test_a_two_way_group_moves_with_its_members(two_clusters, witness, replicator, topic_name) -> None:
    """Push consumers in one region, then in the other, then back: nothing lost, nothing seen again."""
    body = TWO_WAY.format(*(cluster.name for cluster in two_clusters)) + "  progress: {interval_seconds: 1}\n"
    process, topic = begun(replicator, two_clusters, witness, topic_name, "moving", body)
    group, seen, total = f"{topic}-pay", Counter(), 0
    for turn, (here, there) in enumerate((two_clusters, two_clusters[::-1], two_clusters)):
        witness.create_group(here.name_servers, group)
        if not turn:
            for queue in range(QUEUES):
                witness.set_progress(here.name_servers, topic, group, 0, broker=here.broker_names[0], queue=queue)
        witness.bulk(here.name_servers, topic, 100, prefix=f"turn-{turn}", with_keys=True)
        total = COUNT + 100 * (turn + 1)
        process.wait_caught_up(60, copied_at_least=total)
        with witness.start_consumer(here.name_servers, topic, group) as consumer:
            consumer.wait(expect=total - sum(seen.values()), timeout_seconds=REACHED_SECONDS_MAX)
            until(lambda at=here, end=total: stands(witness, at, topic, group) == end, "the consumer's last commit", process)
        seen.update(keys(consumer.seen))
        until(lambda at=there, end=total: stands(witness, at, topic, group) == end, "the progress on the other side", process)
    assert len(seen) == total
    assert set(seen.values()) == {1}
    process.assert_no_traceback()


def test_a_group_deployed_anew_on_both_sides_in_turn_loses_nothing(two_clusters, witness, replicator, topic_name) -> None:
    """Nobody waits for anything: members come up on one side while progress of the other has not been carried over."""
    source, destination = two_clusters
    body = one_way(source.name, destination.name) + "  progress: {interval_seconds: 1}\n"
    process, topic = begun(replicator, two_clusters, witness, topic_name, "anew", body)
    group, seen = f"{topic}-pay", []
    for cluster in two_clusters:
        witness.create_group(cluster.name_servers, group)
        for queue in range(QUEUES):
            witness.set_progress(cluster.name_servers, topic, group, 0, broker=cluster.broker_names[0], queue=queue)
    for turn in range(8):
        here = two_clusters[turn % 2]
        for _ in range(3):  # over two intervals, so that both sides are seen to move within one period
            seen += keys(witness.take(here.name_servers, topic, group, 25))
            time.sleep(1.2)
    flags = ("anew", "--source", source.name, "--destination", destination.name)
    (listed,) = [one for one in process.answer_of("groups", "list", *flags)["groups"] if one["group"] == group]
    assert listed["owner"] == "split", listed
    before = stands(witness, destination, topic, group)
    settled = time.monotonic() + 6
    while time.monotonic() < settled:
        assert stands(witness, destination, topic, group) == before, "a split group was written"
        time.sleep(POLL_SECONDS)
    # A person says whose progress counts; what the other side processed meanwhile is there to be seen again, and nothing is left out.
    done = process.command("groups", "sync", *flags, "--group", group, "--back", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    seen += keys(witness.take(destination.name_servers, topic, group, 2 * COUNT))
    again = len(seen) - len(set(seen))
    print(f"deployed anew 8 times: {len(seen)} seen of {COUNT}, {again} again")
    assert set(seen) == {f"m-{number}" for number in range(COUNT)}
    process.assert_no_traceback()
