"""``check`` as workers see it: each says whether it reaches the clusters, and how far away they are."""

import asyncio
from contextlib import asynccontextmanager

from replicator.core.task import Cluster
from replicator.worker.checking import Checks
from tests.unit.coordinator.conftest import connect, declare, one_way


@asynccontextmanager
async def looking(world, *workers, connect=connect):
    """Workers that answer what they are asked."""

    async def look(checks):
        while True:
            await checks.round()
            await asyncio.sleep(0.01)

    for worker in workers:
        await world.store.worker_seen(worker, {"assignments": 0})
    tasks = [asyncio.create_task(look(Checks(world.store, connect, worker))) for worker in workers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def checked(world):
    return await world.coordinator.check([declare("hz"), declare("sh")], [one_way("t", "hz", "sh")])


async def test_each_worker_says_what_it_reaches(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    async with looking(world, "w1", "w2"):
        answer = await checked(world)
    assert [(row["worker"], row["answered"]) for row in answer["workers"]] == [("w1", True), ("w2", True)]
    for row in answer["workers"]:
        assert [(one["name"], one["reachable"], one["problem"]) for one in row["clusters"]] == [("hz", True, ""), ("sh", True, "")]
        assert all(one["distance_ms"] >= 0 for one in row["clusters"])
    assert answer["problems"] == []


async def test_what_a_worker_does_not_reach_is_a_problem_though_the_coordinator_does(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 1})

    def from_afar(cluster: Cluster):
        if cluster.name == "sh":
            raise RuntimeError("a bug")
        connector = connect(cluster)
        connector._instance = "w1"
        return connector

    world.memory["hz"].cut(instance="w1")
    async with looking(world, "w1", connect=from_afar):
        answer = await checked(world)
    assert [row["reachable"] for row in answer["clusters"]] == [True, True]
    assert [one["reachable"] for one in answer["workers"][0]["clusters"]] == [False, False]
    assert [problem for problem in answer["problems"] if problem.startswith("worker w1: cluster hz")]
    assert "worker w1: RuntimeError: a bug" in answer["problems"]


async def test_a_worker_that_does_not_answer_is_named(world, monkeypatch):
    monkeypatch.setattr("replicator.coordinator.check.WORKERS_SECONDS_MAX", 0.2)
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    await world.store.worker_seen("w1", {"assignments": 0})
    answer = await checked(world)
    assert answer["workers"] == [{"worker": "w1", "answered": False, "clusters": []}]
    assert answer["problems"] == ["worker w1 did not answer within 0.2 s"]


async def test_without_workers_nobody_is_waited_for(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    assert (await checked(world))["workers"] == []


async def test_a_cluster_that_does_not_answer_a_worker_is_given_up(world, monkeypatch):
    monkeypatch.setattr("replicator.worker.checking.CHECK_REACH_SECONDS_MAX", 0.05)

    class Silent:
        cluster = "hz"

        async def open(self):
            await asyncio.Event().wait()

        async def close(self):
            return

    async with looking(world, "w1", connect=lambda _cluster: Silent()):
        answer = await checked(world)
    assert answer["workers"][0]["clusters"][0]["problem"] == "cluster hz did not answer within 0.05 s"
