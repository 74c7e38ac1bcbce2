"""The runbooks of docs/operations.md, read from that page and carried out step by step on real clusters.

The page says what an operator types; the test does what happens around it: traffic, consumers, a region that goes and comes back.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.local import LocalCluster, running_clusters, start_clusters, stop_clusters
from tests.acceptance.process import ReplicatorProcess
from tests.faults.test_history_real import copy_store, store_of
from tests.integration.conftest import PATIENT

pytestmark = [pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(400)]
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
QUEUES = 2
COUNT = 400
STEP_SECONDS_MAX = 150
_BLOCK = re.compile(r"<!-- (step|file): (\S+) -->\n```\w+\n(.*?)```", re.S)


def blocks(kind: str) -> dict[str, str]:
    return {name: text for found, name, text in _BLOCK.findall(PAGE.read_text(encoding="utf-8")) if found == kind}


@pytest.fixture(scope="module")
def regions():
    hangzhou, shanghai = LocalCluster("hangzhou", broker_properties=PATIENT), LocalCluster("shanghai", broker_properties=PATIENT)
    with running_clusters(hangzhou, shanghai):
        yield hangzhou, shanghai


class Runbook:
    """One of the page's: its files written for these clusters, its steps in a shell where ``replicator`` is this one."""

    def __init__(self, name: str, folder: Path, regions, topic: str, files_of: str | None = None) -> None:
        """``files_of``: the runbook whose files it uses."""
        self.name = name
        self.files_of = files_of or name
        self.folder = folder
        self.left = [step for step in blocks("step") if step.startswith(f"{name}/")]
        self.topic = topic
        self.write("orders.yaml", HANGZHOU=regions[0].name_servers, SHANGHAI=regions[1].name_servers)
        self.process = ReplicatorProcess(folder / "orders.yaml", folder / "data")
        programs = folder / "bin"
        programs.mkdir()
        script = programs / "replicator"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m replicator "$@"\n')
        script.chmod(0o755)
        url = f"http://127.0.0.1:{self.process.port}"
        self.environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "REPLICATOR_URL": url}

    def write(self, name: str, **words: str) -> None:
        """A file of the page, with these words of it replaced."""
        text = blocks("file")[f"{self.files_of}/{name}"]
        for word, value in {**words, "TOPIC": self.topic}.items():
            assert word in text
            text = text.replace(word, value)
        (self.folder / name).write_text(text)

    def step(self, name: str) -> str:
        """In the page's order, each once; returns what the commands printed."""
        wanted = f"{self.name}/{name}"
        assert self.left[:1] == [wanted], self.left
        self.left.pop(0)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", blocks("step")[wanted]], cwd=self.folder, env=self.environment, capture_output=True,
            text=True, timeout=STEP_SECONDS_MAX, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{wanted}:\n{done.stdout}\n{done.stderr}\n{self.process.tail()}"
        return done.stdout


@pytest.fixture
def runbook_of(tmp_path, topic_name):
    made: list[Runbook] = []

    def make(name: str, clusters, files_of: str | None = None) -> tuple[Runbook, str]:
        topic = topic_name(name)
        book = Runbook(name, tmp_path, clusters, topic, files_of)
        made.append(book)
        return book, topic

    yield make
    for book in made:
        book.process.end()


@pytest.fixture
def runbook(runbook_of, regions):
    return lambda name, **more: runbook_of(name, regions, **more)


def keys(rows) -> set[str]:
    found = [row.keys for row in rows]
    assert len(found) == len(set(found)), "one of them twice"
    return set(found)


def begin(witness, cluster, topic: str, group: str) -> None:
    witness.create_group(cluster.name_servers, group)
    for queue in range(QUEUES):
        witness.set_progress(cluster.name_servers, topic, group, 0, broker=cluster.broker_names[0], queue=queue)


def away(cluster: LocalCluster) -> None:
    cluster.kill_broker()
    cluster.kill_name_server()


def back(cluster: LocalCluster) -> None:
    cluster.start_name_server()
    cluster.start_broker()


def test_every_step_of_the_page_is_in_a_runbook_that_is_tried() -> None:
    assert {name.partition("/")[0] for name in blocks("file")} == {"geo", "anew", "active", "centre"}
    assert {name.partition("/")[0] for name in blocks("step")} == {"geo", "tail", "anew", "active", "centre"}


