"""Moves of consumers, and when each cluster was last seen."""

from dataclasses import replace

import pytest

from replicator.store.failover_rows import FailoverRow
from replicator.store.port import Conflict

HOLDER, OTHER = "coordinator-1", "coordinator-2"
ROW = FailoverRow("orders", "failover", "hangzhou", "shanghai", {"rehearse": True}, {"state": "running"})


async def test_one_move_of_a_task_is_open_at_a_time(store):
    first = await store.begin_failover(ROW)
    with pytest.raises(Conflict, match="a failover or failback of task orders is under way"):
        await store.begin_failover(ROW)
    other = await store.begin_failover(replace(ROW, task="pay"))
    await store.hold_coordinator(HOLDER, 30)
    (kept,) = await store.failovers("orders")
    assert await store.save_failover(HOLDER, replace(kept, is_open=False, course={"state": "done"}))
    second = await store.begin_failover(replace(ROW, kind="failback"))
    assert [one.failover_id for one in await store.failovers("orders")] == [first, second]
    assert [one.failover_id for one in await store.failovers(open_only=True)] == [other, second]
    assert [one.failover_id for one in await store.failovers("orders", limit=1)] == [second]


async def test_a_move_is_carried_on_by_the_holder_of_the_lease_only(store):
    failover_id = await store.begin_failover(ROW)
    (kept,) = await store.failovers("orders")
    assert (kept.failover_id, kept.options, kept.is_open, kept.abort_asked) == (failover_id, {"rehearse": True}, True, False)
    assert kept.created_at is not None
    changed = replace(kept, course={"state": "waiting", "steps": [{"name": "progress"}]})
    assert not await store.save_failover(HOLDER, changed)
    await store.hold_coordinator(HOLDER, 30)
    assert not await store.save_failover(OTHER, changed)
    assert await store.save_failover(HOLDER, changed)
    assert (await store.failovers("orders"))[0].course == changed.course


async def test_an_abort_can_be_asked_for_by_anybody_and_survives_a_save(store):
    failover_id = await store.begin_failover(ROW)
    (kept,) = await store.failovers("orders")
    assert await store.ask_abort(failover_id)
    await store.hold_coordinator(HOLDER, 30)
    assert await store.save_failover(HOLDER, kept)
    assert (await store.failovers("orders"))[0].abort_asked
    assert await store.save_failover(HOLDER, replace(kept, is_open=False))
    assert not await store.ask_abort(failover_id)
    assert not await store.ask_abort(failover_id + 1000)


async def test_what_was_seen_of_a_cluster_is_kept_with_its_time(store):
    assert not await store.save_sightings(HOLDER, "orders", {"hangzhou": {}})
    await store.hold_coordinator(HOLDER, 30)
    assert await store.save_sightings(HOLDER, "orders", {"hangzhou": {"delayed": 3}, "shanghai": {}})
    before = await store.sightings("orders")
    assert {name: one.info for name, one in before.items()} == {"hangzhou": {"delayed": 3}, "shanghai": {}}
    assert await store.save_sightings(HOLDER, "orders", {"hangzhou": {"delayed": 4}})
    after = await store.sightings("orders")
    assert after["hangzhou"].info == {"delayed": 4}
    assert after["hangzhou"].at >= before["hangzhou"].at
    assert after["shanghai"] == before["shanghai"]
    assert await store.sightings("pay") == {}
