"""Failover and failback on real clusters, judged by official consumers: nothing lost, and seen again exactly what the plan says."""

from __future__ import annotations

import json
import threading
import time

import pytest

from deploy.local import LocalCluster, running_clusters
from tests.acceptance.process import cluster_yaml, one_way, task_yaml
from tests.integration.conftest import PATIENT

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(300)]
QUEUES = 4
COUNT = 2_000
SYNCED_SECONDS_MAX = 40.0
POLL_SECONDS = 0.3
AUTOMATIC = "  progress: {interval_seconds: 1}\n"
MANUAL = "  progress: {sync: manual}\n"


@pytest.fixture(scope="module")
def regions():
    """Two clusters whose first may be lost by a test, and is back at its end."""
    lost, kept = LocalCluster("wuhan", broker_properties=PATIENT), LocalCluster("jinan", broker_properties=PATIENT)
    with running_clusters(lost, kept):
        yield lost, kept


def begun(replicator, clusters, witness, topic_name, name: str, progress: str):
    """A process that has copied ``COUNT`` messages of a new topic."""
    source, destination = clusters
    topic = topic_name(name)
    witness.create_topic(source.name_servers, topic, queues=QUEUES)
    documents = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in clusters]
    process = replicator(*documents, task_yaml(name, topic, one_way(source.name, destination.name) + progress), name=name)
    process.start()
    process.wait_ready()
    witness.bulk(source.name_servers, topic, COUNT, prefix=name, with_keys=True)
    process.wait_caught_up(60, copied_at_least=COUNT)
    return process, topic


def keys(rows) -> list[str]:
    return [row.keys for row in rows]


def consuming(witness, cluster, topic: str, group: str) -> None:
    """A group that has begun with every queue, at its start."""
    witness.create_group(cluster.name_servers, group)
    for queue in range(QUEUES):
        witness.set_progress(cluster.name_servers, topic, group, 0, broker=cluster.broker_names[0], queue=queue)


def move(process, kind: str, task: str, clusters, *more: str) -> dict:
    """Carries one out and returns it as ``run`` shows it at its end."""
    lost, kept = clusters
    done = process.command(kind, "run", task, "--failed", lost.name, "--destination", kept.name, "--yes", "-o", "json", *more)
    assert done.returncode == 0, done.stdout + done.stderr
    ended = json.loads(done.stdout)
    assert ended["state"] == "done", ended
    return ended


def steps(ended: dict) -> dict[str, str]:
    return {one["name"]: one["detail"] for one in ended["steps"]}


def wait_synced(process, task: str, clusters, group: str, offset: int) -> None:
    """Until the group's offsets at the destination add up to ``offset``."""
    source, destination = clusters
    deadline = time.monotonic() + SYNCED_SECONDS_MAX
    while True:
        answer = process.answer_of("groups", "list", task, "--source", source.name, "--destination", destination.name)
        offsets = [sum(row["destination_offsets"].values()) for row in answer["groups"] if row["group"] == group]
        if offsets == [offset]:
            return
        assert time.monotonic() < deadline, answer
        time.sleep(POLL_SECONDS)