def test_geo_disaster_recovery(regions, witness, runbook) -> None:
    hangzhou, shanghai = regions
    book, topic = runbook("geo")
    witness.create_topic(hangzhou.name_servers, topic, queues=QUEUES)
    book.process.start()
    book.process.wait_ready()
    book.step("declare")
    witness.bulk(hangzhou.name_servers, topic, COUNT, prefix="m", with_keys=True)
    book.process.wait_caught_up(60, copied_at_least=COUNT)
    group = f"{topic}-pay"
    begin(witness, hangzhou, topic, group)
    processed = keys(witness.take(hangzhou.name_servers, topic, group, 150))
    book.step("rehearse")
    wait_progress(book, group, "hangzhou", "shanghai", 150)
    away(hangzhou)
    said = book.step("failover")
    assert "WARNS: hangzhou cannot be reached" in said
    here = keys(witness.take(shanghai.name_servers, topic, group, 100))
    assert not here & processed
    processed |= here
    witness.bulk(shanghai.name_servers, topic, 60, prefix="meanwhile", with_keys=True)
    back(hangzhou)
    book.process.wait_flow("running again", lambda flow: flow["state"] == "running", 90, source="hangzhou")
    said = book.step("failback")
    assert "task orders-back-shanghai was deleted" in said
    rest = keys(witness.take(hangzhou.name_servers, topic, group, 2 * COUNT))
    assert not rest & processed
    assert processed | rest == {f"m-{n}" for n in range(COUNT)} | {f"meanwhile-{n}" for n in range(60)}
    book.process.assert_no_traceback()
    assert book.left == [], "steps of the runbook that nobody tried"


KEPT, LOST, NEW, ABROAD = 60, 50, 7, 20


def numbered(prefix: str, count: int) -> set[str]:
    return {f"{prefix}-{number}" for number in range(count)}


@pytest.mark.long
def test_a_region_that_came_back_without_its_newest_messages(regions, witness, runbook, tmp_path) -> None:
    hangzhou, shanghai = regions
    book, topic = runbook("tail", files_of="geo")
    witness.create_topic(hangzhou.name_servers, topic, queues=QUEUES)
    book.process.start()
    book.process.wait_ready()
    group = f"{topic}-pay"
    witness.bulk(hangzhou.name_servers, topic, KEPT, prefix="kept", batch_size=7, with_keys=True)
    book.process.wait_caught_up(60, copied_at_least=KEPT)
    store, older = store_of(hangzhou), tmp_path / "older"
    hangzhou.kill_broker()
    copy_store(store, older)
    hangzhou.start_broker()
    witness.bulk(hangzhou.name_servers, topic, LOST, prefix="lost", batch_size=7, with_keys=True)
    book.process.wait_caught_up(90, copied_at_least=KEPT + LOST)
    begin(witness, hangzhou, topic, group)
    processed = keys(witness.take(hangzhou.name_servers, topic, group, 30))
    wait_progress(book, group, "hangzhou", "shanghai", 30)
    hangzhou.kill_broker()
    sides = ("--failed", "hangzhou", "--destination", "shanghai")
    assert book.process.command("failover", "run", "orders", *sides, "--yes").returncode == 0
    processed |= new_of(keys(witness.take(shanghai.name_servers, topic, group, 45)), processed)
    witness.bulk(shanghai.name_servers, topic, ABROAD, prefix="abroad", with_keys=True)
    processed |= new_of(keys(witness.take(shanghai.name_servers, topic, group, 10)), processed)

    shutil.rmtree(store)
    copy_store(older, store)
    hangzhou.start_broker()
    witness.bulk(hangzhou.name_servers, topic, NEW, prefix="new", with_keys=True)
    book.process.wait_flow("stopped", lambda flow: flow["state"] == "stopped-history-change", 60, source="hangzhou")
    plan = book.process.answer_of("failback", "plan", "orders", *sides, "--restore")
    assert [one["name"] for one in plan["blockers"] if one["severity"] == "blocks"] == ["loss-not-known"]
    assert book.process.command("failback", "run", "orders", *sides, "--restore", "--yes").returncode == 4
    said = book.step("differ")
    assert "gives up nothing" in said
    book.process.wait_caught_up(60, copied_at_least=KEPT + LOST + NEW)
    said = book.step("failback")
    assert f"WARNS: {LOST} messages go back to hangzhou" in said
    assert f"restore: {LOST} messages of {QUEUES} queues that hangzhou has lost go back to it" in said

    everything = numbered("kept", KEPT) | numbered("lost", LOST) | numbered("new", NEW) | numbered("abroad", ABROAD)
    home = witness.drain(hangzhou.name_servers, topic, expect=len(everything))
    abroad = witness.drain(shanghai.name_servers, topic, expect=len(everything))
    assert keys(home) == keys(abroad) == everything
    born, sent_back = ([row for row in rows if row.keys.startswith("lost-")] for rows in (abroad, home))
    assert not any("origin" in row.user_properties for row in sent_back), "as they were where they were born"
    assert {row.keys: row.sha256 for row in sent_back} == {row.keys: row.sha256 for row in born}
    rest = keys(witness.take(hangzhou.name_servers, topic, group, len(everything)))
    assert processed | rest == everything, "lost"
    print(f"{len(processed & rest)} of {len(processed)} processed messages seen again, of {LOST} sent back")
    latest = set()
    for queue in range(QUEUES):
        here = [row.keys for row in sorted(home, key=lambda row: row.place) if row.place[1] == queue]
        latest |= set(here[next(index for index, key in enumerate(here) if key not in processed):])
    assert rest == latest, "from the first message on that was not processed, in each queue"
    assert book.process.answer_of("failback", "plan", "orders", *sides)["lost"]["messages"] == 0
    book.process.assert_no_traceback()
    assert book.left == [], "steps of the runbook that nobody tried"


