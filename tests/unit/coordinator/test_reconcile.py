"""From declared to assigned: topics, maps, starts, growth, blocks."""

from __future__ import annotations

import asyncio

import pytest

from replicator.core.errors import NotConnected
from replicator.core.task import STATES, StartPoint
from replicator.store.port import Checkpoint, Progress
from tests.unit.coordinator.conftest import LATEST, declare, one_way, queue, two_way


async def test_two_way_creates_the_topic_and_maps_inversely(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 2, "hz-b": 1}, message_type="FIFO")
    await world.apply(two_way("t", "hz", "sh"))
    await world.rounds()
    made = world.memory["sh"].describe_topic("orders")
    assert made is not None
    assert (len(made.queues), made.message_type) == (3, "FIFO")
    there = {a.source_queue: a.destination_queue for a in await world.assigned("hz", "sh")}
    back = {a.source_queue: a.destination_queue for a in await world.assigned("sh", "hz")}
    assert len(there) == 3
    assert {destination: source for source, destination in there.items()} == back


async def test_one_to_many_and_many_to_one(world):
    for name in ("hz", "sh"):
        world.memory[name].add_topic("orders", 2)
    world.memory["bj"].add_topic("orders", 1)
    await world.apply(one_way("t", "hz", "sh", "bj"), one_way("u", "sh", "bj"))
    await world.rounds()
    assert [len(await world.assigned(*flow)) for flow in (("hz", "sh"), ("hz", "bj"), ("sh", "bj"))] == [4, 4, 2]


async def test_patterns_and_rename(world):
    for topic in ("orders", "pay-in", "pay-out", "other"):
        world.memory["hz"].add_topic(topic, 1)
    await world.apply(one_way("t", "hz", "sh", topics=("orders", "pay-*"), exclude=("pay-out",), rename={"orders": "hz-orders"}))
    await world.rounds()
    assert sorted(world.memory["sh"].topics) == ["hz-orders", "pay-in"]
    assert {a.destination_queue.topic for a in await world.assigned("hz", "sh")} == {"hz-orders"}
    assert await world.assigned("hz", "sh", "other") == []


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (StartPoint("earliest"), [2, 2]),
        (StartPoint("latest"), [10, 10]),
        (StartPoint("timestamp", timestamp_ms=1_500), [10, 10]),
        (StartPoint("consumer_group", consumer_group="readers"), [4, 7]),
    ],
)
async def test_starts(world, start, expected):
    hz = world.memory["hz"]
    hz.clock_ms = lambda: 1_000
    hz.add_topic("orders", {"hz-a": 2})
    world.fill("hz", "orders", 10)
    for one in hz.queues("orders"):
        hz.expire(one, 2)
    hz.commit("readers", queue("orders", "hz-a", 0), 4)
    hz.commit("readers", queue("orders", "hz-a", 1), 7)
    await world.apply(one_way("t", "hz", "sh", start=start))
    hz.clock_ms = lambda: 2_000
    world.fill("hz", "orders", 3)
    await world.rounds()
    assert await world.starts("hz", "sh") == expected


async def test_start_never_applies_to_what_appears_later(world):
    hz = world.memory["hz"]
    hz.add_topic("orders", {"hz-a": 1})
    world.fill("hz", "orders", 5)
    await world.apply(one_way("t", "hz", "sh", topics=("orders", "pay-*"), start=LATEST))
    hz.add_topic("pay-in", {"hz-a": 1})
    world.fill("hz", "pay-in", 5)
    await world.rounds()
    hz.add_topic("orders", {"hz-a": 2})
    world.fill("hz", "orders", 5)
    await world.rounds()
    assert await world.starts("hz", "sh", "pay-in") == [0]
    assert await world.starts("hz", "sh") == [5, 0]


