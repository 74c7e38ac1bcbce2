"""What can become of an append, and what the log holds afterwards."""

from __future__ import annotations

import asyncio

import pytest

from replicator.core.connector import NotStored, Stored, Unknown
from replicator.core.record import AppendBatch
from tests.unit.memory.conftest import OTHER_QUEUE, QUEUE, TIMEOUT_SECONDS, Allowed, batch, send, stored

pytestmark = pytest.mark.timeout(30)


@pytest.mark.parametrize("scope", ["busy", "unreachable", "moved", "record", "queue", "fenced"])
async def test_a_planned_refusal_stores_nothing_and_happens_once(cluster, connector, scope):
    fault = cluster.refuse_next_append(scope, "as planned", retry_after_seconds=0.25)
    assert await send(connector, b"x") == NotStored(scope, "as planned", 0.25)
    assert fault.taken
    assert stored(cluster) == []
    assert await send(connector, b"x") == Stored(0)


async def test_a_fault_may_wait_for_one_queue(cluster, connector):
    fault = cluster.lose_next_append(OTHER_QUEUE)
    assert await send(connector, b"x") == Stored(0)
    assert not fault.taken
    assert isinstance(await send(connector, b"y", queue=OTHER_QUEUE), Unknown)
    assert stored(cluster, OTHER_QUEUE) == []


async def test_a_lost_append_is_unknown_and_not_stored(cluster, connector):
    fault = cluster.lose_next_append()
    assert isinstance(await send(connector, b"x"), Unknown)
    assert fault.release() is None
    assert stored(cluster) == []
    assert await connector.sender("broker-a").late_answer(QUEUE, 0.05) is None


async def test_a_lost_answer_is_unknown_and_stored(cluster, connector):
    fault = cluster.lose_next_answer()
    assert isinstance(await send(connector, b"x"), Unknown)
    assert stored(cluster) == [b"x"]
    late = asyncio.create_task(connector.sender("broker-a").late_answer(QUEUE, TIMEOUT_SECONDS))
    await asyncio.sleep(0)
    assert fault.release() == Stored(0)
    assert await late == Stored(0)
    assert stored(cluster) == [b"x"]


async def test_a_held_append_is_stored_when_released(cluster, connector):
    buffer = bytearray(b"held")
    held = cluster.hold_next_append()
    await connector.sender("broker-a").connect()
    outcome = await connector.sender("broker-a").append(
        QUEUE, AppendBatch([memoryview(buffer)], [b""], [0]), Allowed(), TIMEOUT_SECONDS
    )
    assert isinstance(outcome, Unknown)
    buffer[:] = b"gone"
    assert stored(cluster) == []
    cluster.produce(QUEUE, b"local")
    assert held.release() == Stored(1)
    assert held.release() == Stored(1)
    assert stored(cluster) == [b"local", b"held"]
    assert await connector.sender("broker-a").late_answer(QUEUE, TIMEOUT_SECONDS) == Stored(1)


@pytest.mark.parametrize("delivered_after_reset", [False, True])
async def test_a_reset_takes_held_bytes_back_unless_a_middlebox_has_them(cluster, connector, delivered_after_reset):
    held = cluster.hold_next_append(delivered_after_reset=delivered_after_reset)
    assert isinstance(await send(connector, b"held"), Unknown)
    await connector.sender("broker-a").reset(connector.sender("broker-a").identity)
    assert await send(connector, b"next") == Stored(0)
    assert held.release() == (Stored(1) if delivered_after_reset else None)
    assert held.dropped is not delivered_after_reset
    assert stored(cluster) == ([b"next", b"held"] if delivered_after_reset else [b"next"])
    assert await connector.sender("broker-a").late_answer(QUEUE, 0.05) is None


@pytest.mark.parametrize("how", ["close", "death"])
async def test_the_end_of_a_sender_takes_held_bytes_back(cluster, connector, how):
    held = cluster.hold_next_append()
    await send(connector, b"held")
    if how == "close":
        await connector.close()
    else:
        cluster.reset_connections(instance="i-1")
    assert held.release() is None
    assert stored(cluster) == []


