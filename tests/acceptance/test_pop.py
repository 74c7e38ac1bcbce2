"""Groups whose offset is no proof: gRPC consumers behind a proxy, which pop, and broadcast groups."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.local.proxy import LocalProxy
from tests.acceptance.command import refused, run_command
from tests.acceptance.process import cluster_yaml, one_way, task_yaml

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(600)]
COUNT, HANDED_OUT, ACKNOWLEDGED, BOUND, QUEUES = 200, 120, 100, 30, 2
SECONDS_MAX = 60.0
POLL_SECONDS = 0.5


@contextmanager
def popping(endpoint: str, group: str, topic: str, take: int, acknowledge: int) -> Iterator[list[str]]:
    """The keys a gRPC consumer was handed; it is a member as long as the block lasts."""
    words = [endpoint, group, topic, str(take), str(acknowledge), str(SECONDS_MAX)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.witness.popper", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            yield json.loads(child.stdout.readline())
        finally:
            assert child.stdin is not None
            child.stdin.close()
            child.wait(SECONDS_MAX)


def wait_planned(process, flags, group: str, is_so):
    """The plan of a group once every queue is as it should be."""
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        plans = [one for one in process.answer_of("groups", "plan", "popped", *flags)["groups"] if one["group"] == group]
        if plans and all(is_so(queue) for queue in plans[0]["queues"]):
            return plans[0]
        assert time.monotonic() < deadline, f"{plans}\n{process.tail()}"
        time.sleep(POLL_SECONDS)


def test_a_popping_group_loses_nothing_and_goes_back_by_the_bound(two_clusters, witness, replicator, topic_name, tmp_path) -> None:
    source, destination = two_clusters
    topic = topic_name("popped")
    group, shouting = f"{topic}-grpc", f"{topic}-broadcast"
    witness.create_topic(source.name_servers, topic, queues=QUEUES, message_type="NORMAL")
    witness.create_group(source.name_servers, group)
    body = one_way(source.name, destination.name) + f"  progress: {{interval_seconds: 1, pop_bound: {BOUND}}}\n"
    documents = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in two_clusters]
    process = replicator(*documents, task_yaml("popped", topic, body), name="popped")
    process.start()
    process.wait_ready()
    flags = ("--source", source.name, "--destination", destination.name)
    witness.produce(source.name_servers, topic, COUNT, with_keys=True)
    process.wait_caught_up(60, copied_at_least=COUNT)

    with LocalProxy(source) as proxy, popping(proxy.endpoint, group, topic, HANDED_OUT, ACKNOWLEDGED) as keys:
        assert len(keys) == len(set(keys)) == HANDED_OUT
        plan = wait_planned(process, flags, group, lambda queue: not queue["exact"])
        assert plan["kind"] == "pop"
        file = tmp_path / "proxy.yaml"
        file.write_text(cluster_yaml("proxied", proxy.remoting_endpoint))
        said = refused(run_command("check", "-f", file), 1)
        assert "remoting port of a 5.x proxy" in said
        assert "name_servers" in said
    plan = wait_planned(process, flags, group, lambda queue: queue["action"] == "keep")
    assert plan["kind"] == "pop"
    assert all(queue["to"] == max(0, queue["from"] - BOUND) for queue in plan["queues"]), plan
    assert all(not queue["exact"] and "handed out" in queue["reason"] for queue in plan["queues"])
    assert sum(queue["from"] for queue in plan["queues"]) == HANDED_OUT

    rest = [row.keys for row in witness.take(destination.name_servers, topic, group, COUNT)]
    processed = set(keys[:ACKNOWLEDGED])
    assert len(rest) == len(set(rest))
    assert set(rest) | processed == {f"m-{index}" for index in range(COUNT)}, "lost"
    assert len(set(rest) & processed) <= sum(queue["seen_again"] for queue in plan["queues"])

    with witness.start_consumer(source.name_servers, topic, shouting, broadcast=True) as consumer:
        consumer.wait(expect=COUNT)
        told = wait_planned(process, flags, shouting, lambda queue: queue["action"] == "refuse")
    assert told["kind"] == "broadcast"
    listed = process.answer_of("groups", "list", "popped", *flags)["groups"]
    (row,) = [one for one in listed if one["group"] == shouting]
    assert row["carried"] == "local"
    process.assert_no_traceback()
    assert process.stop() < 10
