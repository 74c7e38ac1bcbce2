"""Exactness of moves at scale, on real clusters, judged by the official client: what is lost and what is seen again, group by group.

Short forms run with the long tests; ``make moves`` runs them at full size and prints what was measured.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass

import pytest

from tests.acceptance.process import cluster_yaml, one_way, task_yaml

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.long, pytest.mark.timeout(1800)]
COUNT = int(os.environ.get("REPLICATOR_MOVE_MESSAGES", "4000"))
MEANWHILE = int(os.environ.get("REPLICATOR_MOVE_MEANWHILE", "10000"))
GROUPS = int(os.environ.get("REPLICATOR_MOVE_GROUPS", "12"))
ROUNDS = int(os.environ.get("REPLICATOR_MOVE_ROUNDS", "60"))
KILL_EVERY = 25
TRIPS = int(os.environ.get("REPLICATOR_MOVE_TRIPS", "3"))
MANUAL = "  progress: {sync: manual}\n"
SETTLED_SECONDS_MAX = 300.0
POLL_SECONDS = 0.3


def lags(count: int) -> list[int]:
    wanted = (0, 1, 10, 1_000, 12_345, count // 5, count // 2, count - 3, count)
    return sorted({lag for lag in wanted if lag <= count})


@dataclass
class Scene:
    process: object
    witness: object
    task: str
    topic: str
    source: object
    destination: object
    queues: int

    def copied(self, at_least: int) -> None:
        self.process.wait_caught_up(SETTLED_SECONDS_MAX, copied_at_least=at_least)

    def flags(self) -> tuple[str, ...]:
        return "--failed", self.source.name, "--destination", self.destination.name

    def moved(self, kind: str, *more: str) -> dict:
        done = self.process.command(kind, "run", self.task, *self.flags(), "--yes", "-o", "json", *more)
        assert done.returncode == 0, done.stdout + done.stderr
        ended = json.loads(done.stdout)
        assert ended["state"] == "done", ended
        return ended

    def set_behind(self, cluster, group: str, offsets: dict[int, int]) -> None:
        self.witness.create_group(cluster.name_servers, group)
        for queue, offset in offsets.items():
            broker = cluster.broker_names[0]
            self.witness.set_progress(cluster.name_servers, self.topic, group, offset, broker=broker, queue=queue)


def scene(replicator, clusters, witness, topic_name, name: str, *, queues: int, there: int = 0, body: str = "", topics: str = "") -> Scene:
    source, destination = clusters
    topic = topic_name(name)
    witness.create_topic(source.name_servers, topic, queues=queues)
    if there:
        witness.create_topic(destination.name_servers, topic, queues=there)
    documents = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in clusters]
    lines = one_way(source.name, destination.name) + MANUAL + body
    process = replicator(*documents, task_yaml(name, topic, lines, topics=topics), name=name)
    process.start()
    process.wait_ready()
    process.wait_topic(witness, destination.name_servers, topic)
    return Scene(process, witness, name, topic, source, destination, queues)


def keys(rows) -> list[str]:
    return [row.keys for row in rows]


def spread(count: int, lag: int, ends: dict[int, int]) -> dict[int, int]:
    """Offsets of a group that is ``lag`` behind in all: the later queues more than the earlier ones by one at most."""
    share, more = divmod(lag, len(ends))
    return {queue: max(0, end - share - (place < more)) for place, (queue, end) in enumerate(sorted(ends.items()))}


@pytest.mark.parametrize(
    ("name", "queues", "there", "locals_between", "body"),
    [
        pytest.param("one", 1, 0, False, "", id="one queue"),
        pytest.param("eight", 8, 0, False, "", id="eight queues"),
        pytest.param("filtered", 4, 0, False, "  filter: \"number BETWEEN 0 AND 6\"\n", id="filtered"),
        pytest.param("folded", 8, 4, False, "", id="eight queues into four"),
        pytest.param("mixed", 2, 0, True, "", id="messages born there in between"),
    ],
)
def test_every_lag_lands_where_it_stood(two_clusters, witness, replicator, topic_name, name, queues, there, locals_between, body) -> None:
    """One-to-one queues with nothing born there: repeated 0. Otherwise exactly the plan's number."""
    source, destination = two_clusters
    made = scene(replicator, two_clusters, witness, topic_name, f"lag-{name}", queues=queues, there=there, body=body)
    parts = 4 if locals_between else 1
    numbered = [{"number": str(number)} for number in range(10)]
    for part in range(parts):
        first = part * COUNT // parts
        if body:
            witness.produce(source.name_servers, made.topic, COUNT // parts, prefix="m", first=first, with_keys=True, properties=numbered)
        else:
            witness.bulk(source.name_servers, made.topic, COUNT // parts, prefix="m", first=first, with_keys=True)
        made.process.wait_caught_up(SETTLED_SECONDS_MAX)
        if locals_between:
            witness.bulk(destination.name_servers, made.topic, 50, prefix=f"local-{part}", with_keys=True)
    everything = witness.drain(source.name_servers, made.topic, expect=COUNT)
    assert len(everything) == COUNT
    ends = Counter(row.queue for row in everything)
    copies = witness.drain(destination.name_servers, made.topic)
    there_keys = set(keys(copies))
    groups = {lag: f"{made.topic}-{lag}" for lag in lags(COUNT)}
    for lag, group in groups.items():
        made.set_behind(source, group, spread(COUNT, lag, dict(ends)))
    plan = made.process.answer_of("failover", "plan", made.task, *made.flags())
    promised = {one["group"]: sum(queue["seen_again"] for queue in one["queues"]) for one in plan["groups"]}
    exact = {one["group"]: all(queue["exact"] for queue in one["queues"]) for one in plan["groups"]}
    began = time.monotonic()
    made.moved("failover")
    took = time.monotonic() - began
    for lag, group in groups.items():
        offsets = spread(COUNT, lag, dict(ends))
        processed = {row.keys for row in everything if row.offset < offsets[row.queue]}
        seen = keys(witness.take(destination.name_servers, made.topic, group, 2 * len(copies)))
        assert len(seen) == len(set(seen))
        lost = there_keys - processed - set(seen) - {key for key in there_keys if key.startswith("local-")}
        again = set(seen) & processed
        print(f"{name}: lag {lag}: lost {len(lost)}, seen again {len(again)}, promised {promised[group]}, move {took:.1f} s")
        assert not lost
        assert exact[group]
        assert len(again) == promised[group]
        if not locals_between and not there:
            assert not again
    made.process.assert_no_traceback()
    assert made.process.stop() < 10


def test_there_and_back_again_and_again(two_clusters, witness, replicator, topic_name) -> None:
    """Round trips with producers and consumers on the side that serves: lost 0, repeated 0 over all of them."""
    source, destination = two_clusters
    made = scene(replicator, two_clusters, witness, topic_name, "trips", queues=4)
    witness.bulk(source.name_servers, made.topic, COUNT, prefix="start", with_keys=True)
    made.copied(COUNT)
    group = f"{made.topic}-pay"
    made.set_behind(source, group, dict.fromkeys(range(4), 0))
    sent = {f"start-{number}" for number in range(COUNT)}
    seen: list[str] = []
    for trip in range(TRIPS):
        for kind, cluster in (("failover", destination), ("failback", source)):
            began = time.monotonic()
            made.moved(kind)
            took = time.monotonic() - began
            prefix = f"{kind}-{trip}"
            witness.bulk(cluster.name_servers, made.topic, 100, prefix=prefix, with_keys=True)
            sent |= {f"{prefix}-{number}" for number in range(100)}
            part = keys(witness.take(cluster.name_servers, made.topic, group, 150))
            print(f"trip {trip}, {kind}: {took:.1f} s, {len(part)} taken, {len(set(part) & set(seen))} of them seen before")
            seen += part
            made.process.wait_caught_up(SETTLED_SECONDS_MAX)
    seen += keys(witness.take(source.name_servers, made.topic, group, len(sent)))
    assert [key for key, count in Counter(seen).items() if count > 1] == []
    assert set(seen) == sent
    made.process.assert_no_traceback()
    assert made.process.stop() < 10


def test_back_after_many_messages(two_clusters, witness, replicator, topic_name) -> None:
    """A failback after ``MEANWHILE`` messages were born at the other side."""
    source, destination = two_clusters
    made = scene(replicator, two_clusters, witness, topic_name, "many", queues=4)
    witness.bulk(source.name_servers, made.topic, COUNT, prefix="before", with_keys=True)
    made.copied(COUNT)
    group = f"{made.topic}-pay"
    ends = dict.fromkeys(range(4), COUNT // 4)
    made.set_behind(source, group, {queue: end - 5 for queue, end in ends.items()})
    made.moved("failover")
    filled = witness.bulk(destination.name_servers, made.topic, MEANWHILE, prefix="m", with_keys=True)
    left = 777
    tail = {one.queue: one.first_offset + one.count for one in filled}
    offsets = {queue: end - left // 4 - (queue < left % 4) for queue, end in tail.items()}
    made.set_behind(destination, group, offsets)
    began = time.monotonic()
    ended = made.moved("failback")
    took = time.monotonic() - began
    rest = keys(witness.take(source.name_servers, made.topic, group, COUNT + MEANWHILE))
    print(f"failback after {MEANWHILE} messages: {took:.1f} s; {len(rest)} left, {[one['detail'] for one in ended['steps']]}")
    assert len(rest) == len(set(rest)) == left
    assert set(rest) == {f"m-{number}" for number in range(MEANWHILE)} & set(rest)
    made.process.assert_no_traceback()
    assert made.process.stop() < 10


def synced(process, task: str, body: dict) -> str:
    """Asks for one sync; what refused it, or empty. A coordinator that was just started is asked again."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{process.port}/api/v1/tasks/{task}/groups/sync", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + SETTLED_SECONDS_MAX
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                told = json.loads(answer.read())
                return "" if told["moved"] or not told["refused"] else told["groups"][0]["queues"][0]["reason"]
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            if "lease" not in text or time.monotonic() > deadline:
                return text
        time.sleep(POLL_SECONDS)


def test_groups_that_wander(two_clusters, witness, replicator, topic_name) -> None:
    """Groups active on either side, moved at random under traffic and kill -9: lost 0; what is seen again is counted."""
    source, destination = two_clusters
    made = scene(replicator, two_clusters, witness, topic_name, "wander", queues=2, body="")
    chance = random.Random(7)
    sides = {cluster.name: cluster for cluster in two_clusters}
    groups = [f"{made.topic}-{number}" for number in range(GROUPS)]
    at = {group: chance.choice((source.name, destination.name)) for group in groups}
    witness.bulk(source.name_servers, made.topic, 200, prefix="first", with_keys=True)
    made.copied(200)
    for group in groups:
        made.set_behind(sides[at[group]], group, dict.fromkeys(range(2), 0))
    sent, ended = [f"first-{number}" for number in range(200)], threading.Event()

    def produce() -> None:
        number = 0
        while not ended.is_set():
            witness.bulk(source.name_servers, made.topic, 20, prefix=f"p{number}", with_keys=True)
            sent.extend(f"p{number}-{one}" for one in range(20))
            number += 1
            ended.wait(0.5)

    producer = threading.Thread(target=produce)
    producer.start()
    seen: dict[str, list[str]] = {group: [] for group in groups}
    moves = refusals = kills = 0
    for turn in range(1, ROUNDS + 1):
        group = chance.choice(groups)
        here = sides[at[group]]
        seen[group] += keys(witness.take(here.name_servers, made.topic, group, chance.randint(1, 40)))
        if chance.random() < 0.5:
            there = destination if here is source else source
            refused = synced(made.process, made.task, {"source": here.name, "destination": there.name, "group": group, "back": True})
            moves, refusals = moves + (not refused), refusals + bool(refused)
            if not refused:
                at[group] = there.name
        if turn % KILL_EVERY == 0:
            made.process.kill()
            made.process.start()
            made.process.wait_ready()
            kills += 1
    ended.set()
    producer.join(60)
    made.process.wait_caught_up(SETTLED_SECONDS_MAX)
    again = 0
    for group in groups:
        seen[group] += keys(witness.take(sides[at[group]].name_servers, made.topic, group, 10 * len(sent)))
        assert set(sent) - set(seen[group]) == set(), f"{group} on {at[group]} lost messages"
        again += len(seen[group]) - len(set(seen[group]))
    print(f"{GROUPS} groups, {moves} moves, {refusals} refused, {kills} kills, {len(sent)} messages: lost 0, seen again {again} in all")
    assert moves
    made.process.assert_no_traceback()
    assert made.process.stop() < 10