async def test_an_append_without_answer_sits_through_its_time_out(cluster, connector):
    cluster.lose_next_answer(waits=True)
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert isinstance(await send(connector, b"x", timeout_seconds=0.2), Unknown)
    assert loop.time() - started >= 0.19
    assert stored(cluster) == [b"x"]


async def test_a_held_append_released_in_time_is_answered(cluster, connector):
    held = cluster.hold_next_append(waits=True)
    sending = asyncio.create_task(send(connector, b"x"))
    await asyncio.wait({sending}, timeout=0.02)
    assert held.taken
    held.release()
    assert await sending == Stored(0)


async def test_a_reset_ends_a_waiting_append_as_unknown(cluster, connector):
    held = cluster.hold_next_append(waits=True)
    sending = asyncio.create_task(send(connector, b"x", timeout_seconds=20))
    await asyncio.wait({sending}, timeout=0.02)
    assert held.taken
    await connector.sender("broker-a").reset(connector.sender("broker-a").identity)
    assert isinstance(await asyncio.wait_for(sending, 2), Unknown)
    assert held.release() is None


async def test_a_cancelled_append_may_be_stored_and_answers_late(cluster, connector):
    held = cluster.hold_next_append(waits=True)
    sending = asyncio.create_task(send(connector, b"x", timeout_seconds=20))
    await asyncio.wait({sending}, timeout=0.02)
    assert held.taken
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert held.release() == Stored(0)
    assert await connector.sender("broker-a").late_answer(QUEUE, TIMEOUT_SECONDS) == Stored(0)


async def test_a_judge_refuses_the_whole_append_until_its_record_is_alone(cluster, connector):
    cluster.refuse_records(lambda queue, body, properties: "poisoned" if body == b"bad" else "")
    assert await send(connector, b"good", b"bad") == NotStored("record", "poisoned")
    assert await send(connector, b"good") == Stored(0)
    assert await send(connector, b"bad") == NotStored("record", "poisoned")
    assert stored(cluster) == [b"good"]


async def test_a_weak_answer_is_stored(cluster, connector):
    cluster.weak_answer = "FLUSH_DISK_TIMEOUT"
    assert await send(connector, b"x") == Stored(0, "FLUSH_DISK_TIMEOUT")


async def test_a_destination_that_lost_its_tail_answers_lower_offsets(cluster, connector):
    assert await send(connector, b"1", b"2", b"3") == Stored(0)
    cluster.truncate(QUEUE, 1)
    assert await send(connector, b"4") == Stored(1)
    assert stored(cluster) == [b"1", b"4"]


async def test_a_read_only_or_missing_topic_refuses_as_a_queue(cluster, connector):
    cluster.topics["orders"].writable = False
    assert (await send(connector, b"x")).scope == "queue"
    cluster.delete_topic("orders")
    assert (await send(connector, b"x")).scope == "queue"


async def test_the_permit_is_asked_in_the_step_that_stores(cluster, connector):
    """Whoever owns the permit may take it back up to the very step in which the record gets into the log."""
    seen: list[int] = []

    class Watching:
        def is_valid(self) -> bool:
            seen.append(len(stored(cluster)))
            asyncio.get_running_loop().call_soon(lambda: seen.append(len(stored(cluster))))
            return True

    await connector.sender("broker-a").connect()
    await connector.sender("broker-a").append(QUEUE, batch(b"x"), Watching(), TIMEOUT_SECONDS)
    assert seen == [0, 1]


async def test_pace_is_awaited_around_an_append(cluster, connector):
    points: list[tuple[str, str, int]] = []

    async def pace(point: str, instance: str) -> None:
        points.append((point, instance, len(stored(cluster))))

    cluster.pace = pace
    await send(connector, b"x")
    assert points == [("sender.connect", "i-1", 0), ("append.send", "i-1", 0), ("append.answer", "i-1", 1)]


async def test_a_reset_between_the_log_and_the_answer_is_unknown(cluster, connector):
    async def pace(point: str, instance: str) -> None:
        if point == "append.answer":
            cluster.reset_connections()

    cluster.pace = pace
    assert isinstance(await send(connector, b"x"), Unknown)
    assert stored(cluster) == [b"x"]
