"""Topics and queues that appear while the replicator runs: found within 10 s, copied from their first message.

The task starts at ``latest``, so that whatever is taken for a topic of before loses its first messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from deploy.local import LocalCluster
from tests.acceptance.process import TWO_WAY, ReplicatorProcess, cluster_yaml, task_yaml
from tests.acceptance.truth import assert_copied_exactly, of_prefix
from tests.witness.client import Witness
from tests.witness.rows import Seen

pytestmark = [pytest.mark.rocketmq, pytest.mark.timeout(180)]

FOUND_SECONDS_MAX = 10.0
POLL_SECONDS = 0.1
COPIED_SECONDS_MAX = 60.0
MESSAGES = 80
QUEUES, QUEUES_LATER = 4, 8


@dataclass
class World:
    hangzhou: LocalCluster
    shanghai: LocalCluster
    witness: Witness
    process: ReplicatorProcess
    run: str

    def topic(self, stem: str) -> str:
        return f"{self.run}-{stem}"

    def create(self, cluster: LocalCluster, stem: str, queues: int = QUEUES, **options: object) -> float:
        """Returns when the cluster had it."""
        self.witness.create_topic(cluster.name_servers, self.topic(stem), queues=queues, **options)
        return time.monotonic()

    def produce(self, cluster: LocalCluster, stem: str, round_name: str, **options: object) -> None:
        prefix = f"{cluster.name}-{round_name}"
        self.witness.produce(cluster.name_servers, self.topic(stem), MESSAGES, prefix=prefix, properties={"i": "{i}"}, **options)

    def queues(self, cluster: LocalCluster, stem: str) -> int:
        """0 where the topic does not exist."""
        if self.topic(stem) not in self.witness.topics(cluster.name_servers):
            return 0
        return len(self.witness.offsets(cluster.name_servers, self.topic(stem)))

    def copied(self, cluster: LocalCluster, stem: str) -> int:
        return sum(high - low for low, high in self.witness.offsets(cluster.name_servers, self.topic(stem)).values())

    def assert_within(self, since: float, what: str, condition: Callable[[], bool]) -> None:
        """``condition`` holds before the time to find things is over."""
        while not condition():
            seconds = time.monotonic() - since
            assert seconds < FOUND_SECONDS_MAX, f"after {seconds:.1f} s: not {what}\n{self.process.tail()}"
            time.sleep(POLL_SECONDS)
        print(f"{what}: {time.monotonic() - since:.1f} s")

    def assert_equal(self, stem: str, expect: dict[str, int]) -> None:
        """``expect``: how many were born on each cluster; both sides hold them all, copies in the order of the originals."""
        total = sum(expect.values())
        rows: dict[str, list[Seen]] = {}
        for cluster in (self.hangzhou, self.shanghai):
            rows[cluster.name] = self.witness.drain(
                cluster.name_servers, self.topic(stem), expect=total, timeout_seconds=COPIED_SECONDS_MAX
            )
        self.process.wait_caught_up(COPIED_SECONDS_MAX)
        for here, there in ((self.hangzhou, self.shanghai), (self.shanghai, self.hangzhou)):
            rows[here.name] = self.witness.drain(here.name_servers, self.topic(stem), expect=total)
            assert len(rows[here.name]) == total
            born = of_prefix(rows[here.name], here.name)
            assert len(born) == expect[here.name]
            assert_copied_exactly(born, of_prefix(rows[there.name], here.name), {"origin": here.name})


@pytest.fixture(scope="module")
def world(two_clusters, witness, module_replicator, topic_name) -> World:
    """A running task with one topic that was there before, with messages that its start leaves out."""
    hangzhou, shanghai = two_clusters
    run = topic_name("later")
    documents = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in two_clusters]
    process = module_replicator(*documents, task_yaml("later", f"{run}-*", TWO_WAY, start="latest"))
    made = World(hangzhou, shanghai, witness, process, run)
    made.create(hangzhou, "before")
    made.produce(hangzhou, "before", "left-out")
    process.start()
    process.wait_ready()
    process.wait_topic(witness, shanghai.name_servers, made.topic("before"))
    process.wait_caught_up(COPIED_SECONDS_MAX)
    return made


def test_start_at_latest_leaves_out_what_was_there_before(world) -> None:
    assert world.copied(world.hangzhou, "before") == MESSAGES
    assert world.copied(world.shanghai, "before") == 0


def test_topic_exists_on_the_other_side_before_the_first_send(world) -> None:
    created = world.create(world.hangzhou, "empty")
    world.assert_within(created, "empty topic on the other side", lambda: world.queues(world.shanghai, "empty") == QUEUES)
    world.process.wait_caught_up(COPIED_SECONDS_MAX)
    # Both ways are ready before anybody sent anything.
    for cluster in (world.hangzhou, world.shanghai):
        world.produce(cluster, "empty", "first")
    world.assert_equal("empty", {"hangzhou": MESSAGES, "shanghai": MESSAGES})


@pytest.mark.parametrize(("here", "there"), [("hangzhou", "shanghai"), ("shanghai", "hangzhou")])
def test_topic_with_messages_that_appears_later_is_copied_from_its_first(world, here, there) -> None:
    source, destination, stem = getattr(world, here), getattr(world, there), f"sudden-{here}"
    created = world.create(source, stem)
    world.produce(source, stem, "first")
    world.assert_within(created, f"topic of {here} found", lambda: world.queues(destination, stem) == QUEUES)
    world.produce(source, stem, "second")
    world.assert_equal(stem, {here: 2 * MESSAGES, there: 0})


def test_several_topics_at_once(world) -> None:
    stems = [f"many-{number}" for number in range(4)]
    for stem in stems:
        created = world.create(world.hangzhou, stem, queues=1)
        world.produce(world.hangzhou, stem, stem)
    for stem in stems:
        world.assert_within(created, f"{stem} found", lambda stem=stem: world.queues(world.shanghai, stem) == 1)
    for stem in stems:
        world.assert_equal(stem, {"hangzhou": MESSAGES, "shanghai": 0})


@pytest.mark.parametrize("ordered", [False, True])
def test_growth_of_a_source_topic(world, ordered) -> None:
    """4 queues become 8: the destination follows, and the new queues are copied from their first message, both ways."""
    stem = "grown-ordered" if ordered else "grown"
    kind = {"kind": "ordered", "ordering_keys": 40} if ordered else {}
    created = world.create(world.hangzhou, stem, order=ordered)
    world.produce(world.hangzhou, stem, "small", **kind)
    world.assert_within(created, f"{stem} found", lambda: world.queues(world.shanghai, stem) == QUEUES)
    grown = world.create(world.hangzhou, stem, queues=QUEUES_LATER, order=ordered)
    world.produce(world.hangzhou, stem, "large", **kind)
    assert len({row.queue for row in world.witness.drain(world.hangzhou.name_servers, world.topic(stem))}) == QUEUES_LATER
    world.assert_within(grown, f"{stem} grown", lambda: world.queues(world.shanghai, stem) == QUEUES_LATER)
    world.produce(world.shanghai, stem, "back", **kind)
    world.assert_equal(stem, {"hangzhou": 2 * MESSAGES, "shanghai": MESSAGES})
