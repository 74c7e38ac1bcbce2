"""``offsets translate`` against a full scan of both logs by the official client: 8 queues folded into 4, a filter, and messages
of the destination's own producers in between.

Copies are recognised by their keys and bodies alone, never by what the replicator writes into them.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from tests.acceptance.process import ReplicatorProcess, task_yaml

MESSAGES = 2400
LOCALS = 600
PRODUCE_SECONDS = 6
"""Both sides' producers take this long, so that locals stand between copies."""
CHANGES_MIN = 100
"""How often a local and a copy have to stand side by side for that to have come true."""
QUESTIONS = 1000
BEYOND_MAX = 5
"""How far past the end of a queue is asked."""
SEED = 11
ONE_WAY = """  mode: one-way
  source: hangzhou
  destinations: [shanghai]
  filter: "kept = 'yes'"
"""
KEYS = {
    "status", "source_broker", "source_queue", "destination_topic", "destination_broker", "destination_queue", "destination_offset",
    "reason",
}
KEPT, DROPPED = {"kept": "yes"}, {"kept": "no"}
pytestmark = [pytest.mark.rocketmq, pytest.mark.timeout(300)]


class Truth:
    """Of each source queue: every message in it, and where its copy stands, from two full scans."""

    def __init__(self, source, destination) -> None:
        copies = {(row.keys, row.sha256): row for row in destination}
        self.queues: dict[int, list] = {}
        for row in sorted(source, key=lambda row: row.offset):
            self.queues.setdefault(row.queue, []).append((row, copies.get((row.keys, row.sha256))))

    def expected(self, queue: int, offset: int) -> tuple[str, int, str]:
        rows = self.queues[queue]
        later = [copy.offset for row, copy in rows if row.offset >= offset and copy is not None]
        place = min(later) if later else max(copy.offset for _, copy in rows if copy is not None) + 1
        if offset >= len(rows):
            return "not-yet", place, ""
        row, copy = rows[offset]
        assert row.offset == offset
        if copy is not None:
            return "copied", copy.offset, ""
        assert row.user_properties["kept"] == "no"
        return "skipped", place, "filtered"

    def destination_queue(self, queue: int) -> int:
        (found,) = {copy.queue for _, copy in self.queues[queue] if copy is not None}
        return found


def command(process: ReplicatorProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "REPLICATOR_URL": f"http://127.0.0.1:{process.port}"}
    words = [sys.executable, "-m", "replicator", "offsets", "translate", *arguments]
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60)


def test_every_translation_is_what_a_full_scan_shows(two_clusters, witness, replicator, cluster_documents, topic_name) -> None:
    hangzhou, shanghai = two_clusters
    topic = topic_name("offsets")
    witness.create_topic(hangzhou.name_servers, topic, queues=8)
    witness.create_topic(shanghai.name_servers, topic, queues=4)
    process = replicator(*cluster_documents, task_yaml("folded", topic, ONE_WAY))
    process.start()
    process.wait_ready()
    properties = [KEPT, KEPT, DROPPED, KEPT, DROPPED]
    with ThreadPoolExecutor() as pool:
        far = pool.submit(
            witness.produce, hangzhou.name_servers, topic, MESSAGES, prefix="far", properties=properties, with_keys=True,
            per_second=MESSAGES // PRODUCE_SECONDS,
        )
        near = pool.submit(
            witness.produce, shanghai.name_servers, topic, LOCALS, prefix="local", with_keys=True, per_second=LOCALS // PRODUCE_SECONDS
        )
        far.result()
        near.result()
    expected_copies = sum(properties[i % len(properties)] is KEPT for i in range(MESSAGES))
    process.wait_caught_up(90, copied_at_least=expected_copies)
    source = witness.drain(hangzhou.name_servers, topic, expect=MESSAGES, timeout_seconds=60)
    destination = witness.drain(shanghai.name_servers, topic, expect=expected_copies + LOCALS, timeout_seconds=60)
    assert (len(source), len(destination)) == (MESSAGES, expected_copies + LOCALS)
    origins = [(row.queue, str(row.keys).split("-")[0]) for row in destination]
    changes = sum(a[0] == b[0] and a[1] != b[1] for a, b in pairwise(origins))
    assert changes >= CHANGES_MIN, f"locals and copies stand side by side {changes} times only"
    truth = Truth(source, destination)
    assert len(truth.queues) == 8
    assert Counter(truth.destination_queue(queue) for queue in truth.queues) == {0: 2, 1: 2, 2: 2, 3: 2}
    broker = source[0].broker
    rnd = random.Random(SEED)
    statuses: Counter[str] = Counter()
    for _ in range(QUESTIONS):
        queue = rnd.choice(sorted(truth.queues))
        offset = rnd.randrange(len(truth.queues[queue]) + BEYOND_MAX)
        name = rnd.choice((str(queue), f"{broker}/{queue}"))
        query = {"source": "hangzhou", "destination": "shanghai", "topic": topic, "queue": name, "offset": offset}
        answer = process.get(f"/api/v1/tasks/folded/offsets/translate?{urllib.parse.urlencode(query)}")
        assert set(answer) == KEYS
        assert (answer["status"], answer["destination_offset"], answer["reason"]) == truth.expected(queue, offset), (queue, offset)
        assert (answer["source_broker"], answer["source_queue"]) == (broker, queue)
        assert (answer["destination_topic"], answer["destination_broker"]) == (topic, destination[0].broker)
        assert answer["destination_queue"] == truth.destination_queue(queue)
        statuses[answer["status"]] += 1
    assert min(statuses["copied"], statuses["skipped"], statuses["not-yet"]) > 0, statuses
    print(f"{QUESTIONS} offsets of 8 queues: {dict(statuses)}, none different from the scan")
    check_the_command(process, truth, topic)
    assert process.stop() < 10


def check_the_command(process: ReplicatorProcess, truth: Truth, topic: str) -> None:
    flow = ("--source", "hangzhou", "--destination", "shanghai", "--topic")
    done = command(process, "folded", *flow, topic, "--queue", "5", "--offset", "17", "-o", "json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == KEYS
    assert (answer["status"], answer["destination_offset"], answer["reason"]) == truth.expected(5, 17)
    for arguments, code in (
        (("folded", *flow, topic, "--queue", "99", "--offset", "1"), 3),
        (("folded", *flow, "nothing", "--queue", "0", "--offset", "1"), 3),
        (("nobody", *flow, topic, "--queue", "0", "--offset", "1"), 3),
        (("folded", *flow, topic, "--queue", "zero", "--offset", "1"), 2),
        (("folded", *flow, topic, "--queue", "0", "--offset", "-1"), 2),
        (("folded", *flow, topic, "--queue", "0"), 2),
    ):
        failed = command(process, *arguments)
        assert failed.returncode == code, (arguments, failed.stderr)
