"""Applying: what is created, what is refused before anything is written, and identity."""

from __future__ import annotations

from dataclasses import replace

import pytest

from connectors.memory import MemoryCluster
from replicator.core.errors import InvalidInput, NotConnected, Unsafe
from replicator.core.task import StartPoint
from tests.unit.coordinator.conftest import declare, one_way, two_way


async def snapshot(world):
    events = [await world.store.events(name) for name in ("t", "u")]
    stored = (await world.store.clusters(), await world.store.tasks(), await world.store.flows(), await world.store.pairs(), events)
    return repr(stored), {name: (list(m.marks), sorted(m.topics)) for name, m in world.memory.items()}


async def test_created_unchanged_changed(world):
    world.memory["hz"].add_topic("orders", 2)
    world.fill("hz", "orders", 5)
    rows = await world.apply(one_way("t", "hz", "sh"))
    assert [(r["kind"], r["name"], r["result"]) for r in rows] == [
        ("cluster", "hz", "created"), ("cluster", "sh", "created"), ("cluster", "bj", "created"), ("task", "t", "created"),
    ]  # fmt: skip
    assert rows[-1]["topics_to_create"] == [{"cluster": "sh", "topic": "orders"}]
    assert rows[-1]["messages_to_copy"] == 20
    assert rows[-1]["queues"] == 4
    await world.rounds()
    assert {r["result"] for r in await world.apply(one_way("t", "hz", "sh"))} == {"unchanged"}
    (changed,) = [r for r in await world.apply(one_way("t", "hz", "sh", filter="a = 1")) if r["kind"] == "task"]
    assert changed["result"] == "changed"
    assert changed["queues"] == 4


async def test_what_files_no_longer_name_is_listed_and_kept(world):
    await world.apply(one_way("t", "hz", "sh"), one_way("u", "hz", "bj"))
    rows = await world.apply(one_way("t", "hz", "sh"))
    assert [(r["kind"], r["name"]) for r in rows if r["result"] == "not-in-files"] == [("task", "u")]
    assert [row.name for row in await world.store.tasks()] == ["t", "u"]


async def test_dry_run_writes_nothing(world):
    world.memory["hz"].add_topic("orders", 2)
    before = await snapshot(world)
    rows = await world.apply(two_way("t", "hz", "sh"), dry_run=True)
    assert rows[-1]["result"] == "created"
    assert await snapshot(world) == before


async def test_marks_are_written_once_and_kept(world):
    await world.apply()
    marks = {name: list(memory.marks) for name, memory in world.memory.items()}
    assert all(len(mark) == 1 and len(mark[0]) == 8 for mark in marks.values())
    await world.apply(one_way("t", "hz", "sh"))
    assert {name: list(memory.marks) for name, memory in world.memory.items()} == marks
    assert {row.name: [row.cluster_id] for row in await world.store.clusters()} == marks


async def test_dangling_name_with_the_nearest(world):
    with pytest.raises(InvalidInput, match="did you mean hz"):
        await world.apply(one_way("t", "hzz", "sh"))
    assert await world.store.clusters() == []


@pytest.mark.parametrize(
    "edit",
    [
        {"start": StartPoint("latest")}, {"relay": True}, {"rename": {"orders": "o"}}, {"clusters": ("hz", "bj")},
        {"mode": "two-way"},
    ],
)  # fmt: skip
async def test_immutable_fields(world, edit):
    task = one_way("t", "hz", "sh")
    await world.apply(task)
    before = await snapshot(world)
    with pytest.raises(Unsafe, match=next(iter(edit))):
        await world.apply(replace(task, **edit), one_way("u", "hz", "bj", topics=("x",)))
    assert await snapshot(world) == before


async def test_unsafe_graph_is_refused_whole(world):
    await world.apply(one_way("t", "hz", "sh", topics=("ord*",)))
    before = await snapshot(world)
    with pytest.raises(Unsafe, match="tasks t and u both copy orders from hz to sh"):
        await world.apply(one_way("u", "hz", "sh"))
    with pytest.raises(Unsafe, match="diamond|twice"):
        await world.apply(
            one_way("u", "hz", "bj", topics=("orders",)), one_way("v", "sh", "bj", topics=("orders",), relay=True),
        )  # fmt: skip
    assert await snapshot(world) == before


