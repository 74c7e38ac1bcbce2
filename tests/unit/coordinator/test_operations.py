"""Status, pause and resume, history stops, parked messages, looking and deleting."""

from __future__ import annotations

import json

import pytest

from replicator.coordinator.status import render_status
from replicator.coordinator.troubles import Trouble, Troubles
from replicator.core.errors import InvalidInput, Missing, NotPermitted, Unsafe
from replicator.core.record import parse_properties
from replicator.store.port import Checkpoint, Hole, Parked, Progress
from tests.unit.coordinator.conftest import one_way, queue, two_way

FLOW_KEYS = {
    "source", "destination", "state", "queues_by_state", "lag_messages", "lag_seconds", "copied_total", "skipped_total", "parked",
    "rate_per_second", "latency_ms", "retention_headroom_seconds", "error",
}  # fmt: skip


async def started(world, *tasks, queues=1):
    world.memory["hz"].add_topic("orders", {"hz-a": queues})
    world.fill("hz", "orders", 10)
    await world.apply(*(tasks or (one_way("t", "hz", "sh"),)))
    await world.rounds()


async def test_status_has_the_keys_of_the_contract(world):
    await started(world, two_way("t", "hz", "sh"))
    await world.report(lag_messages=0, lag_seconds=0.0, rate_per_second=1.0, latency_ms=(3.0, 9.0))
    answer = await world.coordinator.status()
    assert set(answer) == {"observed_at", "tasks"}
    (task,) = answer["tasks"]
    assert set(task) == {"name", "mode", "state", "flows"}
    assert task["state"] == "running"
    assert [set(flow) for flow in task["flows"]] == [FLOW_KEYS, FLOW_KEYS]
    flow = task["flows"][0]
    assert set(flow["skipped_total"]) == {"filtered", "loop", "refused", "expired", "history"}
    assert flow["latency_ms"] == {"p50": 3.0, "p99": 9.0}
    assert (flow["lag_messages"], flow["queues_by_state"]) == (0, {"running": 1})
    json.dumps(answer)


async def test_status_of_one_task_and_of_none(world):
    await started(world, one_way("t", "hz", "sh"), one_way("u", "hz", "bj"))
    assert [task["name"] for task in (await world.coordinator.status("u"))["tasks"]] == ["u"]
    with pytest.raises(Missing):
        await world.coordinator.status("nobody")


async def test_a_flow_without_topics_waits_and_knows_no_lag(world):
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    flow = await world.flow("hz", "sh")
    assert (flow["state"], flow["lag_messages"]) == ("starting", None)
    assert "orders" in flow["error"]


async def test_a_paused_flow_is_paused_before_it_has_a_queue(world):
    await world.apply(one_way("t", "hz", "sh"))
    await world.coordinator.set_paused("t", True)
    await world.rounds()
    (task,) = (await world.coordinator.status())["tasks"]
    assert (task["state"], task["flows"][0]["state"]) == ("paused", "paused")
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    await world.rounds()
    await world.coordinator.set_paused("t", False)
    assert (await world.flow("hz", "sh"))["state"] == "waiting-for-worker"


@pytest.mark.parametrize(("trouble", "shown"), [("starting", "paused"), ("blocked", "blocked")])
async def test_a_paused_flow_whose_topic_waits_is_paused_unless_it_is_worse(world, trouble, shown):
    await started(world)
    await world.coordinator.set_paused("t", True)
    troubles = Troubles()
    troubles.set(("t", "hz", "sh"), "late", Trouble(trouble, "a reason"))
    (known,) = await world.coordinator.figures()
    for figures in (known, {**known, "queues_by_state": {}}):
        (task,) = (await render_status(world.store, [figures], troubles, "t"))["tasks"]
        assert task["state"] == shown


async def test_pause_and_resume(world):
    await started(world, two_way("t", "hz", "sh"))
    assert (await world.coordinator.set_paused("t", True))["count"] == 2
    assert (await world.flow("hz", "sh"))["state"] == "paused"
    await world.coordinator.resume("t", source="hz", destination="sh")
    assert (await world.flow("hz", "sh"))["state"] == "waiting-for-worker"
    assert (await world.flow("sh", "hz"))["state"] == "paused"
    await world.coordinator.resume("t")
    assert (await world.coordinator.set_paused("t", True, topic="orders"))["count"] == 2
    assert [kind for kind in await world.event_kinds("t") if kind in ("paused", "resumed")] == ["paused", "resumed", "resumed", "paused"]


async def test_pause_of_what_is_not_there(world):
    await started(world)
    with pytest.raises(Missing):
        await world.coordinator.set_paused("nobody", True)
    with pytest.raises(Missing):
        await world.coordinator.set_paused("t", True, topic="nothing")
    with pytest.raises(Missing):
        await world.coordinator.set_paused("t", True, source="sh", destination="hz")
    with pytest.raises(InvalidInput):
        await world.coordinator.set_paused("t", True, source="hz")