@pytest.mark.long
def test_a_region_that_is_gone_for_good(witness, runbook_of, topic_name) -> None:
    hangzhou, shanghai, anew = (LocalCluster(name, broker_properties=PATIENT) for name in ("hangzhou", "shanghai", "hangzhou-2"))
    start_clusters(hangzhou, shanghai, anew)
    try:
        book, topic = runbook_of("anew", (hangzhou, shanghai))
        witness.create_topic(hangzhou.name_servers, topic, queues=QUEUES)
        book.process.start()
        book.process.wait_ready()
        group = f"{topic}-pay"
        witness.bulk(hangzhou.name_servers, topic, COUNT, prefix="m", with_keys=True)
        book.process.wait_caught_up(60, copied_at_least=COUNT)
        begin(witness, hangzhou, topic, group)
        processed = keys(witness.take(hangzhou.name_servers, topic, group, 150))
        wait_progress(book, group, "hangzhou", "shanghai", 150)
        stop_clusters(hangzhou)
        book.step("failover")
        processed |= new_of(keys(witness.take(shanghai.name_servers, topic, group, 100)), processed)
        witness.bulk(shanghai.name_servers, topic, 60, prefix="meanwhile", with_keys=True)
        book.write("home.yaml", NEW_REGION=anew.name_servers)
        book.step("declare")
        arrived = {f"m-{n}" for n in range(COUNT)} | {f"meanwhile-{n}" for n in range(60)}
        count = len(arrived)
        book.process.wait_flow("home", lambda flow: (flow["copied_total"], flow["lag_messages"]) == (count, 0), 60, source="shanghai")
        rows = witness.drain(anew.name_servers, topic, expect=len(arrived))
        assert keys(rows) == arrived
        assert {row.keys.partition("-")[0]: row.user_properties["origin"] for row in rows} == {"m": "hangzhou", "meanwhile": "shanghai"}
        book.step("home")
        processed |= new_of(keys(witness.take(anew.name_servers, topic, group, 90)), processed)
        witness.bulk(anew.name_servers, topic, 30, prefix="after", with_keys=True)
        arrived |= {f"after-{n}" for n in range(30)}
        processed |= new_of(keys(witness.take(anew.name_servers, topic, group, 2 * COUNT)), processed)
        assert processed == arrived
        assert keys(witness.drain(shanghai.name_servers, topic, expect=len(arrived))) == arrived
        wait_progress(book, group, "hangzhou-2", "shanghai", len(arrived), task="orders-again")
        book.step("forget")
        book.process.assert_no_traceback()
        assert book.left == [], "steps of the runbook that nobody tried"
    finally:
        stop_clusters(hangzhou, shanghai, anew)


def new_of(found: set[str], before: set[str]) -> set[str]:
    assert not found & before, "seen again"
    return found


def wait_progress(book, group: str, source: str, destination: str, count: int, *, task: str = "orders") -> None:
    """Until the coordinator has read that the group processed ``count`` messages at the source and has carried it over."""
    deadline = time.monotonic() + 60
    while True:
        rows = book.process.answer_of("groups", "list", task, "--source", source, "--destination", destination)["groups"]
        offsets = [(row["source_offsets"], row["destination_offsets"]) for row in rows if row["group"] == group]
        if offsets and sum((offsets[0][0] or {}).values()) == count and offsets[0][1]:
            return
        assert time.monotonic() < deadline, f"{offsets}\n{book.process.tail()}"
        time.sleep(0.5)