async def test_rename_onto_a_topic_that_is_copied(world):
    for topic in ("a", "b"):
        world.memory["hz"].add_topic(topic, 1)
    with pytest.raises(Unsafe, match="would all arrive as b"):
        await world.apply(one_way("t", "hz", "sh", topics=("*",), rename={"a": "b"}))
    assert await world.store.tasks() == []


async def test_one_cluster_under_two_names(world):
    await world.apply()
    with pytest.raises(Unsafe, match="already declared as hz"):
        await world.coordinator.apply([declare("hangzhou", "hz")], [])


async def test_one_fresh_cluster_under_two_names_at_once(world):
    with pytest.raises(Unsafe, match="already declared as"):
        await world.coordinator.apply([declare("one", "hz"), declare("two", "hz")], [])
    assert await world.store.clusters() == []


async def test_edit_that_reaches_another_cluster(world):
    await world.apply()
    with pytest.raises(Unsafe, match="another one"):
        await world.coordinator.apply([declare("hz", "sh")], [])
    with pytest.raises(Unsafe, match="carries no mark"):
        await world.coordinator.apply([declare("hz", "other")], [])


async def test_edit_that_reaches_the_same_cluster(world):
    await world.apply()
    (row,) = [r for r in await world.coordinator.apply([declare("hz", region="cn-hangzhou")], []) if r["name"] == "hz"]
    assert row["result"] == "changed"


async def test_two_marks(world):
    world.memory["hz"].marks += ["aaaaaaaa", "bbbbbbbb"]
    with pytest.raises(Unsafe, match="2 marks"):
        await world.apply()
    assert await world.store.clusters() == []


async def test_away_refuses_what_is_new_and_not_what_is_unchanged(world):
    task = one_way("t", "hz", "sh")
    world.memory["sh"].cut()
    with pytest.raises(NotConnected):
        await world.apply(task)
    assert await world.store.clusters() == []
    world.memory["sh"].heal()
    await world.apply(task)
    await world.coordinator.close()
    world.memory["sh"].cut()
    assert {row["result"] for row in await world.apply(task)} == {"unchanged"}


async def test_unknown_consumer_group(world):
    world.memory["hz"].add_topic("orders", 1)
    world.fill("hz", "orders")
    with pytest.raises(Unsafe, match="group readers has no progress"):
        await world.apply(one_way("t", "hz", "sh", start=StartPoint("consumer_group", consumer_group="readers")))


async def test_a_cluster_known_to_another_database_keeps_its_mark(world):
    world.memory["hz"].marks.append("abcdefgh")
    await world.apply()
    assert {row.name: row.cluster_id for row in await world.store.clusters()}["hz"] == "abcdefgh"


async def test_check_reads_only_and_says_what_would_be(world):
    world.memory["hz"].add_topic("orders", 2)
    world.fill("hz", "orders", 3)
    before = await snapshot(world)
    world.memory["bj"].cut()
    answer = await world.coordinator.check(world.clusters, [one_way("t", "hz", "sh", "bj", topics=("orders", "pay"))])
    assert await snapshot(world) == before
    rows = {row["name"]: row for row in answer["clusters"]}
    assert (rows["hz"]["reachable"], rows["bj"]["reachable"]) == (True, False)
    assert [b["broker_name"] for b in rows["hz"]["brokers"]] == ["hz-a", "hz-b"]
    assert rows["hz"]["distance_ms"] >= 0
    (task,) = answer["tasks"]
    assert task["topics"] == ["orders"]
    assert task["missing_topics"] == [{"cluster": "hz", "topic": "pay"}]
    assert task["topics_to_create"] == [{"cluster": "sh", "topic": "orders"}]
    assert task["messages_to_copy"] == 12
    assert len(answer["problems"]) == 1
    assert "bj" in answer["problems"][0]


async def test_check_sees_an_unsafe_graph_and_a_stranger(world):
    await world.apply(one_way("t", "hz", "sh"))
    stranger = MemoryCluster.create("other")
    stranger.marks.append("zzzzzzzz")
    answer = await world.coordinator.check([declare("hz", "other")], [one_way("u", "hz", "sh")])
    assert any("both copy orders" in problem for problem in answer["problems"])
    assert any("another one" in problem for problem in answer["problems"])