async def stopped(world, position):
    """A worker stopped for a history change and let go."""
    await started(world)
    (leased,) = await world.store.acquire("w", 5.0, 1)
    checkpoint = Checkpoint(examined_through=position)
    await world.store.save_progress([Progress(leased.assignment_id, leased.token, checkpoint, state="stopped-history-change", error="x")])
    await world.store.release(leased.assignment_id, leased.token, clean=True)
    assert (await world.flow("hz", "sh"))["state"] == "stopped-history-change"


async def test_a_plain_resume_says_what_would_be_lost(world):
    await stopped(world, 3)
    world.memory["hz"].expire(queue("orders", "hz-a", 0), 7)
    with pytest.raises(Unsafe, match="gives up 4 offsets") as refused:
        await world.coordinator.resume("t")
    assert "--accept-loss" in refused.value.hint


@pytest.mark.parametrize(
    ("position", "expire", "flags", "go_on_at", "given_up"),
    [
        (3, 7, {"accept_loss": True}, 7, 4),
        (3, 0, {"accept_loss": True}, 3, 0),
        (15, 2, {"accept_loss": True}, 10, 8),
        (15, 2, {"from_offset": 4}, 4, 2),
        (3, 0, {"from_offset": 8}, 8, 5),
    ],
)
async def test_the_way_out_of_a_history_stop(world, position, expire, flags, go_on_at, given_up):
    await stopped(world, position)
    world.memory["hz"].expire(queue("orders", "hz-a", 0), expire)
    answer = await world.coordinator.resume("t", **flags)
    assert (answer["given_up_total"], answer["queues"][0]["go_on_at"]) == (given_up, go_on_at)
    (one,) = await world.assigned("hz", "sh")
    assert (one.checkpoint.epoch, one.checkpoint.examined_through, one.state) == (2, go_on_at, "waiting-for-worker")
    assert not one.paused
    # The offsets stand in the map, in the history that lacks them, not only in an event.
    lost_from, epoch = (2, 2) if position > 10 else (position, 1)
    holes = [Hole(epoch, lost_from, given_up, "history")] if given_up else []
    assert list(await world.store.holes(one.assignment_id)) == holes
    assert (await world.flow("hz", "sh"))["skipped_total"]["history"] == given_up


@pytest.mark.parametrize("flags", [{"accept_loss": True}, {"from_offset": 7}, {}])
async def test_a_dry_run_tells_what_is_given_up_and_changes_nothing(world, flags):
    await stopped(world, 3)
    world.memory["hz"].expire(queue("orders", "hz-a", 0), 7)
    before = await world.store.assignments(), await world.event_kinds("t")
    answer = await world.coordinator.resume("t", **flags, dry_run=True)
    assert (answer["dry_run"], answer["given_up_total"]) == (True, 4)
    (told,) = answer["queues"]
    assert (told["given_up_from"], told["given_up_to"], told["given_up"], told["go_on_at"]) == (3, 6, 4, 7)
    assert told["assignment_id"] == before[0][0].assignment_id
    assert (await world.store.assignments(), await world.event_kinds("t")) == before


async def test_ways_out_that_are_none(world):
    await stopped(world, 3)
    with pytest.raises(InvalidInput, match="0 to 10, not 11"):
        await world.coordinator.resume("t", from_offset=11)
    with pytest.raises(InvalidInput, match="exclude"):
        await world.coordinator.resume("t", accept_loss=True, from_offset=1)
    await world.coordinator.resume("t", accept_loss=True)
    with pytest.raises(InvalidInput, match="no queue is stopped"):
        await world.coordinator.resume("t", accept_loss=True)


async def parked(world, *tasks):
    await started(world, *tasks)
    hz = world.memory["hz"]
    offset = hz.produce(queue("orders", "hz-a", 0), b"odd", {"__rep": "1;old", "level": "1"})
    (leased,) = await world.store.acquire("w", 5.0, 1)
    checkpoint = Checkpoint(examined_through=offset + 1)
    one = Parked(offset, "too odd", 3)
    await world.store.save_progress([Progress(leased.assignment_id, leased.token, checkpoint, parked=[one])])
    (row,) = await world.coordinator.parked_list("t")
    assert (row["source_offset"], row["reason"], row["state"]) == (offset, "too odd", "parked")
    return row["id"]


async def test_parked_is_sent_again_as_a_new_message(world):
    parked_id = await parked(world)
    assert [r["result"] for r in await world.coordinator.parked_retry("t", [parked_id])] == ["retried"]
    (record,) = world.memory["sh"].records(queue("orders", "sh-a", 0))
    assert record.body == b"odd"
    assert parse_properties(record.properties) == {"level": "1"}
    assert (await world.coordinator.parked_list("t"))[0]["state"] == "retried"
    with pytest.raises(Missing):
        await world.coordinator.parked_retry("t", [parked_id])


