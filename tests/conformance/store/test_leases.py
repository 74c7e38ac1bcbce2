"""Leases, tokens, fencing, expiry, pause, the coordinator's lease."""

import asyncio
import itertools

import pytest

from replicator.core.errors import Missing
from replicator.core.record import RecordIdentity
from replicator.store.port import Checkpoint, Conflict, Progress, Run
from tests.conformance.store.scene import LEASE_SECONDS, SHORT_LEASE_SECONDS, expire, leased, put_assignments, put_flow


def progress(row, **fields):
    return Progress(row.assignment_id, row.token, Checkpoint(examined_through=5), **fields)


async def test_free_assignments_are_leased_up_to_the_limit_and_once(store):
    await put_assignments(store, 3)
    first = await leased(store, "worker-1", limit=2)
    second = await leased(store, "worker-2", limit=2)
    assert len(first) == 2
    assert len(second) == 1
    assert {row.assignment_id for row in first}.isdisjoint(row.assignment_id for row in second)
    assert [(row.token, row.holder, row.clean, row.senders) for row in first] == [(1, "", True, ())] * 2
    assert {row.holder for row in await store.assignments()} == {"worker-1", "worker-2"}
    assert await leased(store, "worker-3") == []


async def test_two_workers_at_the_same_moment_share_without_overlap(store):
    await put_assignments(store, 12)
    shares = await asyncio.gather(*(leased(store, f"worker-{n}", limit=4) for n in range(4)))
    later = await leased(store, "last")
    ids = [row.assignment_id for row in itertools.chain(*shares, later)]
    assert len(ids) == len(set(ids)) == 12


async def test_an_expired_lease_goes_to_the_next_with_a_new_token_and_the_old_token_is_worth_nothing(store):
    await put_assignments(store)
    (old,) = await leased(store)
    assert await store.save_progress([progress(old, senders=("s1", "s2"))]) == set()
    await expire(store)
    (new,) = await leased(store, "worker-2", seconds=SHORT_LEASE_SECONDS)
    assert (new.token, new.holder, new.clean, new.senders) == (old.token + 1, "worker-1", False, ("s1", "s2", f"worker-1!{old.token}"))
    assert new.checkpoint.examined_through == 5
    late = Progress(old.assignment_id, old.token, Checkpoint(examined_through=99), runs=[Run(1, 0, 0, 99)], senders=("x",))
    assert await store.save_progress([late]) == {old.assignment_id}
    assert not await store.release(old.assignment_id, old.token, clean=True)
    assert await store.renew("worker-1", LEASE_SECONDS) == {}
    assert list(await store.runs(old.assignment_id)) == []
    (row,) = await store.assignments()
    assert (row.checkpoint.examined_through, row.senders, row.holder) == (5, ("s1", "s2", f"worker-1!{old.token}"), "worker-2")


async def test_a_fenced_item_does_not_keep_the_others_from_being_saved(store):
    await put_assignments(store, 2)
    one, two = await leased(store)
    stale = Progress(one.assignment_id, one.token - 1, Checkpoint(examined_through=8))
    unknown = Progress(987654, 1, Checkpoint())
    assert await store.save_progress([stale, progress(two), unknown]) == {one.assignment_id, 987654}
    assert [row.checkpoint and row.checkpoint.examined_through for row in await store.assignments()] == [None, 5]
    assert await store.save_progress([]) == set()


async def test_a_lease_that_was_renewed_is_kept(store):
    await put_assignments(store, 2)
    rows = await leased(store, seconds=SHORT_LEASE_SECONDS)
    assert await store.renew("worker-1", LEASE_SECONDS) == {row.assignment_id: row.token for row in rows}
    await asyncio.sleep(2 * SHORT_LEASE_SECONDS)
    assert await leased(store, "worker-2", seconds=SHORT_LEASE_SECONDS) == []


async def test_an_expired_lease_that_nobody_took_can_still_be_renewed_and_saved(store):
    await put_assignments(store)
    (row,) = await leased(store)
    await expire(store)
    assert await store.save_progress([progress(row)]) == set()
    assert await store.renew("worker-1", LEASE_SECONDS) == {row.assignment_id: row.token}


@pytest.mark.parametrize("clean", [True, False])
async def test_release_frees_at_once_and_tells_the_next_how_it_was_left(store, clean):
    await put_assignments(store)
    (row,) = await leased(store)
    assert await store.release(row.assignment_id, row.token, clean=clean)
    assert not await store.release(row.assignment_id, row.token, clean=clean)
    assert await store.save_progress([progress(row)]) == {row.assignment_id}
    assert await store.renew("worker-1", LEASE_SECONDS) == {}
    (after,) = await leased(store, "worker-2")
    assert (after.token, after.holder, after.clean) == (row.token + 1, "worker-1", clean)


