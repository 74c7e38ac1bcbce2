"""Parked records, events, workers, figures, identity."""

import asyncio

from replicator.store.port import Checkpoint, Parked, Progress
from tests.conformance.store.scene import expire, leased, put_assignments, put_flow


async def test_parked_records_are_kept_by_place_and_change_state(store):
    await put_assignments(store)
    (row,) = await leased(store)
    refused = [Parked(7, "too large", 99), Parked(9, "x", 1)]
    await store.save_progress([Progress(row.assignment_id, row.token, Checkpoint(), parked=refused)])
    (assignment, first), (_, second) = await store.parked("orders")
    assert assignment.assignment_id == row.assignment_id
    assert (first.source_offset, first.reason, first.size_bytes, first.state) == (7, "too large", 99, "parked")
    assert first.parked_id != second.parked_id
    assert await store.set_parked_state(first.parked_id, "discarded")
    assert not await store.set_parked_state(987654, "discarded")
    assert [one.state for _, one in await store.parked("orders")] == ["discarded", "parked"]
    assert (await store.flow_figures())[0]["parked"] == 1
    assert list(await store.parked("other")) == []
    await store.delete_task("orders")
    assert list(await store.parked("orders")) == []


async def test_events_are_the_newest_in_order(store):
    for n in range(5):
        await store.record_event("orders", "note", f"event {n}", {"n": n})
    await store.record_event("other", "note", "else")
    found = await store.events("orders", limit=3)
    assert [event.detail["n"] for event in found] == [2, 3, 4]
    assert (found[0].task, found[0].kind, found[0].message) == ("orders", "note", "event 2")
    assert found[0].at <= found[1].at
    assert (await store.events("other"))[0].detail == {}
    assert list(await store.events("none")) == []


async def test_workers_are_those_seen_of_late(store):
    await store.worker_seen("w2", {"cores": 2})
    await store.worker_seen("w1", {"cores": 1})
    await store.worker_seen("w1", {"cores": 4})
    assert [(holder, info) for holder, info, _ in await store.workers(60)] == [("w1", {"cores": 4}), ("w2", {"cores": 2})]
    assert list(await store.workers(-1)) == []


async def test_the_identity_stays(store):
    first = await store.identity()
    assert first == await store.identity()
    assert len(first[0]) >= 32
    assert first[1] >= 1


async def test_figures_of_a_flow_without_queues_say_nothing_is_known(store):
    await put_flow(store)
    (figures,) = await store.flow_figures()
    assert figures == {
        "task": "orders", "source": "hangzhou", "destination": "shanghai", "paused": False, "queues_by_state": {},
        "lag_messages": None, "lag_seconds": None, "copied_total": 0, "parked": 0, "rate_per_second": None, "error": "",
        "skipped_total": {"filtered": 0, "loop": 0, "refused": 0, "expired": 0, "history": 0},
        "latency_ms": {"p50": None, "p99": None}, "source_brokers": [], "uncopied_age_seconds": None,
    }


async def test_figures_add_up_over_queues_and_one_unknown_lag_makes_all_unknown(store):
    _, pair = await put_assignments(store, 2)
    one, two = await leased(store)

    def item(row, **fields):
        return Progress(row.assignment_id, row.token, Checkpoint(copied_total=10, skipped_total={"loop": 2}), **fields)

    known = {"lag_messages": 3, "lag_seconds": 1.5, "rate_per_second": 100.0, "latency_ms": (2.0, 8.0)}
    await store.save_progress([item(one, **known), item(two, **known | {"lag_seconds": 4.0, "latency_ms": (3.0, 5.0)})])
    (figures,) = await store.flow_figures()
    assert (figures["lag_messages"], figures["lag_seconds"], figures["rate_per_second"]) == (6, 4.0, 200.0)
    assert (figures["copied_total"], figures["skipped_total"]["loop"], figures["skipped_total"]["history"]) == (20, 4, 0)
    assert figures["latency_ms"] == {"p50": 3.0, "p99": 8.0}
    assert figures["queues_by_state"] == {"running": 2}
    assert type(figures["lag_messages"]) is int

    await store.save_progress([item(two, state="unreachable", error="no route")])
    (figures,) = await store.flow_figures()
    assert (figures["lag_messages"], figures["lag_seconds"], figures["rate_per_second"]) == (None, None, 100.0)
    assert (figures["queues_by_state"], figures["error"]) == ({"running": 1, "unreachable": 1}, "no route")

    await store.save_progress([item(one, state="failed", error="broken")])
    await store.set_pair_state(pair.pair_id, "blocked", "a ring")
    (figures,) = await store.flow_figures()
    assert (figures["queues_by_state"], figures["error"]) == ({"blocked": 1, "failed": 1}, "broken")


async def test_what_is_not_copied_grows_older_while_nobody_looks(store):
    _, pair = await put_assignments(store, 2)
    one, two = await leased(store)
    await store.save_progress([Progress(one.assignment_id, one.token, Checkpoint(), lag_seconds=50.0, lag_messages=1)])
    (figures,) = await store.flow_figures()
    assert (figures["uncopied_age_seconds"], figures["source_brokers"]) == (None, ["broker-a"])
    await store.save_progress([Progress(two.assignment_id, two.token, Checkpoint(), lag_seconds=9.0, lag_messages=1)])
    first = (await store.flow_figures())[0]["uncopied_age_seconds"]
    await asyncio.sleep(0.05)
    second = (await store.flow_figures())[0]["uncopied_age_seconds"]
    assert 50.0 <= first < second < 60.0
    assert isinstance(second, float)
    await store.save_progress([Progress(two.assignment_id, two.token, Checkpoint(), lag_seconds=70.0, lag_messages=None)])
    (figures,) = await store.flow_figures()
    assert (figures["lag_messages"], figures["lag_seconds"]) == (None, None), "a bound is no lag"
    assert figures["uncopied_age_seconds"] >= 70.0


async def test_a_blocked_topic_without_queues_shows(store):
    flow = await put_flow(store)
    pair = await store.claim_pair(flow.flow_id, "x", "x")
    await store.set_pair_state(pair.pair_id, "blocked", "static topic")
    (figures,) = await store.flow_figures()
    assert (figures["queues_by_state"], figures["error"], figures["lag_messages"]) == ({"blocked": 1}, "static topic", None)


async def test_queues_without_a_live_lease_wait_for_a_worker(store):
    await put_assignments(store)
    assert (await store.flow_figures())[0]["queues_by_state"] == {"waiting-for-worker": 1}
    (row,) = await leased(store)
    assert (await store.flow_figures())[0]["queues_by_state"] == {"starting": 1}
    await store.save_progress([Progress(row.assignment_id, row.token, Checkpoint())])
    await expire(store)
    assert (await store.flow_figures())[0]["queues_by_state"] == {"waiting-for-worker": 1}
    assert (await store.assignments())[0].state == "waiting-for-worker"
    await store.set_paused("orders", True)
    (figures,) = await store.flow_figures()
    assert (figures["queues_by_state"], figures["paused"]) == ({"paused": 1}, True)
