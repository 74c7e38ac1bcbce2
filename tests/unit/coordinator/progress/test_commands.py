"""Planning and syncing by hand."""

import pytest

from replicator.coordinator.progress.commands import Ask, Place
from replicator.core.errors import InvalidInput, Missing, NotConnected, Unsafe
from replicator.core.groups import GroupMembers, GroupSettings, Subscription
from replicator.core.task import ProgressSpec
from tests.unit.coordinator.progress.conftest import GroupedConnector, leave, make


@pytest.mark.parametrize("lag", [0, 1, 9, 10])
async def test_a_stopped_group_goes_on_exactly_where_it_stood(manual, lag):
    manual.commit("hz", "pay", 10 - lag)
    (row,) = manual.plan_of(await manual.plan(), "pay")
    assert (row["from"], row["to"], row["action"], row["seen_again"], row["exact"]) == (10 - lag, 10 - lag, "move", 0, True)
    assert manual.stands("sh", "pay") is None
    answer = await manual.sync("pay", seen_again=0)
    assert (answer["moved"], answer["refused"], answer["failed"]) == (1, 0, 0)
    assert manual.stands("sh", "pay") == 10 - lag
    assert manual.groups["sh"].settings["pay"].settings == {"retryMaxTimes": 3}
    (row,) = manual.plan_of(await manual.plan(), "pay")
    assert row["action"] == "keep"


async def test_what_a_group_processed_before_it_was_copied_is_said_beforehand(manual):
    manual.fill("hz", "orders", 5)
    manual.commit("hz", "pay", 15)
    answer = await manual.plan("pay")
    (row,) = manual.plan_of(answer, "pay")
    assert (row["to"], row["seen_again"], row["exact"], answer["seen_again"]) == (10, 5, False, 5)
    with pytest.raises(Unsafe, match="5 messages would be seen again, not 4"):
        await manual.sync("pay", seen_again=4)
    assert manual.groups["sh"].writes == []


async def test_the_intent_is_stored_before_the_write_and_its_result_after_it(manual):
    manual.commit("hz", "pay", 4)
    connector = manual.groups["sh"]
    seen = []

    class Watching(dict):
        def __missing__(self, key):
            return 0

        def __setitem__(self, key, value):
            if key == "write_offsets":
                seen.extend(one.done for one in manual.store._tables.group_writes.values())
            super().__setitem__(key, value)

    connector.calls = Watching()
    await manual.sync("pay")
    assert seen == [False]
    (write,) = await manual.store.group_writes("t")
    (queue,) = write.queues
    assert (write.done, write.owner, write.cluster, queue.old, queue.new, queue.now) == (True, "hz", "sh", None, 4, 4)
    assert write.token >= 1
    listed = await manual.coordinator.groups_list(Ask("t", "hz", "sh"))
    assert listed["groups"][0]["last_write"]["done"] is True
    assert "groups-synced" in await manual.event_kinds("t")


async def test_a_group_that_is_active_on_the_destination_is_never_written(manual):
    manual.commit("hz", "pay", 4)
    manual.groups["sh"].members["pay"] = GroupMembers(2, "push", subscriptions=(Subscription("orders"),))
    (row,) = manual.plan_of(await manual.plan(), "pay")
    assert (row["action"], row["reason"]) == ("refuse", "it has 2 members on sh; --running sets it all the same, exactly")
    answer = await manual.sync("pay")
    assert (answer["moved"], answer["refused"]) == (0, 1)
    with pytest.raises(Unsafe, match="it has 2 members on sh"):
        await manual.coordinator.groups_reset(Ask("t", "hz", "sh", "pay"), Place(offset=1, topic="orders"))
    assert manual.groups["sh"].writes == []


async def test_a_running_group_is_set_when_a_person_says_so_and_its_broker_can(manual):
    manual.commit("hz", "pay", 4)
    manual.groups["sh"].members["pay"] = GroupMembers(2, "push", subscriptions=(Subscription("orders"),))
    (row,) = manual.plan_of(await manual.plan(running=True), "pay")
    assert (row["action"], row["to"]) == ("move", 4)
    assert (await manual.sync("pay", running=True))["moved"] == 1
    assert manual.stands("sh", "pay") == 4