async def test_parked_is_not_sent_where_it_would_come_back(world):
    parked_id = await parked(world, two_way("t", "hz", "sh"))
    (result,) = await world.coordinator.parked_retry("t", [parked_id])
    assert result["result"] == "failed"
    assert "copied on as a new message to hz" in result["detail"]
    assert not [record for record in world.memory["sh"].records(queue("orders", "sh-a", 0)) if record.body == b"odd"]
    assert (await world.coordinator.parked_list("t"))[0]["state"] == "parked"


async def test_refused_again_stays_parked(world):
    parked_id = await parked(world)
    world.memory["sh"].refuse_records(lambda _queue, body, _properties: "still odd" if body == b"odd" else "")
    (result,) = await world.coordinator.parked_retry("t", None)
    assert (result["id"], result["result"]) == (parked_id, "refused")
    assert (await world.coordinator.parked_list("t"))[0]["state"] == "parked"
    assert "retry-refused" in await world.event_kinds("t")


async def test_expired_meanwhile(world):
    await parked(world)
    world.memory["hz"].expire(queue("orders", "hz-a", 0), 11)
    (result,) = await world.coordinator.parked_retry("t", None)
    assert result["result"] == "failed"


async def test_discard(world):
    parked_id = await parked(world)
    assert await world.coordinator.parked_discard("t", None) == [{"id": parked_id, "result": "discarded", "detail": ""}]
    assert (await world.flow("hz", "sh"))["parked"] == 0
    with pytest.raises(Missing):
        await world.coordinator.parked_discard("t", [parked_id])


@pytest.mark.parametrize("operation", ["parked_retry", "parked_discard"])
async def test_naming_no_parked_message_is_no_way_to_mean_all(world, operation):
    await parked(world)
    with pytest.raises(InvalidInput, match="no parked message is named"):
        await getattr(world.coordinator, operation)("t", [])
    assert [row["state"] for row in await world.coordinator.parked_list("t")] == ["parked"]


async def test_get(world):
    await started(world)
    await world.store.worker_seen("worker-1", {"assignments": 3})
    assert [row["name"] for row in await world.coordinator.get("clusters")] == ["bj", "hz", "sh"]
    assert (await world.coordinator.get("tasks", "t"))["spec"]["source"] == "hz"
    assert (await world.coordinator.get("workers"))[0]["name"] == "worker-1"
    (assignment,) = await world.coordinator.get("assignments")
    assert assignment["source_queue"] == {"topic": "orders", "broker_name": "hz-a", "queue_id": 0}
    json.dumps(assignment)
    with pytest.raises(Missing):
        await world.coordinator.get("tasks", "nobody")
    with pytest.raises(InvalidInput):
        await world.coordinator.get("things")


async def test_delete(world):
    await started(world)
    with pytest.raises(Unsafe):
        await world.coordinator.delete("clusters", "hz")
    assert (await world.coordinator.delete("tasks", "t"))["result"] == "deleted"
    assert (await world.coordinator.status())["tasks"] == []
    assert len(await world.store.pairs()) == 1
    with pytest.raises(Missing):
        await world.coordinator.delete("tasks", "t")
    assert (await world.coordinator.delete("tasks", "t", purge=True))["result"] == "purged"
    assert await world.store.pairs() == []
    await world.coordinator.delete("clusters", "hz")
    with pytest.raises(Missing):
        await world.coordinator.delete("clusters", "hz")
    assert "deleted" in await world.event_kinds("t")


async def test_delete_with_a_cluster_away_needs_force(world):
    await started(world)
    world.memory["sh"].cut()
    with pytest.raises(Unsafe, match="sh cannot be reached") as refused:
        await world.coordinator.delete("tasks", "t")
    assert "--force" in refused.value.hint
    await world.coordinator.delete("tasks", "t", force=True)
    assert await world.store.tasks() == []


async def test_delete_needs_force_where_a_cluster_does_not_let_us_in(world):
    await started(world)
    world.memory["sh"].fail_next_call("describe", NotPermitted("cluster sh: certificate has expired"))
    with pytest.raises(Unsafe, match="certificate has expired") as refused:
        await world.coordinator.delete("tasks", "t")
    assert "--force" in refused.value.hint


async def test_events_do_not_carry_the_ledger_of_starts(world):
    await started(world)
    events = await world.coordinator.events("t")
    assert [event["kind"] for event in events][:2] == ["started", "created"]
    assert events[0]["detail"] == {}
    with pytest.raises(Missing):
        await world.coordinator.events("nobody")
