"""Parts that fail and come back during traffic: destination disk, brokers, name server, Postgres. Nothing lost, nothing twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.truth import assert_copied_exactly

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(240)]
DISK_WARNING_PERCENT = 35
"""The lowest at which a broker can be told to call its disk full."""
DISK_WARNING_PERCENT_DEFAULT = 90
BEFORE, DURING, AFTER = 200, 300, 100
DISK_SEEN_SECONDS_MAX = 90.0
PER_SECOND = 60
NAME_SERVERS_AWAY_SECONDS = 20
"""Longer than what they said is believed without asking again."""


def produce(witness, cluster, topic: str, name: str, count: int) -> None:
    witness.bulk(cluster.name_servers, topic, count, prefix=name, batch_size=7, with_keys=True, body_bytes=200)


@pytest.fixture
def traffic(witness):
    """Starts messages one after another while something else happens; a send that fails is left out."""
    with ThreadPoolExecutor(1) as threads:

        def begin(cluster, topic: str, count: int):
            return threads.submit(
                witness.produce, cluster.name_servers, topic, count, prefix="during", with_keys=True, per_second=PER_SECOND,
                keep_going=True, body_bytes=100,
            )

        yield begin


def assert_all_copied(witness, clusters, topic: str, at_least: int) -> None:
    """The source's own log says what has to be there: a producer that met a fault may have sent a message twice itself."""
    source, destination = clusters
    born = witness.drain(source.name_servers, topic, expect=at_least)
    assert len(born) >= at_least
    copies = witness.drain(destination.name_servers, topic, expect=len(born))
    assert_copied_exactly(born, copies, {"origin": source.name})


def used_percent(folder: Path) -> float:
    """As a broker counts it."""
    disk = os.statvfs(folder)
    used = disk.f_blocks - disk.f_bfree
    return 100 * used / (used + disk.f_bavail)


@contextmanager
def full_disk(witness, cluster) -> Iterator[None]:
    """The broker is told to call a disk full at the lowest level it knows, and the disk brought above that for as long as needed."""
    address, ballast = cluster.broker_addresses[0], cluster.directory / "ballast"
    set_warning_level(witness, address, DISK_WARNING_PERCENT)
    try:
        if used_percent(cluster.directory) < DISK_WARNING_PERCENT + 1:
            disk = os.statvfs(cluster.directory)
            entire = disk.f_blocks - disk.f_bfree + disk.f_bavail
            wanted = entire * (DISK_WARNING_PERCENT + 2) // 100 - (disk.f_blocks - disk.f_bfree)
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, wanted * disk.f_frsize)
        yield
    finally:
        ballast.unlink(missing_ok=True)
        set_warning_level(witness, address, DISK_WARNING_PERCENT_DEFAULT)


def set_warning_level(witness, address: str, percent: int) -> None:
    said = witness.mqadmin("updateBrokerConfig", "-b", address, "-k", "diskSpaceWarningLevelRatio", "-v", str(percent))
    assert "success" in said, said


@pytest.mark.parametrize(
    ("side", "graceful"),
    [
        pytest.param("destination", False, id="destination-killed"),
        pytest.param("source", True, marks=pytest.mark.long, id="source-stopped"),
    ],
)
def test_a_broker_restarted_during_traffic(rough_clusters, witness, one_way, traffic, side, graceful) -> None:
    source, destination = rough_clusters
    process, topic = one_way(f"restart-{side}")
    produce(witness, source, topic, "before", BEFORE)
    process.wait_caught_up(60, copied_at_least=BEFORE)
    sending = traffic(source, topic, DURING)
    broken = source if side == "source" else destination
    (broken.stop_broker if graceful else broken.kill_broker)()
    try:
        flow = process.wait_flow("told that the broker is away", lambda flow: flow["state"] == "unreachable", 30)
        assert broken.name in flow["error"]
    finally:
        broken.start_broker()
    sending.result(120)
    produce(witness, source, topic, "after", AFTER)
    process.wait_caught_up(90, copied_at_least=BEFORE + AFTER)
    assert_all_copied(witness, rough_clusters, topic, BEFORE + AFTER + (DURING if side == "destination" else 0))
    process.assert_no_traceback()