async def test_a_running_group_on_a_broker_that_knows_times_only_is_refused(manual):
    manual.commit("hz", "pay", 4)
    manual.groups["sh"].members["pay"] = GroupMembers(2, "push", subscriptions=(Subscription("orders"),))
    manual.groups["sh"].resets_exactly = False
    (row,) = manual.plan_of(await manual.plan(running=True), "pay")
    assert row["action"] == "refuse"
    assert row["reason"].startswith("it has 2 members on sh; a broker of this version sets a running group by time only")
    assert (await manual.sync("pay", running=True))["moved"] == 0
    assert manual.groups["sh"].writes == []


async def test_a_group_goes_back_only_where_that_is_asked_for(manual):
    manual.commit("hz", "pay", 4)
    manual.commit("sh", "pay", 7)
    (row,) = manual.plan_of(await manual.plan(), "pay")
    assert row["action"] == "refuse"
    assert "it stands at 7 there" in row["reason"]
    assert (await manual.sync("pay"))["moved"] == 0
    assert (await manual.plan("pay", back=True))["groups"][0]["queues"][0]["action"] == "move"
    assert (await manual.sync("pay", back=True))["moved"] == 1
    assert manual.stands("sh", "pay") == 4


async def test_groups_of_the_system_and_excluded_ones_are_left_out(manual):
    for group in ("replicator-t-sh", "CID_RMQ_SYS_x", "TOOLS_CONSUMER", "pay"):
        manual.commit("hz", group, 4)
    assert [one["group"] for one in (await manual.plan())["groups"]] == ["pay"]
    with pytest.raises(Missing, match="group TOOLS_CONSUMER"):
        await manual.plan("TOOLS_CONSUMER")


async def test_a_local_group_is_planned_for_and_not_written():
    world = await make(ProgressSpec(local=("pay",), exclude=("x*",), sync="manual"))
    try:
        world.commit("hz", "pay", 4)
        world.commit("hz", "xyz", 4)
        answer = await world.sync()
        (row,) = world.plan_of(answer, "pay")
        assert (row["action"], row["to"], row["reason"]) == ("keep", 4, "local: declared local by progress.groups.local")
        assert len(answer["groups"]) == 1
        assert world.groups["sh"].writes == []
    finally:
        await leave(world)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (GroupMembers(1, "push", broadcasting=True, subscriptions=(Subscription("orders"),)), "local: a broadcast group"),
        (GroupMembers(1, "push", subscriptions=(Subscription("orders", "origin = 'hz'", "SQL92"),)), "local: its expression names origin"),
        (GroupMembers(2, "push", subscriptions=(Subscription("orders"),), agree=False), "local: its members on hz subscribe differently"),
    ],
)
async def test_offsets_that_mean_something_else_there_are_not_written(manual, members, reason):
    manual.commit("hz", "pay", 4)
    manual.groups["hz"].members["pay"] = members
    (row,) = manual.plan_of(await manual.plan(), "pay")
    assert row["action"] == "keep"
    assert row["reason"].startswith(reason)


async def test_what_was_handed_out_to_a_popping_group_may_be_unprocessed():
    world = await make(ProgressSpec(sync="manual", pop_bound=3))
    try:
        world.commit("hz", "pay", 8)
        world.groups["hz"].members["pay"] = GroupMembers(1, "pop", subscriptions=(Subscription("orders"),))
        answer = await world.plan()
        (row,) = world.plan_of(answer, "pay")
        assert (row["action"], row["to"], row["seen_again"], row["exact"]) == ("move", 5, 3, False)
        assert "handed out" in row["reason"]
        # Nobody is there any more, and brokers still know what it is.
        world.groups["hz"].members["pay"] = GroupMembers(kind="pop")
        assert (await world.sync("pay"))["moved"] == 1
        assert world.stands("sh", "pay") == 5
    finally:
        await leave(world)


