"""How long until the source deletes what is not yet copied: computed, cheap, and null where it cannot be known."""

from __future__ import annotations

import pytest

from replicator.coordinator import headroom
from replicator.core.errors import NotPermitted
from tests.unit.coordinator.conftest import one_way

DAY_SECONDS = 86_400.0


async def started(world, retention_seconds=DAY_SECONDS):
    world.memory["hz"].retention_seconds = retention_seconds
    world.memory["hz"].add_topic("orders", {"hz-a": 1, "hz-b": 1})
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    await world.report(lag_messages=5, lag_seconds=3_600.0)


async def seconds_left(world):
    return (await world.flow("hz", "sh"))["retention_headroom_seconds"]


async def test_it_is_what_the_broker_keeps_less_the_age_of_what_waits(world):
    await started(world)
    assert await seconds_left(world) == pytest.approx(DAY_SECONDS - 3_600.0, abs=5.0)
    await world.coordinator.set_paused("t", True)
    assert await seconds_left(world) == pytest.approx(DAY_SECONDS - 3_600.0, abs=5.0)


async def test_it_never_falls_below_nothing(world):
    await started(world, 60.0)
    assert await seconds_left(world) == 0.0


async def test_without_figures_or_without_an_answer_nothing_is_known(world):
    world.memory["hz"].retention_seconds = DAY_SECONDS
    world.memory["hz"].add_topic("orders", {"hz-a": 1})
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    assert await seconds_left(world) is None
    await world.report(lag_messages=None, lag_seconds=None)
    assert await seconds_left(world) is None


async def test_a_source_that_does_not_say(world):
    await started(world, None)
    assert await seconds_left(world) is None


async def test_a_broker_is_asked_once_in_a_while_whatever_it_answers(world, monkeypatch):
    world.memory["hz"].fail_next_call("retention_seconds", NotPermitted("no rights"))
    await started(world)
    asked = []
    real = headroom.Headroom._ask_one
    monkeypatch.setattr(headroom.Headroom, "_ask_one", lambda self, broker: (asked.append(broker), real(self, broker))[1])
    for _ in range(5):
        assert await seconds_left(world) is None
    assert sorted(asked) == [("hz", "hz-a"), ("hz", "hz-b")]
    monkeypatch.setattr(headroom, "ASKED_SECONDS", 0.0)
    assert await seconds_left(world) == pytest.approx(DAY_SECONDS - 3_600.0, abs=5.0)
    monkeypatch.setattr(headroom, "ASKED_SECONDS", 30.0)
    world.memory["hz"].cut()
    assert await seconds_left(world) is not None, "what a broker said before holds while it is away"


async def test_a_silent_source_keeps_nobody_waiting(world, monkeypatch):
    await started(world)
    monkeypatch.setattr(headroom, "WAIT_SECONDS_MAX", 0.05)
    world.memory["hz"].cut(mode="silent")
    assert await seconds_left(world) is None
