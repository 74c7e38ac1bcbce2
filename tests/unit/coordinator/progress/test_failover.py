"""Failover and failback over memory clusters: what is refused, what is written, what survives a kill, what an abort puts back."""

import asyncio

import pytest
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

from replicator.coordinator.failover.assessing import Move
from replicator.core.errors import OUT_OF_REACH, InvalidInput, Missing, NotConnected, Unsafe
from replicator.core.failover import Options
from replicator.core.groups import GroupMembers, GroupSettings, Subscription
from replicator.core.task import ProgressSpec
from replicator.store.port import Checkpoint, Conflict, Progress, Run
from tests.unit.coordinator.conftest import INSTANCE
from tests.unit.coordinator.progress.conftest import MANUAL, leave, make

WAIT_SECONDS = 5.0
EVERYTHING = (Subscription("orders"),)


def move(kind: str = "failover", failed: str = "hz", destination: str = "sh", **options: object) -> Move:
    return Move("t", kind, failed, destination, Options(**options))


async def begin(world, kind="failover", **options):
    assert await world.coordinator._progress.hold()
    return await world.coordinator.failover_run(move(kind, **options))


async def carried_out(world, kind="failover", **options):
    """Begun and ended; returns the move as ``status`` shows it."""
    answer = await begin(world, kind, **options)
    await asyncio.wait_for(world.coordinator._runner.carry_on(answer["id"]), WAIT_SECONDS)
    return await shown(world)


async def carried_on(world, failover_id):
    """As the runner does: a round of reconciling by hand gives the lease back, and whoever has it goes on."""
    while True:
        try:
            return await world.coordinator._runner.carry_on(failover_id)
        except Unsafe:
            await asyncio.sleep(0.02)


async def shown(world):
    return (await world.coordinator.failover_status("t"))["moves"][-1]


async def until(world, **wanted):
    async for attempt in AsyncRetrying(stop=stop_after_delay(WAIT_SECONDS), wait=wait_fixed(0.02), reraise=True):
        with attempt:
            now = await shown(world)
            assert {key: now[key] for key in wanted} == wanted, f"{now}"
    return now


def step(shown_move, name):
    (found,) = [one for one in shown_move["steps"] if one["name"] == name]
    return found


async def away(world, name):
    world.groups[name].away = NotConnected(f"cluster {name} does not answer")


async def test_a_group_goes_on_exactly_where_it_stood_and_its_new_side_owns_it(manual):
    manual.commit("hz", "pay", 6)
    plan = await manual.coordinator.failover_plan(move())
    assert (plan["from"], plan["to"], plan["seen_again"], plan["steps"]) == ("hz", "sh", 0, ["catch-up", "mark", "progress", "owner"])
    assert [one for one in plan["blockers"] if one["severity"] == "blocks"] == []
    done = await carried_out(manual)
    assert (done["state"], [one["state"] for one in done["steps"]]) == ("done", ["done"] * 4)
    assert manual.stands("sh", "pay") == 6
    listed = (await manual.plan("pay"))["groups"][0]
    assert listed["owner"] == "sh"
    assert {"failover-began", "failover-done"} <= set(await manual.event_kinds("t"))


@pytest.mark.parametrize("error", OUT_OF_REACH)
async def test_with_the_source_gone_its_progress_is_as_last_seen(manual, error):
    """Gone, or not letting us in."""
    manual.commit("hz", "pay", 4)
    await manual.interval(2)
    manual.commit("hz", "pay", 7)
    await manual.interval(1)
    manual.commit("hz", "pay", 9)  # nobody has read this any more
    manual.groups["hz"].away = error("cluster hz does not answer, or refuses the key")
    manual.coordinator._progress.of("t").forget()
    plan = await manual.coordinator.failover_plan(move())
    (age,) = [one for one in plan["blockers"] if one["name"] == "progress-age"]
    assert age["severity"] == "warns"
    assert "hz cannot be reached: its progress is as last read" in age["text"]
    done = await carried_out(manual)
    assert done["state"] == "done"
    assert manual.stands("sh", "pay") == 7
    assert "hz cannot be reached" in step(done, "catch-up")["detail"] or "everything of hz" in step(done, "catch-up")["detail"]


async def test_a_source_that_was_never_read_blocks(manual):
    await away(manual, "hz")
    with pytest.raises(Unsafe, match="its progress was never read"):
        await begin(manual)


async def test_consumers_on_either_side_block_unless_forced(manual):
    manual.commit("hz", "pay", 4)
    manual.commit("hz", "ship", 5)
    manual.groups["hz"].members["pay"] = GroupMembers(1, "push", subscriptions=EVERYTHING)
    manual.groups["sh"].members["ship"] = GroupMembers(1, "push", subscriptions=EVERYTHING)
    with pytest.raises(Unsafe, match="1 groups still consume on hz.*1 groups are active on sh"):
        await begin(manual)
    assert await manual.store.failovers("t") == []
    done = await carried_out(manual, force=True)
    assert "left out: group ship" in step(done, "progress")["detail"]
    assert (manual.stands("sh", "pay"), manual.stands("sh", "ship")) == (4, None)


