"""``retry: true``: the topics of groups are found, made and assigned, and progress waits for what is not copied yet."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from connectors.memory import MemoryCluster, factory
from replicator.coordinator import retries as finding
from replicator.coordinator.progress import retries
from replicator.coordinator.service import Coordinator
from replicator.core.connector import ConnectorContext
from replicator.core.groups import GroupSettings
from replicator.core.ownership import IDLE_INTERVALS_MIN
from replicator.core.task import Cluster, ProgressSpec
from replicator.store.memory import MemoryStore
from tests.unit.coordinator.conftest import INSTANCE, one_way, two_way
from tests.unit.coordinator.progress.conftest import GroupedConnector, Groups, GroupWorld

LEVELS = 3
WAITING, RETRY, DEAD = "%WAITING%pay", "%RETRY%pay", "%DLQ%pay"


class RetryingConnector(GroupedConnector):
    memory: MemoryCluster

    async def retry_topics(self, groups):
        names = await self.list_topics()
        return [topic for group in groups for topic in (f"%WAITING%{group}", f"%DLQ%{group}") if topic in names]

    async def waiting_ends(self):
        queues = self.memory.queues(WAITING) if WAITING in await self.list_topics() else ()
        return {(queue.broker_name, queue.queue_id): len(self.memory.records(queue)) for queue in queues}

    async def waiting_counts(self, groups):
        return {"pay": 2}

    def retried_topic(self, topic, properties):
        return properties.get("RETRY_TOPIC")


@pytest_asyncio.fixture
async def world(monkeypatch) -> AsyncIterator[GroupWorld]:
    monkeypatch.setattr(finding, "FOUND_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(retries, "COPIED_SECONDS_MAX", 0.0)
    memory = {"hz": MemoryCluster.create("hz", ("hz-a",)), "sh": MemoryCluster.create("sh", ("sh-a",))}
    groups = {name: Groups() for name in memory}

    def connect(cluster: Cluster):
        made = RetryingConnector(factory.settings_model(**cluster.settings), ConnectorContext(cluster.name, INSTANCE))
        made.groups, made.memory = groups[cluster.name], memory[cluster.name]
        return made

    store = MemoryStore()
    made = GroupWorld(store, Coordinator(store, connect, INSTANCE), memory, groups)
    for topic, queues in (("orders", 1), (WAITING, LEVELS), (RETRY, 1), (DEAD, 1)):
        memory["hz"].add_topic(topic, {"hz-a": queues})
    made.fill("hz", "orders", 10)
    made.commit("hz", "pay", 4)
    groups["hz"].settings["pay"] = GroupSettings("pay", {"retryMaxTimes": 3}, consumable=False)  # fenced, which is no setting
    yield made
    await made.coordinator.close()
    for name in memory:
        MemoryCluster.forget(name)


def task(name: str = "t", **fields):
    return one_way(name, "hz", "sh", **{"retry": True, **fields})


async def test_what_a_group_failed_on_is_assigned_to_its_own_topics(world) -> None:
    await world.apply(task())
    await world.rounds()
    waiting = await world.assigned("hz", "sh", WAITING)
    assert len(waiting) == LEVELS
    assert {one.destination_queue.topic for one in waiting} == {RETRY}
    assert len(world.memory["sh"].queues(RETRY)) == 1
    assert [one.destination_queue.topic for one in await world.assigned("hz", "sh", DEAD)] == [DEAD]
    assert await world.assigned("hz", "sh", RETRY) == []
    assert world.groups["sh"].settings["pay"].settings == {"retryMaxTimes": 3}
    assert world.groups["sh"].settings["pay"].consumable


async def test_only_groups_that_are_carried_and_consume_the_topics(world) -> None:
    world.memory["hz"].add_topic("%WAITING%idle", {"hz-a": 1})
    await world.apply(task(progress=ProgressSpec(exclude=("pay",))))
    await world.rounds()
    assert {one.source_queue.topic for one in await world.store.assignments()} == {"orders"}


async def test_without_retry_they_are_let_go_even_where_every_topic_is_meant(world) -> None:
    await world.apply(task())
    await world.rounds()
    await world.apply(task(retry=False))
    await world.rounds()
    assert await world.assigned("hz", "sh", WAITING) == []
    assert await world.assigned("hz", "sh", "orders") != []


async def test_a_second_task_with_the_same_group_is_told_so(world) -> None:
    """The first one carries what failed of its own topics only."""
    await world.apply(task())
    await world.rounds()
    world.memory["hz"].add_topic("bills", {"hz-a": 1})
    world.commit("hz", "pay", 0, topic="bills")
    await world.apply(task("u", topics=("bills",)))
    await world.rounds(3)
    assert {one.task for one in await world.assigned("hz", "sh", WAITING)} == {"t"}
    status = {one["name"]: one["flows"][0] for one in (await world.coordinator.status())["tasks"]}
    assert status["t"]["state"] != "blocked"
    assert status["u"]["state"] == "blocked"
    assert WAITING in status["u"]["error"] or DEAD in status["u"]["error"]


async def test_too_many_groups_are_refused_and_topics_go_on(world, monkeypatch) -> None:
    monkeypatch.setattr(finding, "GROUPS_MAX", 0)
    await world.apply(task())
    await world.rounds()
    assert await world.assigned("hz", "sh", "orders") != []
    flow = await world.flow("hz", "sh")
    assert "0 are possible" in flow["error"]


async def test_a_plan_says_how_many_wait_whether_or_not_they_are_carried(world) -> None:
    await world.apply(task(retry=False))
    await world.rounds()
    plan = await world.plan("pay")
    assert (plan["waiting_for_retry"], plan["retries_carried"]) == ({"pay": 2}, False)


async def test_progress_waits_until_what_failed_is_copied(world) -> None:
    await world.apply(task())
    await world.rounds()
    await world.copy("hz", "sh")
    await world.copy("hz", "sh", WAITING)
    world.fill("hz", WAITING, 2)
    await world.interval(IDLE_INTERVALS_MIN + 3)
    assert world.stands("sh", "pay") is None
    (row,) = world.plan_of(await world.plan(), "pay")
    assert row["action"] == "refuse"
    assert "not all copied" in row["reason"]
    await world.copy("hz", "sh", WAITING)
    await world.interval()
    assert world.stands("sh", "pay") == 4


async def test_a_retry_topic_that_is_not_set_up_yet_holds_progress(world) -> None:
    await world.apply(task(topics=("orders", "bills")))
    world.memory["hz"].add_topic("%WAITING%late", {"hz-a": LEVELS})
    await world.rounds()
    await world.copy("hz", "sh")
    world.commit("hz", "late", 3)
    (row,) = world.plan_of(await world.plan("late"), "late")
    assert row["action"] == "refuse"
    assert "not carried by this task" in row["reason"]


@pytest.mark.parametrize("both_ways", [False, True])
async def test_a_group_goes_on_in_its_retry_topic_behind_what_it_processed(world, both_ways) -> None:
    await world.apply(two_way("t", "hz", "sh", retry=True) if both_ways else task())
    await world.rounds()
    world.fill("hz", WAITING, 2)
    await world.copy("hz", "sh", WAITING)
    # Levels were copied one after another: records 0 1, 2 3, 4 5. One of the second and all of the third level are left.
    for level, offset in enumerate((2, 1, 0)):
        world.commit("hz", "pay", offset, topic=WAITING, number=level)
    plans = {one["topic"]: one["queues"] for one in (await world.plan("pay"))["groups"]}
    assert {row["to"] for row in plans[WAITING]} == {3}
    assert sum(row["seen_again"] for row in plans[WAITING]) == 0
    # What the group took there itself was processed there.
    world.commit("sh", "pay", 5, topic=RETRY)
    plans = {one["topic"]: one["queues"] for one in (await world.plan("pay"))["groups"]}
    assert {row["to"] for row in plans[WAITING]} == {5}


async def test_a_level_that_waited_long_lets_later_ones_be_seen_again(world) -> None:
    await world.apply(task())
    await world.rounds()
    world.fill("hz", WAITING, 2)
    await world.copy("hz", "sh", WAITING)
    for level, offset in enumerate((1, 2, 2)):
        world.commit("hz", "pay", offset, topic=WAITING, number=level)
    plans = {one["topic"]: one["queues"] for one in (await world.plan("pay"))["groups"]}
    assert {row["to"] for row in plans[WAITING]} == {1}
    assert sum(row["seen_again"] for row in plans[WAITING]) == 4
