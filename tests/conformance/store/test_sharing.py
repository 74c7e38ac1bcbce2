"""Who is chosen for an assignment, who follows, and what happens when nobody chooses or the chosen one is gone."""

import asyncio
import time

import pytest

from replicator.store.limits import WORKER_GONE_SECONDS
from replicator.store.port import Checkpoint, LeaseLost, Progress
from replicator.store.sharing_port import Released
from tests.conformance.store.scene import LEASE_SECONDS, SHORT_LEASE_SECONDS, leased, put_assignments, put_flow

SOON_SECONDS = 5.0


async def seen(store, *workers, **info):
    for worker in workers:
        await store.worker_seen(worker, {"assignments": 0, **info})


async def decided(store, placed):
    assert await store.hold_coordinator("c1", LEASE_SECONDS)
    assert await store.place("c1", placed)


async def ids(store):
    return [row.assignment_id for row in await store.assignments()]


async def test_while_a_coordinator_decides_a_worker_takes_what_it_was_chosen_for_and_nothing_else(store):
    await put_assignments(store, 3)
    one, two, three = await ids(store)
    await seen(store, "w1", "w2")
    await decided(store, {one: "w1", two: "w2"})
    assert [row.assignment_id for row in await leased(store, "w1")] == [one]
    assert [row.assignment_id for row in await leased(store, "w2")] == [two]
    assert {row.assignment_id: row.worker for row in await store.assignments()} == {one: "w1", two: "w2", three: ""}


async def test_without_a_coordinator_whoever_comes_first_takes_what_is_free(store):
    await put_assignments(store, 2)
    await seen(store, "w1", "w2")
    await decided(store, dict.fromkeys(await ids(store), "w2"))
    assert await leased(store, "w1") == []
    await store.drop_coordinator("c1")
    assert len(await leased(store, "w1")) == 2


async def test_a_holder_lets_go_of_what_a_living_worker_was_chosen_for(store):
    await put_assignments(store, 2)
    one, two = await ids(store)
    await seen(store, "w1", "w2")
    await leased(store, "w1")
    await decided(store, {one: "w1", two: "w2"})
    assert list(await store.revoked("w1")) == [two]
    assert await leased(store, "w2") == [], "not before its holder let go"
    await store.worker_left("w2")
    assert list(await store.revoked("w1")) == [], "nobody is there to take it"
    await decided(store, {two: "never-seen"})
    assert list(await store.revoked("w1")) == []


async def test_staff_are_those_that_live_and_did_not_say_goodbye(store):
    await put_assignments(store, 3)
    one, two, three = await ids(store)
    await seen(store, "w1", "w3")
    await seen(store, "w2", near="shanghai")
    await decided(store, {one: "w2", two: "w3"})
    before = await store.staff()
    assert (dict(before.near), before.silent, before.strays) == ({"w1": "", "w2": "shanghai", "w3": ""}, frozenset(), 1)
    await store.worker_left("w3")
    after = await store.staff()
    assert (set(after.near), after.silent, after.strays) == ({"w1", "w2"}, frozenset(), 2)
    assert [name for name, _, _ in await store.workers(60.0)] == ["w1", "w2"]
    await store.set_paused("orders", True)
    assert (await store.staff()).strays == 0, "nobody should copy them now"


async def test_a_worker_that_falls_silent_is_no_longer_staff_and_what_it_was_chosen_for_is_taken_by_others(store):
    await put_assignments(store)
    (only,) = await ids(store)
    await seen(store, "w1")
    await decided(store, {only: "w1"})
    assert [row.chosen for row in await store.shares()] == ["w1"]
    deadline = time.monotonic() + WORKER_GONE_SECONDS + SOON_SECONDS
    while not (staff := await store.staff()).silent:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    assert (dict(staff.near), staff.silent, staff.strays) == ({}, {"w1"}, 1)
    assert await leased(store, "w2") == [], "the coordinator has one lease time to choose again"
    assert len(await leased(store, "w2", seconds=SHORT_LEASE_SECONDS)) == 1