async def test_paused_flows_and_topics_are_not_leased_and_their_holders_are_told(store):
    flow, pair = await put_assignments(store)
    (row,) = await leased(store)
    assert list(await store.revoked("worker-1")) == []
    for options in ({}, {"topic": "orders"}, {"flow": ("hangzhou", "shanghai")}):
        assert await store.set_paused("orders", True, **options) == 1
        assert list(await store.revoked("worker-1")) == [row.assignment_id]
        assert list(await store.revoked("worker-2")) == []
        (shown,) = await store.assignments()
        assert (shown.paused, shown.state) == (True, "starting")  # not paused before its holder let go
        assert await store.set_paused("orders", False, **options) == 1
        assert list(await store.revoked("worker-1")) == []
    await store.set_paused("orders", True)
    await store.release(row.assignment_id, row.token, clean=True)
    assert (await store.assignments())[0].state == "paused"
    assert await leased(store) == []
    assert (await store.flows())[0].paused
    assert await store.set_paused("orders", True, topic="other") == 0
    assert await store.set_paused("orders", True, flow=("shanghai", "hangzhou")) == 0
    assert await store.set_paused("unknown", True) == 0
    await store.set_paused("orders", False)
    await store.set_paused("orders", True, topic="orders")
    assert (await store.pairs())[0].paused
    assert await leased(store) == []


async def test_blocked_pairs_and_deleted_tasks_are_revoked(store):
    _, pair = await put_assignments(store)
    (row,) = await leased(store)
    await store.set_pair_state(pair.pair_id, "blocked", "a ring")
    assert list(await store.revoked("worker-1")) == [row.assignment_id]
    (blocked,) = await store.pairs()
    assert (blocked.state, blocked.reason) == ("blocked", "a ring")
    await store.set_pair_state(pair.pair_id, "active", "")
    assert list(await store.revoked("worker-1")) == []
    await store.delete_task("orders")
    assert list(await store.revoked("worker-1")) == [row.assignment_id]
    assert await store.save_progress([progress(row)]) == set(), "what was copied until now still counts"


async def test_a_holder_lets_go_even_if_the_task_is_back_before_it_looked(store):
    await put_assignments(store)
    (row,) = await leased(store)
    await store.delete_task("orders")
    flow = await put_flow(store, "again")
    await store.claim_pair(flow.flow_id, "orders", "orders")
    assert list(await store.revoked("worker-1")) == [row.assignment_id]
    await store.release(row.assignment_id, row.token, clean=True)
    (after,) = await leased(store)
    assert after.flow_id == flow.flow_id
    assert list(await store.revoked("worker-1")) == []


async def test_an_expired_lease_counts_only_after_the_database_was_up_for_one_lease_time(store):
    """While it was down nobody could renew. No server of ours has been up for three years."""
    await put_assignments(store, 2)
    (row, free) = await leased(store)
    await store.release(free.assignment_id, free.token, clean=True)
    await expire(store)
    three_years_seconds = 1e8
    assert [one.assignment_id for one in await leased(store, "worker-2", seconds=three_years_seconds)] == [free.assignment_id]
    assert await store.hold_coordinator("c1", 0.0)
    assert not await store.hold_coordinator("c2", three_years_seconds)
    assert [one.assignment_id for one in await leased(store, "worker-3", seconds=SHORT_LEASE_SECONDS)] == [row.assignment_id]


async def test_one_coordinator_at_a_time(store):
    assert await store.hold_coordinator("c1", LEASE_SECONDS)
    assert not await store.hold_coordinator("c2", LEASE_SECONDS)
    assert await store.hold_coordinator("c1", 0.0)
    assert await store.hold_coordinator("c2", SHORT_LEASE_SECONDS)
    assert not await store.hold_coordinator("c1", LEASE_SECONDS)


async def test_leases_of_a_task_are_counted_also_after_it_was_deleted(store):
    await put_assignments(store, 2)
    one, two = await leased(store)
    assert (await store.leased_count("orders"), await store.leased_count("other")) == (2, 0)
    await store.delete_task("orders")
    assert await store.leased_count("orders") == 2
    await store.release(one.assignment_id, one.token, clean=True)
    assert await store.leased_count("orders") == 1
    await expire(store)
    assert await store.leased_count("orders") == 0


async def test_a_new_epoch_is_set_only_while_nobody_holds_the_lease(store):
    await put_assignments(store)
    (row,) = await leased(store)
    identity = RecordIdentity(4, 1, 2, 3)
    checkpoint = Checkpoint(1, 5, 4, 40, identity, 41, {"up": 3}, True, 5, {"loop": 1})
    await store.save_progress([Progress(row.assignment_id, row.token, checkpoint, state="stopped-history-change", error="truncated")])
    with pytest.raises(Conflict, match="leased to worker-1"):
        await store.set_epoch(row.assignment_id, 2, 100, "accepted")
    await expire(store)
    with pytest.raises(Conflict, match="not a later one"):
        await store.set_epoch(row.assignment_id, 1, 100, "accepted")
    with pytest.raises(Missing):
        await store.set_epoch(987654, 2, 100, "accepted")
    await store.set_epoch(row.assignment_id, 2, 100, "accepted")
    assert await store.save_progress([progress(row)]) == {row.assignment_id}, "the old holder is fenced off"
    (after,) = await leased(store, "worker-2")
    assert after.checkpoint == Checkpoint(2, 100, -1, -1, None, 41, {}, True, 5, {"loop": 1})
    assert (after.state, after.error) == ("starting", "")
    (event,) = await store.events("orders")
    assert event.kind == "epoch"
    assert event.detail == {
        "assignment_id": row.assignment_id, "epoch": 2, "examined_through": 100, "reason": "accepted", "given_up": None,
        "divergence_offset": 100,
    }
