"""Coordinator and workers as processes of their own: workers join, stop, are killed and frozen while messages flow.

The pause of a queue is how late its latest copy came: store time of the copy less that of the message, on one machine's clock.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from tests.acceptance.process import cluster_yaml, one_way, task_yaml
from tests.acceptance.services import Holders, ServiceProcess, Services
from tests.acceptance.truth import assert_copied_exactly

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(900)]

QUEUES = 9
TICK_SECONDS = 0.1
TICK_MESSAGES = QUEUES
SHARED_SECONDS_MAX = 60.0
"""To see the new shares, on a machine that runs everything; what is promised is judged by the pauses below."""
STOP_PAUSE_SECONDS_MAX = 6.0
OTHERS_PAUSE_SECONDS_MAX = 3.0
"""They do not pause; a machine that starts several processes at once does."""
KILL_PAUSE_SECONDS_MAX = 20.0
FROZEN_SECONDS = 9.0
"""Longer than a lease and a lock renewal: others have taken over, and settle what the frozen one may have left, when it wakes up."""
SETTLED_SECONDS = 2.0


class Producer:
    """Sends steadily, message i into queue i mod n, until told to stop."""

    def __init__(self, witness, name_servers: str, topic: str) -> None:
        self._witness, self._name_servers, self._topic = witness, name_servers, topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="producer")
        self.count = 0

    def _run(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            self._witness.bulk(
                self._name_servers, self._topic, TICK_MESSAGES, batch_size=1, prefix="born", first=self.count, with_keys=True
            )
            self.count += TICK_MESSAGES

    @contextmanager
    def sending(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()


class Changes:
    """What happened when, and which queues moved by it."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.made: list[tuple[str, float, float, set[tuple[str, int]]]] = []

    @contextmanager
    def noted(self, name: str, before: Holders, interrupted: str = "") -> Iterator[None]:
        """``interrupted``: a worker whose queues may be back with it afterwards."""
        began = time.time()
        yield
        after = self._services.holders()
        time.sleep(SETTLED_SECONDS)
        moved = {queue for queue, holder in before.items() if after[queue] != holder or holder == interrupted}
        self.made.append((name, began, time.time(), moved))

    def pauses(self, born, copies) -> dict[str, tuple[float, float]]:
        """{change: (longest pause of a queue that moved, of one that did not)}, in seconds."""
        stored = {row.keys: row.stored_ms for row in copies}
        found = {}
        for name, began, ended, moved in self.made:
            late = {True: 0.0, False: 0.0}
            for row in born:
                # What was born shortly before may be under way when it begins.
                if began - 1.0 <= row.stored_ms / 1000 <= ended:
                    is_moved = (row.broker, row.queue) in moved
                    late[is_moved] = max(late[is_moved], (stored[row.keys] - row.stored_ms) / 1000)
            found[name] = late[True], late[False]
        return found


def even(workers: int):
    return lambda counts: len(counts) == workers and max(counts.values()) - min(counts.values()) <= 2


def test_workers_come_and_go_while_messages_flow(two_clusters, witness, topic_name, tmp_path) -> None:
    source, destination = two_clusters
    topic = topic_name("services")
    witness.create_topic(source.name_servers, topic, queues=QUEUES)
    producer = Producer(witness, source.name_servers, topic)
    with Services(tmp_path) as services:
        documents = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in two_clusters]
        services.apply(*documents, task_yaml("services", topic, one_way(source.name, destination.name)))
        services.coordinator.wait_topic(witness, destination.name_servers, topic)
        one, two = services.worker(), services.worker()
        changes = Changes(services)
        with producer.sending():
            holders = services.wait_shared([one, two], SHARED_SECONDS_MAX, is_so=even(2))
            three = _join(services, changes, holders, [one, two])
            holders = services.holders()
            with changes.noted("stop", holders):
                assert two.stop() < 10
                services.wait_shared([one, three], SHARED_SECONDS_MAX, is_so=even(2))
            holders = services.holders()
            with changes.noted("kill -9", holders):
                one.kill()
                services.wait_shared([three], SHARED_SECONDS_MAX, is_so=even(1))
            four = _join(services, changes, services.holders(), [three])
            holders = services.holders()
            with changes.noted("freeze", holders, four.started()["instance"]):
                four.send_signal(signal.SIGSTOP)
                time.sleep(FROZEN_SECONDS)
                four.send_signal(signal.SIGCONT)
                services.wait_shared([three, four], SHARED_SECONDS_MAX, is_so=even(2))
        services.coordinator.wait_caught_up(60, copied_at_least=producer.count)
        _check_listings(services, [three, four])
        born = witness.drain(source.name_servers, topic, expect=producer.count)
        copies = witness.drain(destination.name_servers, topic, expect=producer.count)
        assert len(born) == producer.count
        assert_copied_exactly(born, copies, {"origin": source.name})
        for name, (moved, others) in changes.pauses(born, copies).items():
            print(f"{name}: queues that moved paused for at most {moved:.2f} s, the others {others:.2f} s")
            assert others < OTHERS_PAUSE_SECONDS_MAX
            assert moved < (KILL_PAUSE_SECONDS_MAX if name in ("kill -9", "freeze") else STOP_PAUSE_SECONDS_MAX)
        services.assert_no_traceback()
        for process in (three, four, services.coordinator):
            assert process.stop() < 10
    print(f"{producer.count} messages: lost 0, doubled 0")


def _join(services: Services, changes: Changes, holders: Holders, there: list[ServiceProcess]) -> ServiceProcess:
    with changes.noted(f"join {len(changes.made)}", holders):
        joined = services.worker()
        services.wait_shared([*there, joined], SHARED_SECONDS_MAX, is_so=even(len(there) + 1))
    up_at = datetime.fromisoformat(joined.started()["timestamp"]).timestamp()
    print(f"join: its share {time.time() - SETTLED_SECONDS - up_at:.1f} s after it was up")
    moved = changes.made[-1][3]
    assert {services.holders()[queue] for queue in moved} == {joined.started()["instance"]}, "only to the one that joined"
    return joined


def _check_listings(services: Services, workers: list[ServiceProcess]) -> None:
    names = {process.started()["instance"] for process in workers}
    listed = services.coordinator.answer_of("get", "workers")
    assert {row["name"] for row in listed} == names
    assert sum(row["assignments"] for row in listed) == QUEUES
    checked = services.coordinator.answer_of("check", "-f", services.declared)
    assert {row["worker"] for row in checked["workers"]} == names
    assert all(one["reachable"] and one["distance_ms"] >= 0 for row in checked["workers"] for one in row["clusters"])
    assert all(row["weight"] > 0 for row in listed)
    rows = services.coordinator.answer_of("get", "assignments")
    assert {row["holder"] for row in rows} == names == set(Counter(row["worker"] for row in rows))
