"""Shapes of tasks over three real clusters, all in one replicator: each message once on every cluster it should reach.

One process carries all shapes at the same time, each over a topic of its own; the tests look at what stands in the logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from deploy.local import LocalCluster
from tests.acceptance.process import ReplicatorProcess, cluster_yaml, one_way, task_yaml
from tests.acceptance.test_bad_input import replicator as command
from tests.acceptance.truth import assert_copied_exactly, of_prefix, stamp_of
from tests.integration.conftest import PATIENT
from tests.witness.client import Witness
from tests.witness.rows import Seen

pytestmark = [pytest.mark.rocketmq, pytest.mark.timeout(240)]

QUEUES = 2
MESSAGES = 60
"""Born on each cluster that a shape begins on, in each topic."""
BATCHED = 20
"""Of these, sent in batches."""
HANGZHOU, SHANGHAI, BEIJING = NAMES = ("hangzhou", "shanghai", "beijing")
RING = PAIRS = ((HANGZHOU, SHANGHAI), (SHANGHAI, BEIJING), (BEIJING, HANGZHOU))
PROPERTIES = [
    {"region": "cn", "amount": "50", "level": "1", "ключ": "значение {i}"},
    {"region": "eu", "amount": "500", "level": "2", "one-letter": "x"},
    {"region": "eu", "amount": "99", "level": "1", "i": "{i}"},
]
"""Gone through in turn: a third in region cn, another third with an amount over 100."""
MESH = f"  mode: two-way\n  clusters: [{', '.join(NAMES)}]\n"
GOLD = """  tags:
    - {key: origin, value: "{origin}"}
    - {key: tier, value: "gold-{source}-{topic}", when: {topic: "*-pattern-pay*", property: {name: level, equals: "1"}}}
"""


@dataclass
class World:
    clusters: dict[str, LocalCluster]
    witness: Witness
    process: ReplicatorProcess
    run: str
    status: dict[str, Any]

    def topic(self, stem: str) -> str:
        return f"{self.run}-{stem}"

    def rows(self, cluster: str, stem: str, expect: int) -> list[Seen]:
        """Everything that stands there; fails if it is not as many as expected."""
        found = self.witness.drain(self.clusters[cluster].name_servers, self.topic(stem), expect=expect)
        assert len(found) == expect, f"{cluster}, {stem}: {len(found)} instead of {expect}"
        return found

    def topics(self, cluster: str) -> set[str]:
        return {topic for topic in self.witness.topics(self.clusters[cluster].name_servers) if topic.startswith(self.run)}

    def flow(self, task: str, source: str, destination: str) -> dict[str, Any]:
        flows: list[dict[str, Any]] = next(one["flows"] for one in self.status["tasks"] if one["name"] == task)
        return next(one for one in flows if (one["source"], one["destination"]) == (source, destination))

    def assert_flow(self, task: str, source: str, destination: str, *, copied: int, **skipped: int) -> None:
        flow = self.flow(task, source, destination)
        skips = {reason: count for reason, count in flow["skipped_total"].items() if count}
        assert (flow["copied_total"], skips, flow["parked"]) == (copied, skipped, 0), flow


def documents(run: str) -> Iterator[str]:
    """All tasks."""
    yield task_yaml("fan", f"{run}-fan", one_way(HANGZHOU, SHANGHAI, BEIJING))
    for source in (HANGZHOU, SHANGHAI):
        yield task_yaml(f"join-{source}", f"{run}-join", one_way(source, BEIJING))
    yield task_yaml("rename", f"{run}-old", one_way(HANGZHOU, SHANGHAI), topics=f"rename: {{{run}-old: {run}-new}}")
    for source, destination in RING:
        yield task_yaml(f"ring-{source}", f"{run}-ring", one_way(source, destination))
        yield task_yaml(f"round-{source}", f"{run}-round", one_way(source, destination, relay=True))
    yield task_yaml("mesh", f"{run}-mesh", MESH)
    for one, other in PAIRS:
        yield task_yaml(f"pair-{one}", f"{run}-pairs", f"  mode: two-way\n  clusters: [{one}, {other}]\n")
    for stem, relay in (("chain", True), ("stop", False)):
        yield task_yaml(f"{stem}-first", f"{run}-{stem}", one_way(HANGZHOU, SHANGHAI))
        yield task_yaml(f"{stem}-second", f"{run}-{stem}", one_way(SHANGHAI, BEIJING, relay=relay))
    yield task_yaml("again", f"{run}-again", f"  mode: two-way\n  clusters: [{HANGZHOU}, {SHANGHAI}]\n")
    yield task_yaml("again-on", f"{run}-again", one_way(SHANGHAI, BEIJING))
    yield task_yaml("filter", f"{run}-filter", one_way(HANGZHOU, SHANGHAI) + "  filter: \"region = 'cn' OR amount > 100\"\n")
    yield task_yaml("pattern", f"{run}-pattern-*", one_way(SHANGHAI, HANGZHOU) + GOLD, topics=f'exclude: ["{run}-pattern-own*"]')


BORN = {
    HANGZHOU: ("fan", "join", "old", "ring", "round", "mesh", "pairs", "chain", "stop", "again", "filter"),
    SHANGHAI: ("join", "ring", "round", "mesh", "pairs", "pattern-pay", "pattern-pay-b", "pattern-orders", "pattern-own", "pattern-own-b"),
    BEIJING: ("ring", "round", "mesh", "pairs"),
}
"""Where the messages of each topic are sent. All but the mesh's topic exist there from the beginning."""
COPIES = MESSAGES * (2 + 2 + 1 + 3 + 6 + 6 + 6 + 2 + 1 + 1 + 3) + MESSAGES * 2 // 3
"""Of fan, join, rename, ring, round, mesh, pairs, chain, stop, again, pattern; and of filter."""


