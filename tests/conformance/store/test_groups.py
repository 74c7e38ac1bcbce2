"""What is known of consumer groups, and every write of their offsets."""

from replicator.store.group_rows import GroupState, GroupWrite, QueueWrite
from tests.conformance.store.scene import put_assignments, queue

HOLDER, OTHER = "coordinator-1", "coordinator-2"
PAIR = ("hangzhou", "shanghai")


def write(group="g", new=7):
    return GroupWrite("orders", group, "shanghai", "hangzhou", "sync", (QueueWrite(queue("orders", 0), 3, new),))


async def test_states_are_kept_whole_by_the_holder_of_the_lease_only(store):
    row = GroupState("orders", "g", PAIR, {"owner": "hangzhou", "offsets": {"orders b/0": 2**62}})
    assert not await store.save_group_states(HOLDER, [row])
    assert await store.hold_coordinator(HOLDER, 30)
    assert not await store.save_group_states(OTHER, [row])
    assert list(await store.group_states("orders")) == []
    second = GroupState("orders", "a", PAIR, {})
    assert await store.save_group_states(HOLDER, [row, second])
    changed = GroupState("orders", "g", PAIR, {"owner": None})
    assert await store.save_group_states(HOLDER, [changed, GroupState("other", "g", PAIR, {})])
    assert list(await store.group_states("orders")) == [second, changed]


async def test_an_intent_stands_before_the_write_and_carries_the_token(store):
    assert await store.intend_group_writes(HOLDER, [write()]) is None
    await store.hold_coordinator(HOLDER, 30)
    ids = await store.intend_group_writes(HOLDER, [write(), write("h", 9)])
    first, second = await store.group_writes("orders")
    assert [first.write_id, second.write_id] == list(ids)
    assert (first.group, second.group, first.done, first.queues) == ("g", "h", False, write().queues)
    assert first.token == second.token >= 1
    assert first.at is not None
    read_back = (QueueWrite(queue("orders", 0), 3, 7, 7), QueueWrite(queue("orders", 1), None, 5, None, "not reached"))
    await store.finish_group_writes({ids[0]: read_back})
    first, second = await store.group_writes("orders")
    assert (first.done, first.queues, second.done) == (True, read_back, False)
    assert [one.group for one in await store.group_writes("orders", "h")] == ["h"]
    assert [one.group for one in await store.group_writes("orders", limit=1)] == ["h"]
    assert list(await store.group_writes("other")) == []


async def test_the_token_grows_with_each_new_holder(store):
    async def token(holder):
        await store.intend_group_writes(holder, [write()])
        return (await store.group_writes("orders"))[-1].token

    await store.hold_coordinator(HOLDER, 30)
    first = await token(HOLDER)
    await store.hold_coordinator(HOLDER, 30)
    assert await token(HOLDER) == first
    assert not await store.hold_coordinator(OTHER, 30)
    assert await store.intend_group_writes(OTHER, [write()]) is None
    await store.hold_coordinator(HOLDER, 0.0)
    assert await store.intend_group_writes(HOLDER, [write()]) is None
    assert await store.hold_coordinator(OTHER, 0.01)
    assert await store.hold_coordinator(OTHER, 30)
    assert await token(OTHER) == first + 1


async def test_what_is_known_of_groups_goes_with_the_purge_of_a_deleted_task(store):
    await put_assignments(store)
    await store.hold_coordinator(HOLDER, 30)
    row = GroupState("orders", "g", PAIR, {})
    await store.save_group_states(HOLDER, [row])
    await store.purge_task("orders")
    assert list(await store.group_states("orders")) == [row]
    await store.delete_task("orders")
    assert list(await store.group_states("orders")) == [row]
    await store.purge_task("orders")
    assert list(await store.group_states("orders")) == []