async def test_start_is_remembered_by_another_coordinator(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    world.fill("hz", "orders", 5)
    await world.apply(one_way("t", "hz", "sh", topics=("orders", "pay"), start=LATEST))
    world.memory["hz"].add_topic("pay", {"hz-a": 1})
    for topic in ("orders", "pay"):
        world.fill("hz", topic, 3)
    successor = type(world.coordinator)(world.store, world.coordinator._connections._connect, "coordinator-2")
    await successor.reconcile_once()
    await successor.close()
    assert await world.starts("hz", "sh") == [5]
    assert await world.starts("hz", "sh", "pay") == [0]


async def test_topics_selected_by_a_later_edit_begin_where_the_edit_found_them(world):
    for topic in ("orders", "pay"):
        world.memory["hz"].add_topic(topic, {"hz-a": 1})
        world.fill("hz", topic, 4)
    await world.apply(one_way("t", "hz", "sh", start=LATEST))
    await world.rounds()
    world.fill("hz", "pay", 2)
    rows = await world.apply(one_way("t", "hz", "sh", topics=("orders", "pay"), start=LATEST))
    assert rows[3]["queues"] == 2
    world.fill("hz", "pay", 2)
    await world.rounds()
    assert await world.starts("hz", "sh", "pay") == [6]


async def test_a_topic_no_longer_selected_is_let_go_and_goes_on_when_selected_again(world):
    for topic in ("orders", "pay"):
        world.memory["hz"].add_topic(topic, {"hz-a": 1})
    await world.apply(one_way("t", "hz", "sh", topics=("orders", "pay")))
    await world.rounds()
    (before,) = await world.assigned("hz", "sh", "pay")
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    assert await world.assigned("hz", "sh", "pay") == []
    assert "topic-dropped" in await world.event_kinds("t")
    await world.apply(one_way("t", "hz", "sh", topics=("orders", "pay")))
    await world.rounds()
    assert [a.assignment_id for a in await world.assigned("hz", "sh", "pay")] == [before.assignment_id]


async def test_growth_moves_nothing_and_grows_the_destination(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 2})
    await world.apply(two_way("t", "hz", "sh"))
    await world.rounds()
    before = {a.source_queue: a.destination_queue for a in await world.assigned("hz", "sh")}
    world.memory["hz"].add_topic("orders", {"hz-a": 2, "hz-b": 2})
    await world.rounds(3)
    after = {a.source_queue: a.destination_queue for a in await world.assigned("hz", "sh")}
    back = {a.source_queue: a.destination_queue for a in await world.assigned("sh", "hz")}
    assert before.items() <= after.items()
    assert len(after) == len(world.memory["sh"].queues("orders")) == 4
    assert {destination: source for source, destination in after.items()} == back


async def test_topics_not_ours_to_create_are_not_grown(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 2})
    world.memory["sh"].add_topic("orders", 2)
    await world.apply(one_way("t", "hz", "sh", create=False))
    await world.rounds()
    world.memory["hz"].add_topic("orders", {"hz-a": 3})
    await world.rounds()
    assert len(world.memory["sh"].queues("orders")) == 2
    assert [a.destination_queue.queue_id for a in await world.assigned("hz", "sh")] == [0, 1, 0]


async def test_new_queues_of_an_ordered_topic_wait_for_the_older_ones(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 1}, ordered=True)
    world.fill("hz", "orders", 5)
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    assert world.memory["sh"].topics["orders"].ordered
    world.memory["hz"].add_topic("orders", {"hz-a": 2})
    await world.rounds()
    assert await world.starts("hz", "sh") == [0]
    assert "wait" in (await world.flow("hz", "sh"))["error"]
    world.memory["hz"].produce(queue("orders", "hz-a", 0), b"after the growth")
    (leased,) = await world.store.acquire("w", 5.0, 10)
    for examined, expected in ((4, [0]), (5, [0, 0])):
        await world.store.save_progress([Progress(leased.assignment_id, leased.token, Checkpoint(examined_through=examined))])
        await world.rounds()
        assert await world.starts("hz", "sh") == expected
    assert (await world.flow("hz", "sh"))["error"] == ""


async def test_ordered_topics_need_equal_totals(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 3}, ordered=True)
    world.memory["sh"].add_topic("orders", 2, ordered=True)
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    flow = await world.flow("hz", "sh")
    assert flow["state"] == "blocked"
    assert "3" in flow["error"]
    world.memory["sh"].add_topic("orders", 3)
    await world.rounds()
    assert len(await world.assigned("hz", "sh")) == 3
    assert (await world.flow("hz", "sh"))["state"] == "waiting-for-worker"


async def test_a_missing_destination_topic_blocks_its_pair_once(world):
    for topic in ("orders", "pay"):
        world.memory["hz"].add_topic(topic, {"hz-a": 1})
    world.memory["sh"].add_topic("pay", 1)
    await world.apply(one_way("t", "hz", "sh", topics=("orders", "pay"), create=False))
    await world.rounds(3)
    assert len(await world.assigned("hz", "sh", "pay")) == 1
    assert (await world.flow("hz", "sh"))["state"] == "blocked"
    assert (await world.event_kinds("t")).count("blocked") == 1
    world.memory["sh"].add_topic("orders", 1)
    await world.rounds()
    assert len(await world.assigned("hz", "sh")) == 1
    assert (await world.event_kinds("t")).count("unblocked") == 1


async def test_unsupported_topics_are_named(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 1}, unsupported="static topic")
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    assert "static topic" in (await world.flow("hz", "sh"))["error"]
    assert "orders" not in world.memory["sh"].topics