@pytest.fixture(scope="module")
def three_clusters(two_clusters) -> Iterator[dict[str, LocalCluster]]:
    with LocalCluster(BEIJING, broker_properties=PATIENT) as beijing:
        yield {cluster.name: cluster for cluster in (*two_clusters, beijing)}


@pytest.fixture(scope="module")
def world(three_clusters, witness, module_replicator, topic_name) -> World:
    run = topic_name("shapes")
    process = module_replicator(*(cluster_yaml(name, one.name_servers) for name, one in three_clusters.items()), *documents(run))
    made = World(three_clusters, witness, process, run, {})

    def create(name: str) -> None:
        for stem in BORN[name]:
            if stem != "mesh" or name == HANGZHOU:
                witness.create_topic(three_clusters[name].name_servers, made.topic(stem), queues=QUEUES)

    def produce(name: str) -> None:
        servers = three_clusters[name].name_servers
        for stem in sorted(BORN[name], key=lambda stem: stem == "mesh"):
            if stem == "mesh":
                process.wait_topic(witness, servers, made.topic(stem))
            for kind, first, count in (("normal", 0, MESSAGES - BATCHED), ("batch", MESSAGES - BATCHED, BATCHED)):
                witness.produce(
                    servers, made.topic(stem), count, kind=kind, first=first, prefix=f"{name}-{stem}", properties=PROPERTIES, tags="TagA",
                    batch_size=5,
                )  # fmt: skip

    with ThreadPoolExecutor(len(NAMES)) as pool:
        list(pool.map(create, NAMES))
        process.start()
        process.wait_ready()
        list(pool.map(produce, NAMES))
    made.status = process.wait_caught_up(120, copied_at_least=COPIES)
    return made


def test_nothing_more_than_expected_was_copied(world) -> None:
    assert sum(flow["copied_total"] for task in world.status["tasks"] for flow in task["flows"]) == COPIES


def test_one_source_to_many(world) -> None:
    born = world.rows(HANGZHOU, "fan", MESSAGES)
    for name in (SHANGHAI, BEIJING):
        assert_copied_exactly(born, world.rows(name, "fan", MESSAGES), {"origin": HANGZHOU})
        world.assert_flow("fan", HANGZHOU, name, copied=MESSAGES)


