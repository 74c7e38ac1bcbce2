"""Clusters that are not what was declared, no database, and messages a destination will not take."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.acceptance.command import refused, run_command
from tests.acceptance.process import TWO_WAY, cluster_yaml, free_port, task_yaml
from tests.acceptance.truth import assert_copied_exactly
from tests.fakes.broker import FakeCluster
from tests.faults.conftest import SMALL_MESSAGE_BYTES_MAX

pytestmark = [pytest.mark.rocketmq, pytest.mark.timeout(180)]
MARK_TOPIC_PREFIX = "replicator-id-"


def write(folder, *documents: str):
    file = folder / "clusters.yaml"
    file.write_text("---\n".join(documents))
    return file


def run_to_its_end(folder, file, **environment: str):
    """``run`` of a file that is to be refused."""
    return run_command(
        "run", "-f", file, "--data-dir", folder / "data", "--listen", f"127.0.0.1:{free_port()}", environment=environment
    )


def marks(witness, cluster) -> set[str]:
    return {topic for topic in witness.topics(cluster.name_servers) if topic.startswith(MARK_TOPIC_PREFIX)}


def test_one_cluster_under_two_names(rough_clusters, witness, one_way, tmp_path) -> None:
    source, _ = rough_clusters
    process, _ = one_way("two-names")
    before = marks(witness, source)
    twin = write(tmp_path, cluster_yaml("twin", source.name_servers))
    said = refused(process.command("apply", "-f", twin), 4)
    assert f"twin is the cluster already declared as {source.name}" in said
    assert f"use the name {source.name}" in said
    assert [row["name"] for row in process.answer_of("get", "clusters") if row["name"] == "twin"] == []
    assert marks(witness, source) == before
    both = write(tmp_path, *(cluster_yaml(name, source.name_servers) for name in ("one", "other")))
    said = refused(run_command("check", "-f", both), 1)
    assert "other is the cluster already declared as one" in said
    process.assert_no_traceback()


def test_an_unreachable_cluster(rough_clusters, witness, one_way, tmp_path) -> None:
    process, _ = one_way("away")
    address = f"127.0.0.1:{free_port()}"
    task = task_yaml("to-nowhere", "x", TWO_WAY.replace("hangzhou", rough_clusters[0].name))
    file = write(tmp_path, cluster_yaml("shanghai", address), task)
    said = refused(process.command("apply", "-f", file), 1)
    assert "shanghai" in said
    assert address in said
    assert "shanghai" not in [row["name"] for row in process.answer_of("get", "clusters")]
    assert "to-nowhere" not in [row["name"] for row in process.answer_of("get", "tasks")]
    assert process.flows()[0]["state"] in ("starting", "running")


async def test_a_broker_that_is_too_old(tmp_path) -> None:
    async with FakeCluster("ancient", modern=False) as old:
        old.broker.version_name = "V4_3_2"
        file = write(tmp_path, cluster_yaml("ancient", old.name_server))
        checked = await asyncio.to_thread(run_command, "check", "-f", file)
        ran = await asyncio.to_thread(run_to_its_end, tmp_path, file)
        for said in (refused(checked, 1), refused(ran, 1)):
            assert f"cluster ancient, broker {old.broker.name}: RocketMQ 4.3.2 is not supported" in said
            assert "4.4.0 or newer" in said
        assert not [topic for topic in old.broker.topics if topic.startswith(MARK_TOPIC_PREFIX)]
        old.broker.version_name = "V4_4_0"
        accepted = await asyncio.to_thread(run_command, "check", "-f", file)
        assert accepted.returncode == 0, accepted.stderr


def test_no_database_at_the_url(rough_clusters, tmp_path) -> None:
    file = write(tmp_path, *(cluster_yaml(cluster.name, cluster.name_servers) for cluster in rough_clusters))
    port = free_port()
    began = time.monotonic()
    result = run_to_its_end(tmp_path, file, REPLICATOR_DATABASE_URL=f"postgresql://someone:hunter2@127.0.0.1:{port}/nowhere")
    said = refused(result, 1)
    assert f"the database 127.0.0.1:{port}/nowhere cannot be reached" in said
    assert "hunter2" not in result.stdout + said
    assert time.monotonic() - began < 45
    assert not (tmp_path / "data").exists()


def test_a_message_too_large_for_the_destination_is_parked(rough_clusters, witness, one_way) -> None:
    source, destination = rough_clusters
    process, topic = one_way("parking", queues=1)
    large = witness.produce(source.name_servers, topic, 1, prefix="large", with_keys=True, body_bytes=SMALL_MESSAGE_BYTES_MAX + 4096)
    small = witness.produce(source.name_servers, topic, 30, prefix="small", with_keys=True)
    process.wait_caught_up(60, copied_at_least=len(small))
    born = {row.keys: row for row in witness.drain(source.name_servers, topic, expect=31)}
    copies = witness.drain(destination.name_servers, topic, expect=30)
    assert_copied_exactly([row for keys, row in born.items() if keys != large[0].keys], copies, {"origin": source.name})
    flow = process.flows()[0]
    assert (flow["parked"], flow["skipped_total"]["refused"], flow["state"]) == (1, 1, "running")
    parked = process.answer_of("parked", "list", "parking")
    assert [row["source_offset"] for row in parked] == [large[0].offset]
    assert parked[0]["state"] == "parked"
    assert f"limit {SMALL_MESSAGE_BYTES_MAX}B" in parked[0]["reason"]
    assert parked[0]["size_bytes"] > SMALL_MESSAGE_BYTES_MAX
    answer = process.answer_of("parked", "retry", "parking", str(parked[0]["id"]))
    assert [row["result"] for row in answer] == ["refused"], json.dumps(answer)
    assert "limit" in answer[0]["detail"]
    address = destination.broker_addresses[0]
    set_limit(witness, address, 4 * 1024 * 1024)
    try:
        answer = process.answer_of("parked", "retry", "parking", "--all")
        assert [row["result"] for row in answer] == ["retried"], json.dumps(answer)
    finally:
        set_limit(witness, address, SMALL_MESSAGE_BYTES_MAX)
    rows = witness.drain(destination.name_servers, topic, expect=31)
    assert len(rows) == 31
    assert [row.sha256 for row in rows if row.keys == large[0].keys] == [born[large[0].keys].sha256]
    assert [row["state"] for row in process.answer_of("parked", "list", "parking")] == ["retried"]
    process.assert_no_traceback()
    assert process.stop() < 10


def set_limit(witness, address: str, size_bytes: int) -> None:
    said = witness.mqadmin("updateBrokerConfig", "-b", address, "-k", "maxMessageSize", "-v", str(size_bytes))
    assert "success" in said, said