async def test_consumers_that_come_up_in_between_are_waited_for(manual):
    manual.commit("hz", "pay", 4)
    answer = await begin(manual)
    manual.groups["sh"].members["pay"] = GroupMembers(1, "push", subscriptions=EVERYTHING)
    running = asyncio.create_task(manual.coordinator._runner.carry_on(answer["id"]))
    await until(manual, state="waiting", reason="group pay active on sh: stop the consumers there")
    assert manual.stands("sh", "pay") is None
    manual.groups["sh"].members.clear()
    await asyncio.wait_for(running, WAIT_SECONDS)
    assert (await shown(manual))["state"] == "done"
    assert manual.stands("sh", "pay") == 4


async def test_a_move_goes_on_where_a_killed_coordinator_left_it(manual):
    manual.commit("hz", "pay", 4)
    manual.commit("hz", "ship", 5)
    answer = await begin(manual)
    runner, saves = manual.coordinator._runner, []
    save = manual.store.save_failover

    for allowed in range(12):
        seen = 0

        async def dying(holder, row, allowed=allowed):
            nonlocal seen
            seen += 1
            saves.append(row.course["state"])
            if seen > allowed % 3 + 1:
                raise RuntimeError("killed")
            return await save(holder, row)

        manual.store.save_failover = dying
        try:
            await asyncio.wait_for(runner.carry_on(answer["id"]), WAIT_SECONDS)
            break
        except RuntimeError:
            continue
    manual.store.save_failover = save
    await asyncio.wait_for(runner.carry_on(answer["id"]), WAIT_SECONDS)
    assert (await shown(manual))["state"] == "done"
    assert (manual.stands("sh", "pay"), manual.stands("sh", "ship")) == (4, 5)
    assert sorted(group for group, _ in manual.groups["sh"].writes if not group.startswith("replicator-")) == ["pay", "ship"]


async def test_a_rehearsal_writes_nothing_that_a_client_would_notice(manual):
    manual.commit("hz", "pay", 4)
    done = await carried_out(manual, rehearse=True, fence_source=True)
    assert done["state"] == "done"
    assert step(done, "fence")["detail"] == "would be: groups closed: 1, topics closed: 1"
    assert step(done, "progress")["detail"] == "would move 1 groups, 0 messages seen again"
    assert manual.groups["sh"].writes == manual.groups["hz"].writes == []
    assert "pay" not in manual.groups["sh"].settings
    assert manual.memory["hz"].topics["orders"].writable


async def test_an_abort_opens_what_the_fence_closed(manual):
    manual.commit("hz", "pay", 4)
    answer = await begin(manual, fence_source=True)
    running = asyncio.create_task(manual.coordinator._runner.carry_on(answer["id"]))
    waiting = await until(manual, state="waiting")
    assert "producers notice the closed topics within" in waiting["reason"]
    assert not manual.groups["hz"].settings["pay"].consumable
    assert not manual.memory["hz"].topics["orders"].writable
    await manual.coordinator.failover_abort("t", "failover")
    await asyncio.wait_for(running, WAIT_SECONDS)
    assert (await shown(manual))["state"] == "aborted"
    assert manual.groups["hz"].settings["pay"].consumable
    assert manual.memory["hz"].topics["orders"].writable
    assert manual.groups["sh"].writes == []
    with pytest.raises(Missing, match="no failover of task t is under way"):
        await manual.coordinator.failover_abort("t", "failover")


async def test_what_is_not_copied_is_waited_for_while_the_source_answers(manual):
    manual.commit("hz", "pay", 12)
    manual.fill("hz", "orders", 5)
    plan = await manual.coordinator.failover_plan(move())
    assert plan["not_copied"]["messages"] == 5
    answer = await begin(manual)
    running = asyncio.create_task(manual.coordinator._runner.carry_on(answer["id"]))
    waiting = await until(manual, state="waiting")
    assert waiting["reason"].startswith("5 messages of hz are not on sh yet")
    manual.fill("hz", "orders", 1)  # what comes later is not waited for
    await manual.copy("hz", "sh")
    await asyncio.wait_for(running, WAIT_SECONDS)
    assert manual.stands("sh", "pay") == 12