def test_many_sources_into_one_topic(world) -> None:
    copies = world.rows(BEIJING, "join", 2 * MESSAGES)
    for name in (HANGZHOU, SHANGHAI):
        assert_copied_exactly(world.rows(name, "join", MESSAGES), of_prefix(copies, name), {"origin": name})
        world.assert_flow(f"join-{name}", name, BEIJING, copied=MESSAGES)


def test_renamed_topic(world) -> None:
    assert_copied_exactly(world.rows(HANGZHOU, "old", MESSAGES), world.rows(SHANGHAI, "new", MESSAGES), {"origin": HANGZHOU})
    assert world.topic("old") not in world.topics(SHANGHAI)
    assert world.topic("new") not in world.topics(HANGZHOU)


def test_ring_without_relay_goes_one_step(world) -> None:
    rows = {name: world.rows(name, "ring", 2 * MESSAGES) for name in NAMES}
    for source, destination in RING:
        assert_copied_exactly(of_prefix(rows[source], source), of_prefix(rows[destination], source), {"origin": source})
        world.assert_flow(f"ring-{source}", source, destination, copied=MESSAGES, loop=MESSAGES)


def test_ring_with_relay_goes_all_round_and_stops_before_home(world) -> None:
    rows = {name: world.rows(name, "round", 3 * MESSAGES) for name in NAMES}
    for (source, destination), (_, last) in zip(RING, (*RING[1:], RING[0]), strict=True):
        tag = {"origin": source}
        assert_copied_exactly(of_prefix(rows[source], source), of_prefix(rows[destination], source), tag)
        assert_copied_exactly(of_prefix(rows[destination], source), of_prefix(rows[last], source), tag)
        world.assert_flow(f"round-{source}", source, destination, copied=2 * MESSAGES, loop=MESSAGES)


def test_mesh_of_three_tasks(world) -> None:
    """Each task sees the copies of the two others on both its clusters, and carries none of them on."""
    rows = {name: world.rows(name, "pairs", 3 * MESSAGES) for name in NAMES}
    for pair in PAIRS:
        for source, destination in (pair, pair[::-1]):
            assert_copied_exactly(of_prefix(rows[source], source), of_prefix(rows[destination], source), {"origin": source})
            world.assert_flow(f"pair-{pair[0]}", source, destination, copied=MESSAGES, loop=2 * MESSAGES)


def test_mesh(world) -> None:
    rows = {name: world.rows(name, "mesh", 3 * MESSAGES) for name in NAMES}
    for source in NAMES:
        for destination in set(NAMES) - {source}:
            assert_copied_exactly(of_prefix(rows[source], source), of_prefix(rows[destination], source), {"origin": source})
            world.assert_flow("mesh", source, destination, copied=MESSAGES, loop=2 * MESSAGES)


def test_chain_with_relay(world) -> None:
    born, middle, end = (world.rows(name, "chain", MESSAGES) for name in NAMES)
    tag = {"origin": HANGZHOU}
    assert_copied_exactly(born, middle, tag)
    assert_copied_exactly(middle, end, tag)
    by_keys = {row.keys: row for row in born}
    for copy in end:
        stamp = stamp_of(copy)
        assert stamp.origin is not None
        assert stamp.origin.place.cluster_id == stamp_of(middle[0]).hop.place.cluster_id
        assert stamp.origin.place.queue.queue_id == by_keys[copy.keys].queue
        assert stamp.origin.offset == by_keys[copy.keys].offset
    world.assert_flow("chain-second", SHANGHAI, BEIJING, copied=MESSAGES)


def test_without_relay_the_copy_stops(world) -> None:
    born, middle = (world.rows(name, "stop", MESSAGES) for name in (HANGZHOU, SHANGHAI))
    assert_copied_exactly(born, middle, {"origin": HANGZHOU})
    assert world.rows(BEIJING, "stop", 0) == []
    world.assert_flow("stop-second", SHANGHAI, BEIJING, copied=0, loop=MESSAGES)


def test_filter_copies_what_matches_and_counts_the_rest(world) -> None:
    born = world.rows(HANGZHOU, "filter", MESSAGES)
    matching = [row for row in born if row.user_properties["region"] == "cn" or int(row.user_properties["amount"]) > 100]
    assert 0 < len(matching) < MESSAGES
    assert_copied_exactly(matching, world.rows(SHANGHAI, "filter", len(matching)), {"origin": HANGZHOU})
    world.assert_flow("filter", HANGZHOU, SHANGHAI, copied=len(matching), filtered=MESSAGES - len(matching))


