"""What a check asks workers, and what they answer."""

import asyncio
import time

from replicator.store import checks, memory_checks
from replicator.store.port import ClusterRow

HZ = ClusterRow("hz", "memory", "east", {"cluster": "hz"}, None)
SH = ClusterRow("sh", "memory", "", {"cluster": "sh", "secret": {"env": "KEY"}}, None)
REACHED = [{"name": "hz", "reachable": True, "distance_ms": 1.5, "problem": ""}]


async def test_each_worker_answers_once(store):
    first = await store.ask_check([HZ, SH])
    second = await store.ask_check([HZ])
    asked = await store.asked_checks("w1")
    assert [(one.check_id, list(one.clusters)) for one in asked] == [(first, [HZ, SH]), (second, [HZ])]
    await store.answer_check(first, "w1", REACHED)
    await store.answer_check(first, "w1", [])
    assert [one.check_id for one in await store.asked_checks("w1")] == [second]
    assert [one.check_id for one in await store.asked_checks("w2")] == [first, second]
    await store.answer_check(first, "w2", [])
    assert {worker: list(rows) for worker, rows in (await store.check_answers(first)).items()} == {"w1": REACHED, "w2": []}
    assert dict(await store.check_answers(second)) == {}


async def test_ids_are_left_out(store):
    await store.ask_check([ClusterRow("hz", "memory", "", {}, "id000001")])
    (asked,) = await store.asked_checks("w1")
    assert [row.cluster_id for row in asked.clusters] == [None]


async def test_nobody_listens_to_a_check_that_is_over(store, monkeypatch):
    for module in (checks, memory_checks):
        monkeypatch.setattr(module, "CHECK_SECONDS_MAX", 0.2)
    deadline = time.monotonic() + 10
    check_id = await store.ask_check([HZ])
    await store.answer_check(check_id + 1, "w1", REACHED)
    assert dict(await store.check_answers(check_id + 1)) == {}
    while await store.asked_checks("w1"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await store.ask_check([SH])
    await store.answer_check(check_id, "w1", REACHED)
    assert dict(await store.check_answers(check_id)) == {}