@pytest.mark.long
def test_name_servers_away_for_a_while(rough_clusters, witness, one_way, traffic) -> None:
    """Known brokers go on being used; what is sent meanwhile arrives meanwhile."""
    source, destination = rough_clusters
    process, topic = one_way("name-servers")
    produce(witness, source, topic, "before", BEFORE)
    process.wait_caught_up(60, copied_at_least=BEFORE)
    sending = traffic(source, topic, PER_SECOND * NAME_SERVERS_AWAY_SECONDS)
    process.wait_flow("copying", lambda flow: flow["copied_total"] > BEFORE, 20)
    for cluster in rough_clusters:
        cluster.kill_name_server()
    try:
        sent = sending.result(2 * NAME_SERVERS_AWAY_SECONDS)
        assert all(one.problem is None for one in sent)
        flow = process.wait_flow("copied without name servers", lambda flow: flow["copied_total"] == BEFORE + len(sent), 20)
        assert flow["state"] == "running"
    finally:
        for cluster in rough_clusters:
            cluster.start_name_server()
    produce(witness, source, topic, "after", AFTER)
    process.wait_caught_up(60, copied_at_least=BEFORE + len(sent) + AFTER)
    assert_all_copied(witness, rough_clusters, topic, BEFORE + len(sent) + AFTER)
    process.assert_no_traceback()


def postgres_pid(process) -> int:
    found = next(process.data_dir.rglob("postmaster.pid"))
    return int(found.read_text().splitlines()[0])


def test_postgres_away_during_traffic(rough_clusters, witness, one_way) -> None:
    """Flows go on without it (G10), and what they did meanwhile is written down afterwards."""
    source, destination = rough_clusters
    process, topic = one_way("postgres")
    produce(witness, source, topic, "before", BEFORE)
    process.wait_caught_up(60, copied_at_least=BEFORE)
    pid = postgres_pid(process)
    os.kill(pid, signal.SIGSTOP)
    try:
        produce(witness, source, topic, "frozen", DURING)
        copies = witness.drain(destination.name_servers, topic, expect=BEFORE + DURING, timeout_seconds=15)
        assert len(copies) == BEFORE + DURING, "flows stood still while Postgres did"
    finally:
        os.kill(pid, signal.SIGKILL)
    produce(witness, source, topic, "killed", DURING)
    process.wait_caught_up(90, copied_at_least=BEFORE + 2 * DURING)
    assert postgres_pid(process) != pid
    process.assert_no_traceback()
    assert process.stop() < 10
    produce(witness, source, topic, "after", AFTER)
    process.start()
    process.wait_ready()
    process.wait_caught_up(60, copied_at_least=BEFORE + 2 * DURING + AFTER)
    assert_all_copied(witness, rough_clusters, topic, BEFORE + 2 * DURING + AFTER)


def wait_until_refusing(witness, cluster, topic: str) -> None:
    """A broker looks at its disk every 10 s, for the first time a minute after its start: hence this test stands last."""
    deadline = time.monotonic() + DISK_SEEN_SECONDS_MAX
    while True:
        (sent,) = witness.produce(cluster.name_servers, topic, 1, prefix="probe", keep_going=True)
        if sent.problem is not None:
            return
        assert time.monotonic() < deadline, "the broker never called its disk full"
        time.sleep(0.5)


@pytest.mark.long
def test_a_full_destination_disk(rough_clusters, witness, one_way, topic_name) -> None:
    source, destination = rough_clusters
    process, topic = one_way("disk")
    produce(witness, source, topic, "before", BEFORE)
    process.wait_caught_up(60, copied_at_least=BEFORE)
    probes = topic_name("probes")
    witness.create_topic(destination.name_servers, probes, queues=1)
    with full_disk(witness, destination):
        wait_until_refusing(witness, destination, probes)
        produce(witness, source, topic, "during", DURING)
        flow = process.wait_flow("told that the disk is full", lambda flow: "disk is full" in flow["error"], 30)
        assert flow["state"] == "unreachable"
        assert destination.name in flow["error"]
        assert topic in flow["error"]
        assert flow["copied_total"] == BEFORE
    process.wait_caught_up(60, copied_at_least=BEFORE + DURING)
    assert_all_copied(witness, rough_clusters, topic, BEFORE + DURING)
    assert process.flows()[0]["parked"] == 0
    process.assert_no_traceback()