def consumed(book, witness, cluster, topic: str, group: str, expression: str, count: int) -> set[str]:
    """What a push consumer saw until nothing was left for it and its last commit was there."""
    with witness.start_consumer(cluster.name_servers, topic, group, expression=expression, expression_type="SQL92") as consumer:
        consumer.wait(expect=count, timeout_seconds=90)
        end = sum(highest for _, highest in witness.offsets(cluster.name_servers, topic).values())
        deadline = time.monotonic() + 60
        while sum(one.consumer_offset for one in witness.consumer_progress(cluster.name_servers, group, topic)) < end:
            assert time.monotonic() < deadline, book.process.tail()
            time.sleep(0.5)
    return keys(consumer.seen)


@pytest.mark.long
def test_active_geo_redundancy(regions, witness, runbook) -> None:
    hangzhou, shanghai = regions
    book, topic = runbook("active")
    for cluster in regions:
        witness.create_topic(cluster.name_servers, topic, queues=QUEUES)
    book.process.start()
    book.process.wait_ready()
    book.step("declare")
    for cluster in regions:
        witness.bulk(cluster.name_servers, topic, COUNT, prefix=cluster.name, with_keys=True)
    book.process.wait_caught_up(60, copied_at_least=2 * COUNT)
    group, local = f"{topic}-pay", "origin IS NULL"
    for cluster in regions:
        begin(witness, cluster, topic, group)
        seen = consumed(book, witness, cluster, topic, group, local, COUNT)
        assert seen == {f"{cluster.name}-{n}" for n in range(COUNT)}
    witness.bulk(hangzhou.name_servers, topic, 100, prefix="late", with_keys=True)
    book.process.wait_caught_up(60, copied_at_least=2 * COUNT + 100)
    settled = time.monotonic() + 12  # two intervals: the last thing that was read before the region went
    while time.monotonic() < settled:
        time.sleep(0.5)
    away(hangzhou)
    said = book.step("failover")
    second = f"{group}-of-hangzhou"
    assert second in said
    assert "origin = 'hangzhou'" in said
    taken = consumed(book, witness, shanghai, topic, second, "origin = 'hangzhou'", 100)
    assert taken == {f"late-{n}" for n in range(100)}
    back(hangzhou)
    book.process.wait_flow("running again", lambda flow: flow["state"] == "running", 90, source="hangzhou")
    witness.bulk(hangzhou.name_servers, topic, 40, prefix="after", with_keys=True)
    book.process.wait_caught_up(60)
    said = book.step("failback")
    assert f"group {group} goes on behind what {second} processed" in said
    rest = consumed(book, witness, hangzhou, topic, group, local, 40)
    assert rest == {f"after-{n}" for n in range(40)}
    witness.bulk(shanghai.name_servers, topic, 30, prefix="own", with_keys=True)
    assert consumed(book, witness, shanghai, topic, group, local, 30) == {f"own-{n}" for n in range(30)}
    book.process.assert_no_traceback()
    assert book.left == [], "steps of the runbook that nobody tried"


@pytest.mark.long
def test_aggregation(regions, witness, runbook) -> None:
    hangzhou, shanghai = regions
    book, topic = runbook("centre")
    witness.create_topic(hangzhou.name_servers, topic, queues=QUEUES)
    book.process.start()
    book.process.wait_ready()
    book.step("declare")
    witness.bulk(hangzhou.name_servers, topic, COUNT, prefix="m", with_keys=True)
    book.process.wait_caught_up(60, copied_at_least=COUNT)
    said = book.step("leave-out")
    assert "paused" in said
    assert "resumed" in said
    witness.bulk(hangzhou.name_servers, topic, 50, prefix="later", with_keys=True)
    book.process.wait_caught_up(60, copied_at_least=COUNT + 50)
    arrived = witness.drain(shanghai.name_servers, topic, expect=COUNT + 50)
    assert keys(arrived) == {f"m-{n}" for n in range(COUNT)} | {f"later-{n}" for n in range(50)}
    assert {row.user_properties["origin"] for row in arrived} == {"hangzhou"}
    book.process.assert_no_traceback()
    assert book.left == [], "steps of the runbook that nobody tried"