async def test_shares_tell_who_is_to_copy_else_who_copies_and_how_much(store):
    flow, _ = await put_assignments(store, 3)
    one, two, three = await ids(store)
    (row, *_) = await leased(store, "w1", limit=2)
    await store.save_progress([Progress(row.assignment_id, row.token, Checkpoint(), rate_per_second=12.5)])
    await decided(store, {two: "w2"})
    found = {share.assignment_id: share for share in await store.shares()}
    assert {key: (share.chosen, share.holder) for key, share in found.items()} == {one: ("", "w1"), two: ("w2", "w1"), three: ("", "")}
    assert found[one].rate_per_second == 12.5
    assert found[one].destination == flow.destination
    await store.set_paused("orders", True, topic="orders")
    assert list(await store.shares()) == []


async def test_only_the_holder_of_the_lease_decides(store):
    await put_assignments(store)
    (only,) = await ids(store)
    assert not await store.place("c1", {only: "w1"})
    assert await store.hold_coordinator("c2", LEASE_SECONDS)
    assert not await store.place("c1", {only: "w1"})
    assert await store.place("c2", {})
    assert (await store.assignments())[0].worker == ""


async def test_the_store_of_who_reconciles_does_nothing_after_the_lease_is_gone(store):
    guarded = store.under_lease("c1")
    with pytest.raises(LeaseLost):
        await guarded.record_event("orders", "kind", "text")
    assert await store.hold_coordinator("c1", LEASE_SECONDS)
    await put_assignments(guarded, 2)
    await guarded.record_event("orders", "kind", "text")
    await store.drop_coordinator("c1")
    assert await store.hold_coordinator("c2", LEASE_SECONDS), "a lease given back is free at once"
    for refused in (guarded.pairs(), guarded.record_event("orders", "kind", "text"), guarded.set_paused("orders", True)):
        with pytest.raises(LeaseLost):
            await refused
    assert len(await store.events("orders")) == 1
    assert len(await store.assignments()) == 2


async def test_what_the_holder_tells_is_read_by_all_until_its_lease_ends(store):
    assert await store.told_by_coordinator() == ("", {})
    assert not await store.tell_as_coordinator("c1", {"a": 1})
    assert await store.hold_coordinator("c1", LEASE_SECONDS)
    assert await store.told_by_coordinator() == ("c1", {})
    assert await store.tell_as_coordinator("c1", {"a": [1, None]})
    assert not await store.tell_as_coordinator("c2", {"b": 1})
    assert await store.told_by_coordinator() == ("c1", {"a": [1, None]})
    await store.drop_coordinator("c1")
    assert await store.told_by_coordinator() == ("", {})


async def test_leases_given_back_together(store):
    await put_assignments(store, 3)
    one, two, three = await leased(store)
    given = [Released(one.assignment_id, one.token, True), Released(two.assignment_id, two.token, False), Released(3_000_000, 1, True)]
    assert await store.release_all([*given, Released(three.assignment_id, three.token + 1, True)]) == {one.assignment_id, two.assignment_id}
    assert await store.release_all([]) == set()
    after = {row.assignment_id: row.clean for row in await leased(store, "w2")}
    assert after == {one.assignment_id: True, two.assignment_id: False}


@pytest.mark.parametrize("what", ["placed", "released", "joined", "left", "added", "dropped"])
async def test_a_watch_hears_of_every_change_of_workers_leases_and_choice(store, what):
    await put_assignments(store, 1)
    (row,) = await leased(store, "w1")
    await seen(store, "w1")
    await store.hold_coordinator("c1", LEASE_SECONDS)
    watch = store.watch()
    await watch.changed(1.0)  # Takes what is there already, so that it listens.
    waiting = asyncio.create_task(watch.changed(60.0))
    await asyncio.sleep(0)
    if what == "placed":
        await store.place("c1", {row.assignment_id: "w2"})
    elif what == "released":
        await store.release(row.assignment_id, row.token, clean=True)
    elif what == "joined":
        await seen(store, "w2")
    elif what == "left":
        await store.worker_left("w1")
    elif what == "added":
        await put_flow(store, "more", "beijing", "shanghai")
        await put_assignments(store, 1, task="other", topic="other")
    else:
        await store.drop_coordinator("c1")
    await asyncio.wait_for(waiting, SOON_SECONDS)


async def test_a_watch_returns_by_itself_when_nothing_happens(store):
    watch = store.watch()
    await watch.changed(0.05)
    began = time.monotonic()
    await watch.changed(0.2)
    assert 0.1 < time.monotonic() - began < SOON_SECONDS