async def test_a_broadcast_group_is_told_of_and_never_written(manual):
    manual.commit("hz", "shout@broadcast", 4)
    (listed,) = (await manual.coordinator.groups_list(Ask("t", "hz", "sh")))["groups"]
    assert (listed["group"], listed["kind"], listed["carried"]) == ("shout", "broadcast", "local")
    (row,) = manual.plan_of(await manual.plan("shout"), "shout")
    assert (row["action"], row["to"]) == ("refuse", None)
    assert "own offsets" in row["reason"]
    assert (await manual.sync())["moved"] == 0
    assert manual.groups["sh"].writes == []


async def test_a_queue_without_known_progress_is_refused():
    world = await make(queues=2)
    try:
        world.commit("hz", "pay", 4, number=0)
        first, second = world.plan_of(await world.plan(), "pay")
        assert (first["action"], second["action"]) == ("move", "refuse")
        assert "has no offset in orders hz-a/1" in second["reason"]
        answer = await world.sync("pay")
        assert (answer["moved"], answer["refused"]) == (1, 1)
        assert (world.stands("sh", "pay", number=0), world.stands("sh", "pay", number=1)) == (4, None)
    finally:
        await leave(world)


async def test_the_way_back_carries_what_was_consumed_after_a_failover(manual):
    """One-way task: progress of the destination goes back to the source, judged by the same map."""
    manual.commit("hz", "pay", 4)
    await manual.sync("pay")
    manual.commit("sh", "pay", 9)
    answer = await manual.sync("pay", "sh", "hz", seen_again=0)
    assert answer["moved"] == 1
    assert manual.stands("hz", "pay") == 9


async def test_reset_by_offset_and_time(manual):
    manual.commit("hz", "pay", 4)
    ask = Ask("t", "hz", "sh", "pay")
    preview = await manual.coordinator.groups_reset(ask, Place(offset=2, topic="orders"), True)
    assert preview["queues"] == [{"queue": "orders sh-a/0", "from": None, "to": 2}]
    assert manual.groups["sh"].writes == []
    done = await manual.coordinator.groups_reset(ask, Place(offset=2, topic="orders"))
    assert (done["queues"][0]["now"], done["failed"], manual.stands("sh", "pay")) == (2, 0, 2)
    await manual.coordinator.groups_reset(ask, Place(timestamp_ms=2**50))
    assert manual.stands("sh", "pay") == 10
    for place in (Place(), Place(offset=1), Place(offset=11, topic="orders"), Place(offset=1, timestamp_ms=1, topic="orders")):
        with pytest.raises(InvalidInput):
            await manual.coordinator.groups_reset(ask, place)
    with pytest.raises(Missing):
        await manual.coordinator.groups_reset(ask, Place(offset=1, topic="orders", queue_id=7))


async def test_what_is_not_there_is_said(manual):
    with pytest.raises(Missing, match="task other"):
        await manual.coordinator.groups_plan(Ask("other", "hz", "sh"))
    with pytest.raises(Missing, match="between hz and bj"):
        await manual.plan(destination="bj")
    manual.groups["sh"].away = NotConnected("gone")
    with pytest.raises(NotConnected, match="cluster sh"):
        await manual.plan()


async def test_nothing_is_written_without_the_lease(manual):
    manual.commit("hz", "pay", 4)
    await manual.store.hold_coordinator("another", 60)
    with pytest.raises(Unsafe, match="another coordinator holds the lease"):
        await manual.sync("pay")
    assert manual.groups["sh"].writes == []


async def test_a_group_that_cannot_be_made_fails_alone(manual, monkeypatch):
    manual.commit("hz", "pay", 4)
    manual.commit("hz", "bad", 4)
    original = GroupedConnector.create_groups

    async def refuse(self, settings: list[GroupSettings]):
        await original(self, [one for one in settings if one.group != "bad"])
        return {one.group: NotConnected("no broker") for one in settings if one.group == "bad"}

    monkeypatch.setattr(GroupedConnector, "create_groups", refuse)
    answer = await manual.sync()
    assert (answer["moved"], answer["failed"]) == (1, 1)
    assert (manual.stands("sh", "pay"), manual.stands("sh", "bad")) == (4, None)