async def test_one_move_of_a_task_at_a_time(manual):
    manual.commit("hz", "pay", 4)
    await begin(manual)
    with pytest.raises(Conflict, match="under way"):
        await begin(manual)


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"failed": "bj"}, Missing, "task t has no cluster bj"),
        ({"failed": "sh", "destination": "hz"}, InvalidInput, "copies nothing from sh to hz"),
        ({"failed": "hz", "destination": "hz"}, InvalidInput, "are the same"),
        ({"topic": "nope"}, Missing, "does not copy topic nope"),
        ({"group": "nope"}, Missing, "group nope has no progress"),
    ],
)
async def test_what_is_wrong_is_said(manual, wrong, error, text):
    manual.commit("hz", "pay", 4)
    with pytest.raises(error, match=text):
        await manual.coordinator.failover_plan(move(**wrong))


async def test_back_again_with_what_was_born_meanwhile(manual):
    manual.commit("hz", "pay", 10)
    await carried_out(manual)
    manual.fill("sh", "orders", 6)  # producers of sh
    manual.commit("sh", "pay", 13)  # three of them are processed
    plan = await manual.coordinator.failover_plan(move("failback"))
    assert (plan["from"], plan["to"], plan["not_copied"]["messages"]) == ("sh", "hz", None)
    assert plan["steps"] == ["open", "reverse", "catch-up", "progress", "owner", "close"]
    answer = await begin(manual, "failback")
    running = asyncio.create_task(carried_on(manual, answer["id"]))
    await until(manual, state="waiting", reason="the reverse flow of orders has not begun yet")
    await manual.rounds()
    (reverse,) = await manual.assigned("sh", "hz")
    assert (reverse.task, reverse.start_offset) == ("t-back-sh", 10)
    await manual.copy("sh", "hz")
    assert await manual.coordinator._progress.hold()
    await until(manual, state="done")
    await asyncio.wait_for(running, WAIT_SECONDS)
    done = await shown(manual)
    assert done["state"] == "done"
    assert manual.stands("hz", "pay") == 13
    assert "delete it when they have stopped" in step(done, "close")["detail"]
    assert (await manual.plan("pay"))["groups"][0]["owner"] == "hz"


async def test_a_planned_move_there_and_back_leaves_everything_open(manual, monkeypatch):
    monkeypatch.setattr("replicator.coordinator.failover.steps.PRODUCERS_NOTICE_SECONDS", 0.0)
    monkeypatch.setattr("replicator.coordinator.leaving.LET_GO_SECONDS_MAX", 0.0)  # this worker never lets go
    manual.commit("hz", "pay", 10)
    await carried_out(manual, fence_source=True)
    assert not manual.groups["hz"].settings["pay"].consumable
    manual.fill("sh", "orders", 2)
    manual.commit("sh", "pay", 11)
    # Understood from the record, though the clusters are named as from and to.
    answer = await begin(manual, "failback", failed="sh", destination="hz", fence_source=True)
    running = asyncio.create_task(carried_on(manual, answer["id"]))
    await until(manual, state="waiting", reason="the reverse flow of orders has not begun yet")
    assert manual.memory["hz"].topics["orders"].writable
    assert not manual.groups["hz"].settings["pay"].consumable
    await manual.rounds()
    await manual.copy("sh", "hz")
    assert await manual.coordinator._progress.hold()
    await until(manual, state="done")
    await asyncio.wait_for(running, WAIT_SECONDS)
    assert (await shown(manual))["state"] == "done"
    assert manual.groups["hz"].settings["pay"].consumable
    assert manual.groups["sh"].settings["pay"].consumable
    assert manual.memory["sh"].topics["orders"].writable
    assert [row["name"] for row in await manual.coordinator.get("tasks")] == ["t"]
    assert manual.stands("hz", "pay") == 11


async def test_two_ways_out_for_groups_that_consume_their_own_cluster_only():
    world = await make(MANUAL, both_ways=True)
    try:
        await world.skip("sh", "hz")
        world.fill("sh", "orders", 4)
        local = GroupMembers(1, "push", subscriptions=(Subscription("orders", "origin IS NULL", "SQL92"),))
        for name, offset in (("hz", 7), ("sh", 12)):
            world.commit(name, "pay", offset)
            world.groups[name].members["pay"] = local
        await world.interval(1)
        world.groups["hz"].members.clear()
        plan = await world.coordinator.failover_plan(move())
        (found,) = plan["by_origin"]
        assert found["problem"] == ""
        second, wider = found["second_group"], found["wider_filter"]
        assert (second["group"], second["expression"]) == ("pay-of-hz", "origin = 'hz'")
        assert [queue["to"] for queue in second["queues"]] == [7]
        assert wider["expression"] == "origin IS NULL OR origin = 'hz'"
        assert [(queue["to"], queue["seen_again_max"]) for queue in wider["queues"]] == [(7, 5)]
        await carried_out(world)
        assert world.stands("sh", "pay-of-hz") == 7
        assert world.stands("sh", "pay") == 12
    finally:
        await leave(world)