async def test_a_deleted_source_topic_keeps_its_assignments(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    world.memory["hz"].delete_topic("orders")
    await world.rounds()
    flow = await world.flow("hz", "sh")
    assert flow["state"] == "blocked"
    assert "not found on hz" in flow["error"]
    assert len(await world.assigned("hz", "sh")) == 1


async def test_a_cluster_away_leaves_the_others_alone(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    await world.apply(one_way("t", "hz", "sh", "bj"))
    world.memory["bj"].cut()
    await world.rounds(3)
    assert len(await world.assigned("hz", "sh")) == 1
    flow = await world.flow("hz", "bj")
    assert flow["state"] == "unreachable"
    assert flow["lag_messages"] is None
    assert (await world.flow("hz", "sh"))["state"] == "waiting-for-worker"
    assert (await world.event_kinds("t")).count("unreachable") <= 1
    world.memory["bj"].heal()
    await world.coordinator._connections.close()
    await world.rounds()
    assert len(await world.assigned("hz", "bj")) == 1


async def test_an_error_of_one_topic_stays_its_own(world):
    for topic in ("orders", "pay"):
        world.memory["hz"].add_topic(topic, {"hz-a": 1})
    await world.apply(one_way("t", "hz", "sh", topics=("orders", "pay")))
    world.memory["sh"].faults.calls["create_topic"].append(NotConnected("planned"))
    await world.coordinator.reconcile_once()
    found = [await world.assigned("hz", "sh", topic) for topic in ("orders", "pay")]
    assert sorted(map(len, found)) == [0, 1]
    await world.coordinator.reconcile_once()
    assert [len(await world.assigned("hz", "sh", topic)) for topic in ("orders", "pay")] == [1, 1]


async def test_a_cluster_that_became_another_blocks_its_flows(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    mark = world.memory["sh"].marks.pop()
    await world.rounds(3)
    flow = await world.flow("hz", "sh")
    assert flow["state"] == "blocked"
    assert "carries no mark" in flow["error"]
    assert await world.store.acquire("w", 5.0, 10) == []
    assert (await world.event_kinds("t")).count("blocked") == 1
    world.memory["sh"].marks.append(mark)
    await world.rounds()
    assert len(await world.store.acquire("w", 5.0, 10)) == 1


async def test_claims_go_on_from_a_tombstone_under_another_name(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    (before,) = await world.assigned("hz", "sh")
    await world.coordinator.delete("tasks", "t")
    await world.apply(one_way("u", "hz", "sh", start=LATEST))
    await world.rounds()
    (after,) = await world.assigned("hz", "sh")
    assert (after.assignment_id, after.task) == (before.assignment_id, "u")


async def test_a_claim_of_another_task_blocks_the_topic_only(world):
    """Two coordinators applied at once, so that neither saw the other's task."""
    for topic in ("orders", "pay"):
        world.memory["hz"].add_topic(topic, {"hz-a": 1})
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    from replicator.config import task_to_spec

    other = one_way("u", "hz", "sh", topics=("orders", "pay"))
    await world.store.put_task("u", task_to_spec(other), other.flows)
    await world.rounds()
    (status,) = (await world.coordinator.status("u"))["tasks"]
    assert status["state"] == "blocked"
    assert "orders" in status["flows"][0]["error"]
    assert [a.task for a in await world.assigned("hz", "sh", "pay")] == ["u"]
    assert (await world.coordinator.status("t"))["tasks"][0]["state"] == "waiting-for-worker"


async def test_only_the_holder_of_the_lease_reconciles(world):
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    await world.apply(one_way("t", "hz", "sh"))
    assert await world.store.hold_coordinator("somebody-else", 60.0)
    stop = asyncio.Event()
    running = asyncio.create_task(world.coordinator.run(stop))
    await asyncio.sleep(0.1)
    assert await world.store.pairs() == []
    stop.set()
    await asyncio.wait_for(running, 2)


async def test_run_finds_a_topic_by_itself_and_stops(world):
    await world.apply(one_way("t", "hz", "sh"))
    stop = asyncio.Event()
    running = asyncio.create_task(world.coordinator.run(stop))
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    await world.until_assigned("hz", "sh", 10)
    stop.set()
    await asyncio.wait_for(running, 2)


async def test_a_store_that_is_away_does_not_end_the_loop(world):
    stop = asyncio.Event()
    await world.apply(one_way("t", "hz", "sh"))
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    world.store.available = False
    running = asyncio.create_task(world.coordinator.run(stop))
    await asyncio.sleep(0.05)
    world.store.available = True
    world.coordinator._reconciler.wake()
    await world.until_assigned("hz", "sh", 15)
    stop.set()
    await asyncio.wait_for(running, 2)


async def test_states_are_those_of_the_contract(world):
    await world.coordinator.apply([declare("hz"), declare("sh")], [one_way("t", "hz", "sh")])
    assert (await world.flow("hz", "sh"))["state"] in STATES
