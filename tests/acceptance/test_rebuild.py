"""``rebuild`` on real brokers: on a running system, and after source region, coordinator and database were lost together.

A two-way task, 8 queues folded into 4, a filter, producers on both sides at once: so holes by filter and by loop, and local
messages between copies. Every answer of ``offsets translate`` before the loss is compared with the one after it.
"""

from __future__ import annotations

import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.local import LocalCluster, running_clusters
from tests.acceptance.process import ReplicatorProcess, cluster_yaml, task_yaml
from tests.integration.conftest import PATIENT

pytestmark = [pytest.mark.long, pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(600)]
FAR, NEAR = 800, 300
PRODUCE_SECONDS = 5
QUEUES = 8
BEYOND = 3
SPEC = """  mode: two-way
  clusters: [lanzhou, wuhan]
  filter: "kept = 'yes'"
"""
KEPT, DROPPED = {"kept": "yes"}, {"kept": "no"}
SAME_SECONDS_MAX = 60.0

Answers = dict[tuple[int, int], tuple[str, int, str]]


@pytest.fixture
def regions() -> Iterator[tuple[LocalCluster, LocalCluster]]:
    """Of this test alone: the first one is killed."""
    clusters = LocalCluster("lanzhou", broker_properties=PATIENT), LocalCluster("wuhan", broker_properties=PATIENT)
    with running_clusters(*clusters):
        yield clusters


def ask_all(process: ReplicatorProcess, topic: str, ends: dict[int, int]) -> Answers:
    """(status, destination offset, reason) of every offset of every source queue, and a few beyond."""

    def ask(place: tuple[int, int]) -> tuple[str, int, str]:
        queue, offset = place
        query = {"source": "lanzhou", "destination": "wuhan", "topic": topic, "queue": queue, "offset": offset}
        answer = process.get(f"/api/v1/tasks/regions/offsets/translate?{urllib.parse.urlencode(query)}")
        return answer["status"], answer["destination_offset"], answer["reason"]

    places = [(queue, offset) for queue, end in sorted(ends.items()) for offset in range(end + BEYOND)]
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(places, pool.map(ask, places), strict=True))


def wait_same(process: ReplicatorProcess, topic: str, ends: dict[int, int], expected: Answers) -> None:
    """The reasons come back as the source is read again."""
    deadline = time.monotonic() + SAME_SECONDS_MAX
    while (answers := ask_all(process, topic, ends)) != expected:
        different = [(place, expected[place], answers[place]) for place in expected if expected[place] != answers[place]]
        assert time.monotonic() < deadline, f"{len(different)} answers differ, first {different[:5]}\n{process.tail()}"


def check_without_source(before: Answers, after: Answers) -> Counter[str]:
    """Copied is copied at the same place; what has no copy has none, with the same next copy; behind the last copy nobody knows."""
    counts: Counter[str] = Counter()
    last = {queue: max(o for (q, o), answer in before.items() if q == queue and answer[0] == "copied") for queue, _ in before}
    for (queue, offset), (status, place, _) in before.items():
        counts[status] += 1
        if status == "copied":
            expected = ("copied", place, "")
        elif offset < last[queue]:
            expected = ("skipped", place, "unknown")
        else:
            expected = ("not-yet", place, "")
        assert after[queue, offset] == expected, (queue, offset)
    return counts


def test_the_map_is_the_same_after_everything_but_the_destination_is_lost(regions, witness, replicator, topic_name) -> None:
    lanzhou, wuhan = regions
    topic = topic_name("regions")
    witness.create_topic(lanzhou.name_servers, topic, queues=QUEUES)
    witness.create_topic(wuhan.name_servers, topic, queues=QUEUES // 2)
    documents = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in regions]
    documents.append(task_yaml("regions", topic, SPEC))
    process = replicator(*documents)
    process.start()
    process.wait_ready()
    with ThreadPoolExecutor() as pool:
        sent = [
            pool.submit(
                witness.produce, cluster.name_servers, topic, count, prefix=cluster.name, properties=[KEPT, KEPT, DROPPED, KEPT, DROPPED],
                with_keys=True, per_second=count // PRODUCE_SECONDS,
            )
            for cluster, count in ((lanzhou, FAR), (wuhan, NEAR))
        ]
        for one in sent:
            one.result()
    copies, back = FAR * 3 // 5, NEAR * 3 // 5
    process.wait_caught_up(90, copied_at_least=copies + back)
    source = witness.drain(lanzhou.name_servers, topic, expect=FAR + back, timeout_seconds=60)
    there = witness.drain(wuhan.name_servers, topic, expect=NEAR + copies, timeout_seconds=60)
    assert (len(source), len(there)) == (FAR + back, NEAR + copies)
    ends = Counter(row.queue for row in source)
    assert len(ends) == QUEUES
    before = ask_all(process, topic, ends)
    reasons = Counter(reason for status, _, reason in before.values() if status == "skipped")
    assert reasons == {"filtered": FAR - copies, "loop": back}

    rebuilt = process.answer_of("rebuild", "regions")
    assert (rebuilt["state"], rebuilt["copies_found"], rebuilt["error"]) == ("done", copies + back, "")
    wait_same(process, topic, ends, before)
    print(f"rebuilt while running: {rebuilt['records_read']} records in {rebuilt['seconds']:.2f} s, every answer the same")

    process.kill()
    lanzhou.kill_broker()
    lanzhou.kill_name_server()
    alone = replicator(*documents, name="alone", lost=("lanzhou",))
    alone.start()
    alone.wait_ready()
    rebuilt = alone.answer_of("rebuild", "regions")
    assert (rebuilt["state"], rebuilt["copies_found"]) == ("done", copies)
    counts = check_without_source(before, ask_all(alone, topic, ends))
    assert counts["copied"] == copies
    print(f"rebuilt from the destination alone: {rebuilt['seconds']:.2f} s, {dict(counts)} answers as before")
    assert alone.stop() < 10

    lanzhou.start_name_server()
    lanzhou.restart_broker()
    alone.lost = ()
    alone.start()
    alone.wait_ready()
    alone.wait_flow("running", lambda flow: flow["state"] == "running" and flow["lag_messages"] == 0, 90, source="lanzhou")
    wait_same(alone, topic, ends, before)
    alone.wait_caught_up(90)
    assert len(witness.drain(wuhan.name_servers, topic, expect=NEAR + copies)) == NEAR + copies, "something was sent again"
    assert len(witness.drain(lanzhou.name_servers, topic, expect=FAR + back)) == FAR + back, "something was sent again"
    alone.assert_no_traceback()
    assert alone.stop() < 10