async def test_a_third_cluster_stays_out_of_the_wider_filter():
    from replicator.coordinator.failover.origins import expressions
    from replicator.core.subscriptions import Subscription as Consumed
    from tests.unit.coordinator.conftest import two_way

    task = two_way("t", "hz", "sh", "bj", "gz")
    assert expressions(task, "hz", "sh", None) == ("origin = 'hz'", "origin IS NULL OR (origin <> 'bj' AND origin <> 'gz')")
    three = two_way("t", "hz", "sh", "bj")
    assert expressions(three, "hz", "sh", Consumed("a || b")) == (
        "origin = 'hz' AND TAGS IN ('a', 'b')", "(origin IS NULL OR origin <> 'bj') AND TAGS IN ('a', 'b')",
    )
    assert expressions(two_way("t", "hz", "sh", tags=()), "hz", "sh", None) is None


async def test_automatic_sync_follows_the_new_owner():
    world = await make(ProgressSpec())
    try:
        world.commit("hz", "pay", 10)
        await world.interval(6)
        assert world.stands("sh", "pay") == 10
        await carried_out(world)
        world.fill("sh", "orders", 3)
        world.commit("sh", "pay", 12)
        await world.interval(2)
        assert (await world.plan("pay", "sh", "hz"))["groups"][0]["owner"] == "sh"
        assert GroupSettings("pay").consumable
    finally:
        await leave(world)


async def lose_four(world):
    """Of ten messages, all of them copied, hz has lost the last four; its queue stopped and was led on."""
    (forward,) = await world.assigned("hz", "sh")
    world.memory["hz"].truncate(forward.source_queue, 6)
    await world.store.release(forward.assignment_id, world.tokens[forward.assignment_id], clean=True)
    await world.store.set_epoch(forward.assignment_id, 2, 6, "loss accepted")


async def reported(world, source, destination, **fields):
    """By a worker that holds the queue then."""
    (row,) = await world.assigned(source, destination)
    assert await world.coordinator._progress.hold()
    assert await world.store.place(INSTANCE, {row.assignment_id: "worker-1"})
    for one in await world.store.acquire("worker-1", 60.0, 10):
        world.tokens[one.assignment_id] = one.token
    saved = Progress(row.assignment_id, world.tokens[row.assignment_id], **{"checkpoint": row.checkpoint, **fields})
    assert await world.store.save_progress([saved]) == set()


async def test_what_the_failed_cluster_lost_goes_back_before_its_groups_do():
    world = await make(MANUAL, both_ways=True)
    try:
        await world.skip("sh", "hz")
        for name, groups in world.groups.items():
            world.commit(name, "pay", 6)
            groups.members["pay"] = GroupMembers(1, "push", subscriptions=EVERYTHING)
        await world.interval(1)
        for groups in world.groups.values():
            groups.members.clear()
        await carried_out(world)
        world.commit("sh", "pay", 8)
        await lose_four(world)
        plan = await world.coordinator.failover_plan(move("failback", restore=True))
        assert [one["name"] for one in plan["blockers"] if one["severity"] == "blocks"] == ["loss-not-known"], "nobody has looked yet"
        await reported(world, "hz", "sh")
        plan = await world.coordinator.failover_plan(move("failback", restore=True))
        assert plan["lost"]["messages"] == 4
        assert plan["steps"][:3] == ["open", "restore", "catch-up"]
        rehearsed = await carried_out(world, "failback", restore=True, rehearse=True)
        assert step(rehearsed, "restore")["detail"] == "would send back 4 messages of 1 queues that hz has lost"
        (back,) = await world.assigned("sh", "hz")
        assert len(await world.store.epochs(back.assignment_id)) == 1, "nothing has begun"
        await world.store.release(back.assignment_id, world.tokens[back.assignment_id], clean=True)
        answer = await begin(world, "failback", restore=True)
        running = asyncio.create_task(carried_on(world, answer["id"]))
        await until(world, state="waiting", reason="4 messages of sh are not on hz yet")
        world.memory["hz"].produce_many(back.destination_queue, [b"back"] * 4)
        runs = [Run(2, 6, 6, 4)]
        await reported(world, "sh", "hz", checkpoint=Checkpoint(2, 10, 9, 9, None, 10), runs=runs)
        await until(world, state="done")
        await asyncio.wait_for(running, WAIT_SECONDS)
        done = await shown(world)
        assert step(done, "restore")["detail"] == "4 messages of 1 queues that hz has lost go back to it, behind what it has taken since"
        assert world.stands("hz", "pay") == 8, "6 and 7 came back at 6 and 7, and were processed in sh"
    finally:
        await leave(world)


async def test_only_a_failback_restores(manual):
    manual.commit("hz", "pay", 6)
    for asked in (manual.coordinator.failover_plan, manual.coordinator.failover_run):
        with pytest.raises(InvalidInput, match="only a failback restores"):
            await asked(move(restore=True))
    assert await manual.store.failovers("t") == []
