"""Raising a source's read limits while a task wants it, and putting them back."""

from __future__ import annotations

import pytest

from replicator.coordinator import tuning
from replicator.core.errors import NotPermitted
from tests.unit.coordinator.conftest import one_way, two_way


def limits(world, cluster):
    return [settings["read_records_max"] for settings in world.memory[cluster].settings.values()]


async def kinds(world, task):
    return [kind for kind in await world.event_kinds(task) if kind.startswith("source-")]


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(tuning, "LOOKED_SECONDS", 0.0)


async def test_limits_are_raised_once_and_put_back_with_the_task(world, often):
    await world.apply(one_way("t", "hz", "sh", tune_source=True))
    await world.rounds(3)
    assert (limits(world, "hz"), limits(world, "sh")) == (["1024", "1024"], ["32"])
    assert await kinds(world, "t") == ["source-tuned"] * 2
    (event, _) = [one for one in await world.coordinator.events("t") if one["kind"] == "source-tuned"]
    assert event["detail"] == {"cluster": "hz", "broker": "hz-a", "settings": {"read_records_max": ["32", "1024"]}}
    assert (await world.coordinator.delete("tasks", "t"))["left"] == []
    assert limits(world, "hz") == ["32", "32"]
    assert await kinds(world, "t") == ["source-tuned"] * 2 + ["source-restored"] * 2


async def test_switched_off_it_is_put_back_but_for_what_somebody_else_set(world, often):
    await world.apply(two_way("t", "hz", "sh", tune_source=True))
    await world.rounds()
    assert (limits(world, "hz"), limits(world, "sh")) == (["1024", "1024"], ["1024"])
    world.memory["hz"].settings["hz-b"]["read_records_max"] = "64"
    await world.apply(two_way("t", "hz", "sh"))
    await world.rounds()
    assert (limits(world, "hz"), limits(world, "sh")) == (["32", "64"], ["32"])


async def test_a_broker_that_was_set_back_is_raised_again_and_the_first_value_is_what_it_gets_back(world, often):
    await world.apply(one_way("t", "sh", "hz", tune_source=True))
    await world.rounds(1)
    world.memory["sh"].settings["sh-a"]["read_records_max"] = "100"
    await world.rounds(1)
    assert limits(world, "sh") == ["1024"]
    await world.coordinator.delete("tasks", "t")
    assert limits(world, "sh") == ["32"]


async def test_it_stays_while_another_task_wants_it(world, often):
    await world.apply(one_way("t", "sh", "hz", tune_source=True), one_way("u", "sh", "bj", tune_source=True))
    await world.rounds()
    await world.coordinator.delete("tasks", "t")
    assert limits(world, "sh") == ["1024"]
    await world.coordinator.delete("tasks", "u")
    assert limits(world, "sh") == ["32"]


async def test_without_the_right_the_flow_goes_on_and_it_is_told_once(world, often):
    world.memory["sh"].add_topic("orders", {"sh-a": 1})
    await world.apply(one_way("t", "sh", "hz", tune_source=True))
    for _ in range(3):
        world.memory["sh"].fail_next_call("plan_tuning", NotPermitted("no rights"))
        await world.rounds(1)
    assert await kinds(world, "t") == ["source-not-tuned"]
    assert len(await world.assigned("sh", "hz")) == 1
    assert (await world.flow("sh", "hz"))["state"] == "waiting-for-worker"


async def test_what_cannot_be_put_back_is_told(world, often):
    await world.apply(one_way("t", "sh", "hz", tune_source=True))
    await world.rounds()
    world.memory["sh"].fail_next_call("change_settings", NotPermitted("no rights"))
    (left,) = (await world.coordinator.delete("tasks", "t"))["left"]
    assert left == "settings of broker sh-a on sh: no rights"
