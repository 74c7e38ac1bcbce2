"""Several coordinators over one store: one decides, all answer, another goes on."""

from __future__ import annotations

import asyncio

from replicator.coordinator.service import Coordinator
from tests.unit.coordinator.conftest import INSTANCE, connect, one_way


async def test_a_coordinator_that_does_not_reconcile_shows_what_the_other_one_met(world):
    world.memory["hz"].add_topic("orders", 1)
    await world.apply(one_way("t", "hz", "sh", topics=("orders", "missing")))
    second = Coordinator(world.store, connect, "second")
    stops = [asyncio.Event(), asyncio.Event()]
    running = [asyncio.create_task(world.coordinator.run(stops[0]))]
    await world.until_assigned("hz", "sh", 5.0)
    running.append(asyncio.create_task(second.run(stops[1])))
    try:
        async with asyncio.timeout(10.0):
            while True:
                ((flow,),) = [task["flows"] for task in (await second.status())["tasks"]]
                if "missing" in flow["error"]:
                    break
                await asyncio.sleep(0.05)
        assert (await world.store.told_by_coordinator())[0] == INSTANCE
        stops[0].set()
        await running[0]
        async with asyncio.timeout(10.0):
            while (await world.store.told_by_coordinator())[0] != "second":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        for stop in stops:
            stop.set()
        await asyncio.gather(*running)