def test_a_lost_region_costs_nothing_and_the_way_back_neither(regions, witness, replicator, topic_name) -> None:
    """Geo-disaster recovery: consumers follow by themselves, the source dies, they go on over there, and come back."""
    lost, kept = regions
    process, topic = begun(replicator, regions, witness, topic_name, "lost", AUTOMATIC)
    everything = set(keys(witness.drain(lost.name_servers, topic, expect=COUNT)))
    group = f"{topic}-pay"
    consuming(witness, lost, topic, group)
    processed: set[str] = set()
    for part in (300, 400, 500):
        processed.update(keys(witness.take(lost.name_servers, topic, group, part)))
        time.sleep(2.5)
    wait_synced(process, "lost", regions, group, len(processed))
    lost.kill_broker()
    lost.kill_name_server()
    plan = process.answer_of("failover", "plan", "lost", "--failed", lost.name, "--destination", kept.name)
    assert [one["name"] for one in plan["blockers"] if one["severity"] == "blocks"] == [], plan["blockers"]
    assert "progress-age" in {one["name"] for one in plan["blockers"]}
    assert plan["seen_again"] == 0
    ended = move(process, "failover", "lost", regions)
    assert "cannot be reached" in steps(ended)["catch-up"]
    rest = keys(witness.take(kept.name_servers, topic, group, 500))
    assert len(rest) == len(set(rest)) == 500
    assert not set(rest) & processed
    processed.update(rest)
    # The other region serves: producers too.
    witness.bulk(kept.name_servers, topic, 600, prefix="meanwhile", with_keys=True)
    here = {f"meanwhile-{number}" for number in range(600)}
    taken = keys(witness.take(kept.name_servers, topic, group, 200))
    assert not set(taken) & processed
    processed.update(taken)
    lost.start_name_server()
    lost.start_broker()
    process.wait_flow("running again", lambda flow: flow["state"] == "running", 60)
    ended = move(process, "failback", "lost", regions)
    assert "carries what was born" in steps(ended)["reverse"]
    back = keys(witness.take(lost.name_servers, topic, group, COUNT + 600))
    assert len(back) == len(set(back))
    assert not set(back) & processed, f"seen again: {len(set(back) & processed)}"
    assert processed | set(back) == everything | here
    process.assert_no_traceback()
    assert process.stop() < 10


@pytest.mark.long
def test_a_planned_move_closes_the_source_and_survives_a_kill(two_clusters, witness, replicator, topic_name) -> None:
    """Switch-over under traffic: fenced, caught up, moved; the coordinator is killed in the middle of it."""
    source, destination = two_clusters
    process, topic = begun(replicator, two_clusters, witness, topic_name, "planned", MANUAL)
    group = f"{topic}-pay"
    consuming(witness, source, topic, group)
    processed = set(keys(witness.take(source.name_servers, topic, group, 700)))
    sent: list[str] = []
    going = threading.Event()

    def produce() -> None:
        for number in range(2_000):
            done = witness.produce(
                source.name_servers, topic, 5, prefix=f"late-{number}", with_keys=True, keep_going=True, per_second=200
            )
            sent.extend(one.keys for one in done if one.problem is None)
            going.set()
            if any(one.problem for one in done):
                return

    producer = threading.Thread(target=produce)
    producer.start()
    assert going.wait(30)
    begun_move = process.command(
        "failover", "run", "planned", "--failed", source.name, "--destination", destination.name, "--fence-source", "--no-wait", "--yes"
    )
    assert begun_move.returncode == 0, begun_move.stderr
    time.sleep(3)
    process.kill()
    process.start()
    process.wait_ready()
    deadline = time.monotonic() + 120
    while (shown := process.answer_of("failover", "status", "planned")["moves"][-1])["state"] != "done":
        assert time.monotonic() < deadline, shown
        time.sleep(POLL_SECONDS)
    producer.join(60)
    assert not producer.is_alive(), "the closed topic still takes messages"
    everything = set(keys(witness.drain(source.name_servers, topic, expect=COUNT + len(sent))))
    assert set(sent) <= everything
    rest = keys(witness.take(destination.name_servers, topic, group, len(everything)))
    assert len(rest) == len(set(rest))
    assert set(rest) == everything - processed
    move(process, "failback", "planned", two_clusters, "--fence-source")
    assert len(witness.produce(source.name_servers, topic, 4, prefix="again", with_keys=True)) == 4
    back = keys(witness.take(source.name_servers, topic, group, 4))
    assert sorted(back) == [f"again-{number}" for number in range(4)]
    assert [row["name"] for row in process.answer_of("get", "tasks")] == ["planned"]
    process.assert_no_traceback()
    assert process.stop() < 10