def test_pattern_copies_its_topics_and_not_the_excluded_ones(world) -> None:
    for stem in ("pattern-pay", "pattern-pay-b", "pattern-orders"):
        born, copies = (world.rows(name, stem, MESSAGES) for name in (SHANGHAI, HANGZHOU))
        gold = {row.keys for row in born if row.user_properties["level"] == "1" and "pay" in stem}
        assert {row.keys for row in copies if "tier" in row.user_properties} == gold
        for wanted, tag in ((True, {"tier": f"gold-{SHANGHAI}-{world.topic(stem)}"}), (False, {})):
            chosen, arrived = ([row for row in rows if (row.keys in gold) is wanted] for rows in (born, copies))
            if chosen:
                assert_copied_exactly(chosen, arrived, {"origin": SHANGHAI, **tag})
    assert {topic for topic in world.topics(HANGZHOU) if "pattern" in topic} == {
        world.topic(stem) for stem in ("pattern-pay", "pattern-pay-b", "pattern-orders")
    }


def test_republished_copy_is_born_where_it_was_published(world) -> None:
    """An application on shanghai sends copies again with all their properties: once into the queue the copy stands in, once
    into the other one. The copies themselves never reach beijing; what is sent again does, and goes to hangzhou too."""
    first = world.rows(HANGZHOU, "again", MESSAGES)
    copies = world.rows(SHANGHAI, "again", MESSAGES)
    assert_copied_exactly(first, copies, {"origin": HANGZHOU})
    servers, topic = world.clusters[SHANGHAI].name_servers, world.topic("again")
    per_queue = 10
    for queue in range(QUEUES):
        chosen = [row for row in copies if row.queue == queue][:per_queue]
        # Keys of their own, so that each message can be told from all others.
        properties = [{name: value for name, value in row.properties.items() if name != "KEYS"} for row in chosen]
        for target in range(QUEUES):
            prefix = f"{SHANGHAI}-{queue}-{target}"
            world.witness.produce(servers, topic, per_queue, prefix=prefix, properties=properties, queue=target)
    sent = QUEUES * QUEUES * per_queue
    total = COPIES + 2 * sent
    status = world.process.wait_caught_up(60, copied_at_least=total)
    assert sum(flow["copied_total"] for task in status["tasks"] for flow in task["flows"]) == total
    born = of_prefix(world.rows(SHANGHAI, "again", MESSAGES + sent), SHANGHAI)
    assert len(born) == sent
    assert {stamp_of(row).origin_cluster_id for row in born} == {stamp_of(copies[0]).origin_cluster_id}, "sent with the stamp"
    assert_copied_exactly(born, world.rows(BEIJING, "again", sent), {"origin": SHANGHAI})
    assert_copied_exactly(born, of_prefix(world.rows(HANGZHOU, "again", MESSAGES + sent), SHANGHAI), {"origin": SHANGHAI})


REFUSED = {
    "diamond": (MESH + "  relay: true\n", "", ["would reach", "twice", "relay: false"]),
    "overlap": (one_way(HANGZHOU, BEIJING), "fan", ["tasks fan and wrong both copy", "from hangzhou to beijing", "exclude"]),
    "second way": (one_way(SHANGHAI, BEIJING, relay=True), "fan", ["would reach beijing twice", "task fan"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_graph_in_which_a_message_could_arrive_twice_is_refused(world, tmp_path, kind) -> None:
    body, stem, said = REFUSED[kind]
    file = tmp_path / "wrong.yaml"
    file.write_text(task_yaml("wrong", world.topic(stem or "nobody"), body))
    result = command("apply", "-f", file, environment={"REPLICATOR_URL": f"http://127.0.0.1:{world.process.port}"})
    assert result.returncode == 4, result.stdout + result.stderr
    assert [words for words in said if words not in result.stderr] == [], result.stderr
    assert "wrong" not in [task["name"] for task in world.process.status()["tasks"]]
