"""The lab itself: clusters start, answer, survive, end; the witness writes and reads every kind of message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.local import LabProblem, LocalCluster
from deploy.local.asking import is_broker_ready
from deploy.local.jars import fetch_jars
from tests.witness.client import Witness, WitnessProblem

pytestmark = pytest.mark.rocketmq

COUNT = 10
COMPRESSED_FLAG = 0x1
END_SECONDS_MAX = 10.0
PROJECT = Path(__file__).resolve().parents[2]

Pair = tuple[LocalCluster, LocalCluster]
Names = Callable[[str], str]


def has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def wait_for_end(pids: list[int]) -> list[int]:
    end = time.monotonic() + END_SECONDS_MAX
    while time.monotonic() < end and not all(has_ended(pid) for pid in pids):
        time.sleep(0.05)
    return [pid for pid in pids if not has_ended(pid)]


def test_clusters_are_apart(two_clusters: Pair) -> None:
    hangzhou, shanghai = two_clusters
    for here, other in ((hangzhou, shanghai), (shanghai, hangzhou)):
        assert is_broker_ready(here.broker_addresses[0], here.broker_names[0], here.name_servers)
        assert not is_broker_ready(here.broker_addresses[0], here.broker_names[0], other.name_servers)
    assert {*hangzhou.pids} == {"name-server", "hangzhou-a"}
    assert not {*hangzhou.pids.values()} & {*shanghai.pids.values()}


@pytest.mark.parametrize("kind", ["normal", "ordered", "batch", "compressed"])
def test_kinds_that_arrive_where_they_were_sent(two_clusters: Pair, witness: Witness, topic_name: Names, kind: str) -> None:
    servers, topic = two_clusters[0].name_servers, topic_name(kind)
    witness.create_topic(servers, topic, queues=2)
    sent = witness.produce(servers, topic, COUNT, kind=kind, tags=["red", "blue"], properties={"number": "n{i}"})
    seen = {message.place: message for message in witness.drain(servers, topic, expect=COUNT)}
    assert len(seen) == len(sent) == COUNT
    for message in sent:
        found = seen[message.place]
        assert (found.sha256, found.keys, found.tags) == (message.sha256, message.keys, message.tags)
        assert found.user_properties["number"] == f"n{message.index}"
    # The client clears the flag where it decompresses, so this has to be read as it is stored.
    stored = witness.drain(servers, topic, expect=COUNT, decompress=False)
    assert {bool(each.sys_flag & COMPRESSED_FLAG) for each in stored} == {kind == "compressed"}
    assert {each.sha256 for each in stored}.isdisjoint(each.sha256 for each in sent) is (kind == "compressed")


@pytest.mark.parametrize(
    ("kind", "options", "property_name"),
    [
        ("delay", {"delay_level": 1}, "DELAY"),
        ("timer", {"after_ms": 1000, "timer": "deliver_at"}, "TIMER_DELIVER_MS"),
        ("timer", {"after_ms": 1000, "timer": "delay_ms"}, "TIMER_OUT_MS"),
        ("transaction", {"decision": "commit"}, "TRAN_MSG"),
        ("transaction", {"decision": "check"}, "TRAN_MSG"),
    ],
)
def test_kinds_that_arrive_later(
    two_clusters: Pair, witness: Witness, topic_name: Names, kind: str, options: dict[str, Any], property_name: str
) -> None:
    servers, topic = two_clusters[0].name_servers, topic_name(kind)
    witness.create_topic(servers, topic, queues=2)
    sent = witness.produce(servers, topic, COUNT, kind=kind, **options)
    seen = witness.drain(servers, topic, expect=COUNT, timeout_seconds=60)
    assert sorted((each.keys or "", each.sha256) for each in seen) == sorted((each.keys or "", each.sha256) for each in sent)
    assert all(property_name in each.properties for each in seen)


def test_rolled_back_messages_never_arrive(two_clusters: Pair, witness: Witness, topic_name: Names) -> None:
    servers, topic = two_clusters[0].name_servers, topic_name("rolled-back")
    witness.create_topic(servers, topic, queues=1)
    witness.produce(servers, topic, COUNT, kind="transaction", decision="rollback")
    witness.produce(servers, topic, 1, kind="transaction", decision="commit", prefix="kept")
    assert [each.keys for each in witness.drain(servers, topic, expect=1)] == ["kept-0"]


def test_subscriptions_choose(two_clusters: Pair, witness: Witness, topic_name: Names) -> None:
    servers, topic = two_clusters[1].name_servers, topic_name("chosen")
    witness.create_topic(servers, topic, queues=2)
    witness.produce(servers, topic, COUNT, tags=["red", "blue"], properties=[{"size": "1"}, {"size": "2"}, {}])
    by_tag = witness.consume(servers, topic, topic_name("by-tag"), expression="red", expect=COUNT // 2, quiet_seconds=30)
    assert {each.keys for each in by_tag} == {f"m-{index}" for index in range(0, COUNT, 2)}
    options: dict[str, Any] = {"expression": "size > 1", "expression_type": "SQL92"}
    by_property = witness.consume(servers, topic, topic_name("by-property"), expect=3, quiet_seconds=30, **options)
    assert {each.keys for each in by_property} == {"m-1", "m-4", "m-7"}


def test_progress_is_exact(two_clusters: Pair, witness: Witness, topic_name: Names) -> None:
    servers, topic, group = two_clusters[1].name_servers, topic_name("progress"), topic_name("takers")
    witness.create_topic(servers, topic, queues=1)
    with pytest.raises(WitnessProblem):
        witness.consumer_progress(servers, group)
    witness.produce(servers, topic, COUNT)
    assert [each.keys for each in witness.take(servers, topic, group, 3)] == ["m-0", "m-1", "m-2"]
    (progress,) = witness.consumer_progress(servers, group, topic)
    assert (progress.consumer_offset, progress.broker_offset, progress.diff) == (3, COUNT, COUNT - 3)
    witness.set_progress(servers, topic, group, 8)
    assert [each.keys for each in witness.take(servers, topic, group, COUNT)] == ["m-8", "m-9"]
    assert topic in witness.mqadmin("topicList", "-n", servers)


def test_bulk_keeps_order_in_each_queue(two_clusters: Pair, witness: Witness, topic_name: Names) -> None:
    servers, topic, count = two_clusters[0].name_servers, topic_name("bulk"), 20_001
    witness.create_topic(servers, topic, queues=4)
    filled = witness.bulk(servers, topic, count, body_bytes=64)
    assert sum(each.count for each in filled) == count
    seen = witness.drain(servers, topic, expect=count, with_properties=False, with_body=True)
    by_queue: dict[int, list[int]] = {}
    for message in seen:
        assert message.body is not None
        by_queue.setdefault(message.queue, []).append(int(message.body.decode().rstrip(".").removeprefix("b-")))
    assert by_queue == {queue: list(range(queue, count, 4)) for queue in range(4)}


def test_a_killed_broker_keeps_its_messages(witness: Witness, topic_name: Names) -> None:
    with LocalCluster("beijing", brokers=2) as cluster:
        topic = topic_name("kept")
        witness.create_topic(cluster.name_servers, topic, queues=1)
        sent = witness.produce(cluster.name_servers, topic, COUNT)
        assert {each.broker for each in sent} == {"beijing-a", "beijing-b"}
        addresses, killed = cluster.broker_addresses, cluster.pids["beijing-a"]
        cluster.restart_broker(0)
        assert cluster.broker_addresses == addresses
        assert cluster.pids["beijing-a"] != killed
        # A name server that starts with nothing in its memory shows both brokers again before anyone asks.
        cluster.kill_name_server()
        cluster.start_name_server()
        assert {each.place for each in witness.drain(cluster.name_servers, topic, expect=COUNT)} == {each.place for each in sent}
        pids, directory = list(cluster.pids.values()), cluster.directory
        assert len(pids) == 3
    assert [pid for pid in pids if not has_ended(pid)] == []
    assert not directory.exists()


def test_nothing_outlives_a_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.local", "up", "--clusters", "lonely", "--directory", str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        line = parent.stdout.readline()
        described = json.loads(line)["lonely"]
        pids = list(described["pids"].values())
        assert len(pids) == 2
        assert not any(has_ended(pid) for pid in pids)
        parent.kill()
    assert wait_for_end(pids) == []


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(LabProblem, match="of broken .* ended with status .* logs stay in .*no-such-option"):
        LocalCluster("broken", directory=tmp_path, jvm_options=["--no-such-option"]).start()


def test_missing_maven_says_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPLICATOR_LAB_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(LabProblem, match="apt-get install maven") as raised:
        fetch_jars()
    assert "\n" not in str(raised.value)
