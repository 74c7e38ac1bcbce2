"""Histories that are not what they were, on real brokers: the source's re-created or expired, the destination's tail lost."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.command import refused
from tests.acceptance.truth import assert_copied_exactly

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(180)]
COPIED = 60
LARGE_BODY_BYTES = 64 * 1024
LARGE_MESSAGES = 400
"""They fill three commit log files of 8 MiB and begin a fourth."""
FILES_KEPT = 3
"""The last one may be a reserve, still empty, and the one before it nearly so."""


def produce(witness, cluster, topic: str, name: str, count: int, body_bytes: int = 100) -> None:
    witness.bulk(cluster.name_servers, topic, count, prefix=name, batch_size=8, with_keys=True, body_bytes=body_bytes)


def stopped(process, *words: str):
    """The flow once it stands still for its history and says so in full: what a read meets first is said in fewer words."""

    def is_told(flow) -> bool:
        return flow["state"] == "stopped-history-change" and all(word in flow["error"] for word in words)

    return process.wait_flow(f"stopped for its history with {words}", is_told, 60)


def keys_from(rows, first: str) -> list[str]:
    return [row.keys for row in rows if row.keys.startswith(first)]


@pytest.mark.parametrize("new", [pytest.param(COPIED // 2, marks=pytest.mark.long, id="shorter"), pytest.param(COPIED * 2, id="longer")])
def test_a_topic_deleted_and_created_again(rough_clusters, witness, one_way, new) -> None:
    """Found where fewer messages than were copied stand there, and where more do."""
    source, destination = rough_clusters
    process, topic = one_way("recreated", queues=1)
    produce(witness, source, topic, "old", COPIED)
    process.wait_caught_up(60, copied_at_least=COPIED)
    old = witness.drain(destination.name_servers, topic, expect=COPIED)
    witness.delete_topic(source.name_servers, topic)
    witness.create_topic(source.name_servers, topic, queues=1)
    produce(witness, source, topic, "new", new)
    where = f"cluster {source.name}, queue "
    if new < COPIED:
        stopped(process, where, topic, f"ends at offset {new}, but {COPIED} was examined", "--from-offset")
    else:
        stopped(process, where, topic, f"offset {COPIED - 1} holds another record", "--from-offset")
    assert [row.place for row in witness.drain(destination.name_servers, topic, expect=COPIED)] == [row.place for row in old]
    said = refused(process.command("resume", "recreated"), 4)
    assert "gives up 0 offsets" in said
    assert "--accept-loss" in said
    said = refused(process.command("resume", "recreated", "--from-offset", str(new + 1)), 2)
    assert f"holds offsets 0 to {new}, not {new + 1}" in said
    done = process.command("resume", "recreated", "--from-offset", "0")
    assert done.returncode == 0, done.stderr
    process.wait_caught_up(60, copied_at_least=COPIED + new)
    copies = witness.drain(destination.name_servers, topic, expect=COPIED + new)
    assert [row.place for row in copies[:COPIED]] == [row.place for row in old]
    assert_copied_exactly(witness.drain(source.name_servers, topic, expect=new), copies[COPIED:], {"origin": source.name})
    process.assert_no_traceback()


def test_accepting_the_loss_goes_on_where_the_histories_part(rough_clusters, witness, one_way) -> None:
    """All that stands in a topic made anew is new, though it lies below what was read of the one before: every copy says so."""
    source, destination = rough_clusters
    process, topic = one_way("accepted", queues=1)
    produce(witness, source, topic, "old", COPIED)
    process.wait_caught_up(60, copied_at_least=COPIED)
    witness.delete_topic(source.name_servers, topic)
    witness.create_topic(source.name_servers, topic, queues=1)
    produce(witness, source, topic, "below", 10)
    stopped(process, f"ends at offset 10, but {COPIED} was examined")
    said = process.command("resume", "accepted", "--accept-loss", "--dry-run").stdout
    assert "goes on at 0, gives up nothing" in said
    done = process.command("resume", "accepted", "--accept-loss")
    assert done.returncode == 0, done.stderr
    produce(witness, source, topic, "later", 20)
    status = process.wait_caught_up(60, copied_at_least=COPIED + 30)
    assert sum(status["tasks"][0]["flows"][0]["skipped_total"].values()) == 0
    copies = witness.drain(destination.name_servers, topic, expect=COPIED + 30)
    assert_copied_exactly(witness.drain(source.name_servers, topic, expect=30), copies[COPIED:], {"origin": source.name})
    process.assert_no_traceback()


@pytest.mark.parametrize("on_history_change", ["stop", pytest.param("continue", marks=pytest.mark.long)])
def test_messages_expired_before_they_were_read(rough_clusters, witness, one_way, on_history_change) -> None:
    source, destination = rough_clusters
    process, topic = one_way("expired", f"on_history_change: {on_history_change}", queues=1)
    produce(witness, source, topic, "early", COPIED)
    process.wait_caught_up(60, copied_at_least=COPIED)
    process.stop()
    produce(witness, source, topic, "large", LARGE_MESSAGES, LARGE_BODY_BYTES)
    delete_old_files(source)
    queue, = witness.offsets(source.name_servers, topic).values()
    kept_from, end = queue
    assert COPIED < kept_from < end == COPIED + LARGE_MESSAGES
    process.start()
    process.wait_ready()
    lost = kept_from - COPIED
    if on_history_change == "stop":
        stopped(process, f"cluster {source.name}", topic, f"offsets {COPIED} to {kept_from - 1} expired before they were read")
        said = refused(process.command("resume", "expired"), 4)
        assert f"gives up {lost} offsets" in said
        assert process.command("resume", "expired", "--accept-loss").returncode == 0
    status = process.wait_caught_up(90, copied_at_least=COPIED + LARGE_MESSAGES - lost)
    skipped = status["tasks"][0]["flows"][0]["skipped_total"]
    assert skipped["history" if on_history_change == "stop" else "expired"] == sum(skipped.values()) == lost
    copies = witness.drain(destination.name_servers, topic, expect=COPIED + LARGE_MESSAGES - lost)
    assert len(keys_from(copies, "early")) == COPIED
    left = witness.drain(source.name_servers, topic, expect=LARGE_MESSAGES - lost)
    assert_copied_exactly(left, copies[COPIED:], {"origin": source.name})
    process.assert_no_traceback()


def delete_old_files(cluster) -> None:
    """What retention does: the oldest commit log files are gone."""
    cluster.kill_broker()
    for file in sorted((store_of(cluster) / "commitlog").iterdir())[:-FILES_KEPT]:
        file.unlink()
    cluster.start_broker()


def store_of(cluster) -> Path:
    return cluster.log_directories[cluster.broker_names[0]] / "store"


def copy_store(source: Path, destination: Path) -> None:
    """The files are mostly holes."""
    subprocess.run(["cp", "-a", "--sparse=always", str(source), str(destination)], check=True)


def test_a_destination_that_lost_its_newest_copies(rough_clusters, witness, one_way, tmp_path) -> None:
    """A restored destination gets again what it lost, and nothing it still has; no further message has to come for that."""
    source, destination = rough_clusters
    process, topic = one_way("restored")
    produce(witness, source, topic, "kept", COPIED)
    process.wait_caught_up(60, copied_at_least=COPIED)
    store, older = store_of(destination), tmp_path / "older"
    destination.kill_broker()
    copy_store(store, older)
    destination.start_broker()
    produce(witness, source, topic, "lost", COPIED)
    process.wait_caught_up(60, copied_at_least=2 * COPIED)
    destination.kill_broker()
    shutil.rmtree(store)
    copy_store(older, store)
    destination.start_broker()
    assert len(witness.drain(destination.name_servers, topic, expect=2 * COPIED, timeout_seconds=60)) == 2 * COPIED
    produce(witness, source, topic, "after", COPIED)
    process.wait_caught_up(90, copied_at_least=4 * COPIED)  # those that were lost count twice
    born = witness.drain(source.name_servers, topic, expect=3 * COPIED)
    copies = witness.drain(destination.name_servers, topic, expect=3 * COPIED)
    assert_copied_exactly(born, copies, {"origin": source.name})
    told = [event for event in process.answer_of("events", "restored") if event["kind"] == "destination-lost-copies"]
    assert told, process.answer_of("events", "restored")
    assert destination.name in told[0]["message"]
    process.assert_no_traceback()
    assert process.stop() < 10
