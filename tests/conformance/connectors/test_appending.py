"""Senders: fidelity, contiguity, permits, limits, resets, barriers and what the broker lists."""

from __future__ import annotations

import asyncio
import time
import zlib

import pytest

from replicator.core.connector import ListsSenders, NotStored
from replicator.core.errors import Fenced, NotConnected
from replicator.core.record import MessageQueue, iterate_properties, pack_properties
from tests.conformance.connectors.subject import ANSWER_SECONDS, Permit, append, append_batch, read_records, try_append

pytestmark = pytest.mark.timeout(90)

COMPRESSED = 0x1


def assert_kept(connector, sent: bytes, stored: bytes) -> None:
    """The producer's bytes first and unchanged; behind them only what this system adds by itself."""
    kept = sent.removesuffix(b"\x02")
    assert stored[: len(kept)] == kept
    assert not kept or stored[len(kept) : len(kept) + 1] in (b"", b"\x02")
    added = [name for name, _ in iterate_properties(stored[len(kept) :])]
    assert set(added) <= set(connector.reserved_properties)


@pytest.mark.parametrize(
    "bodies",
    [
        [b"", b"", b"between", b""],
        [bytes(range(256)), bytes(reversed(range(256)))],
        [b"\x01\x02\x00\xff" * 3, "Grüße, 世界".encode()],
        [bytes(1024 * 1024), b"small", b"\xff" * (700 * 1024)],
    ],
    ids=["empty", "all-bytes", "separators", "large"],
)
async def test_bodies_arrive_untouched(cluster, connector, bodies):
    (queue,) = await cluster.topic()
    first = await append(connector, queue, append_batch(bodies))
    records = await read_records(connector, queue, first, first + len(bodies))
    assert records.bodies == bodies


async def test_bodies_may_be_views(cluster, connector):
    (queue,) = await cluster.topic()
    buffer = memoryview(bytes(range(256)) * 4)
    bodies = [buffer[3:200], buffer[200:1000]]
    first = await append(connector, queue, append_batch(bodies))
    records = await read_records(connector, queue, first, first + 2)
    assert records.bodies == [bytes(body) for body in bodies]


async def test_properties_of_a_batch_keep_bytes_and_order(cluster, connector):
    (queue,) = await cluster.topic()
    sent = [
        pack_properties([("zebra", "1"), ("apple", "2"), ("mango", "ü 世界"), ("KEYS", "a b"), ("TAGS", "t")]),
        pack_properties([("b", "1"), ("a", "2")]),
        pack_properties([("a", "2"), ("b", "1")]),
        b"",
    ]
    first = await append(connector, queue, append_batch([b"x"] * 4, sent))
    records = await read_records(connector, queue, first, first + 4)
    for was, now in zip(sent, records.properties, strict=True):
        assert_kept(connector, was, now)


async def test_a_property_name_may_stand_twice(cluster, connector):
    (queue,) = await cluster.topic()
    sent = pack_properties([("UNIQ_KEY", "one"), ("k", "v"), ("UNIQ_KEY", "two"), ("k", "v")])
    first = await append(connector, queue, append_batch([b"x", b"y"], sent))
    records = await read_records(connector, queue, first, first + 2)
    for stored in records.properties:
        assert_kept(connector, sent, stored)


async def test_encoding_flag_and_birth_survive(cluster, connector):
    (queue,) = await cluster.topic()
    body = zlib.compress(b"much of the same " * 500)
    batch = append_batch([body, body], encoding=COMPRESSED, born_timestamp_ms=1_600_000_000_123)
    batch.flags = [7, 0]
    first = await append(connector, queue, batch)
    records = await read_records(connector, queue, first, first + 2)
    assert records.bodies == [body, body]
    assert records.encodings == [COMPRESSED, COMPRESSED]
    assert records.flags == [7, 0]
    assert records.born_timestamps_ms == [1_600_000_000_123] * 2


async def test_a_single_record_is_appended(cluster, connector):
    (queue,) = await cluster.topic()
    first = await append(connector, queue, append_batch([b"alone"], pack_properties({"k": "v"})))
    records = await read_records(connector, queue, first, first + 1)
    assert records.bodies == [b"alone"]
    assert (b"k", b"v") in list(iterate_properties(records.properties[0]))


async def test_an_append_is_contiguous_and_in_order(cluster, connector):
    (queue,) = await cluster.topic()
    await cluster.produce(queue, [b"foreign"] * 3)
    bodies = [b"body %d" % i for i in range(200)]
    first = await append(connector, queue, append_batch(bodies))
    assert first == 3
    await cluster.produce(queue, [b"foreign"])
    assert await append(connector, queue, append_batch([b"next"])) == 204
    records = await read_records(connector, queue, 0, 205)
    assert records.bodies == [b"foreign"] * 3 + bodies + [b"foreign", b"next"]


@pytest.mark.parametrize("connections", [1, 2])
async def test_parallel_appends_to_one_queue_stay_contiguous_each(cluster, connections):
    (queue,) = await cluster.topic()
    connectors = [await cluster.connector() for _ in range(connections)]
    firsts: dict[int, list[bytes]] = {}

    async def fill(task: int) -> None:
        for n in range(15):
            bodies = [b"task %d batch %d body %d" % (task, n, i) for i in range(7)]
            firsts[await append(connectors[task % connections], queue, append_batch(bodies))] = bodies

    await asyncio.gather(fill(0), fill(1))
    assert sorted(firsts) == list(range(0, 2 * 15 * 7, 7))
    records = await read_records(connectors[0], queue, 0, 2 * 15 * 7)
    for first, bodies in firsts.items():
        assert records.bodies[first : first + 7] == bodies


async def test_without_the_permit_nothing_is_stored(cluster, connector):
    (queue,) = await cluster.topic()
    outcome = await try_append(connector, queue, append_batch([b"late"]), Permit(valid=False))
    assert isinstance(outcome, NotStored)
    assert outcome.scope == "fenced"
    assert await cluster.count(queue) == 0
    assert await append(connector, queue, append_batch([b"in time"])) == 0


async def test_a_permit_that_ends_after_the_connection_stands_holds_the_frame_back(cluster, connector):
    (queue,) = await cluster.topic()
    permit = Permit()
    await append(connector, queue, append_batch([b"in time"]), permit)
    permit.valid = False
    outcome = await try_append(connector, queue, append_batch([bytes(1024 * 1024)] * 2), permit)
    assert isinstance(outcome, NotStored)
    assert outcome.scope == "fenced"
    assert await cluster.count(queue) == 1


BODY_NO_BROKER_TAKES = 4 * 1024 * 1024 + 1


async def test_the_largest_append_is_taken_and_a_record_over_every_limit_refused(cluster, connector):
    (queue,) = await cluster.topic()
    limits = await connector.describe()
    room = limits.append_bytes_max - 2 * (limits.record_overhead_bytes + len(queue.topic))
    assert await append(connector, queue, append_batch([bytes(room // 2), bytes(room - room // 2)])) == 0
    outcome = await try_append(connector, queue, append_batch([bytes(BODY_NO_BROKER_TAKES)]))
    assert isinstance(outcome, NotStored)
    assert outcome.scope == "record"
    assert await cluster.count(queue) == 2


async def test_a_queue_that_does_not_exist_refuses(cluster, connector):
    (queue,) = await cluster.topic()
    missing = MessageQueue(queue.topic, queue.broker_name, 9)
    outcome = await try_append(connector, missing, append_batch([b"x", b"y"]))
    assert isinstance(outcome, NotStored)
    assert outcome.scope == "queue"


async def test_reset_and_close_are_idempotent(cluster, connector):
    (queue,) = await cluster.topic()
    sender = connector.sender(queue.broker_name)
    await sender.reset(sender.identity)
    await sender.reset(sender.identity)
    await append(connector, queue, append_batch([b"one"]))
    await sender.reset(sender.identity)
    await sender.reset(sender.identity)
    assert await append(connector, queue, append_batch([b"two"])) == 1
    await sender.close()
    await sender.close()
    await connector.close()
    await connector.close()


async def test_an_append_opens_no_connection(cluster, connector):
    (queue,) = await cluster.topic()
    sender = connector.sender(queue.broker_name)
    for _ in range(2):
        outcome = await sender.append(queue, append_batch([b"x"]), Permit(), ANSWER_SECONDS)
        assert isinstance(outcome, NotStored)
        assert outcome.scope == "moved"
        identity = await sender.connect()
        assert identity == sender.identity == await sender.connect()
        await append(connector, queue, append_batch([b"stored"]))
        await sender.reset(identity)
    assert await cluster.count(queue) == 2


async def test_senders_of_a_broker_share_one_connection(cluster, connector):
    first, second = await cluster.topic(2)
    await append(connector, first, append_batch([b"x"]))
    identity = connector.sender(first.broker_name).identity
    await append(connector, second, append_batch([b"y"]))
    assert connector.sender(second.broker_name).identity == identity


async def test_an_answered_append_has_no_late_answer(cluster, connector):
    (queue,) = await cluster.topic()
    sender = connector.sender(queue.broker_name)
    assert await sender.late_answer(queue, 0.1) is None  # nothing was sent so far
    await append(connector, queue, append_batch([b"x"]))
    assert await sender.late_answer(queue, 0.1) is None


async def test_the_broker_lists_living_senders_only(cluster, connector):
    assert isinstance(connector, ListsSenders)
    (queue,) = await cluster.topic()
    sender = connector.sender(queue.broker_name)
    await append(connector, queue, append_batch([b"x"]))
    before = sender.identity
    watcher = await cluster.connector()
    listed = await watcher.sender_identities(queue.broker_name)
    if not cluster.lists_senders:
        assert listed is None
        return
    assert before in listed
    await sender.reset(sender.identity)
    deadline = time.monotonic() + 20
    while before in await watcher.sender_identities(queue.broker_name):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await append(connector, queue, append_batch([b"y"]))
    assert sender.identity != before
    listed = await watcher.sender_identities(queue.broker_name)
    assert sender.identity in listed
    assert before not in listed


async def test_a_barrier_returns_when_earlier_appends_are_readable(cluster, connector):
    (queue,) = await cluster.topic()
    for n in range(1, 6):
        await append(connector, queue, append_batch([b"x"] * 50))
        await connector.write_barrier(queue.broker_name, Permit(), ANSWER_SECONDS)
        assert (await connector.offset_range(queue)).max_offset == n * 50
        reader = connector.reader(queue, n * 50 - 1, prefetch=False)
        batch = await reader.read()
        assert batch.offsets[0] == n * 50 - 1
        reader.release(batch)
        await reader.close()


async def test_a_barrier_leaves_user_topics_alone(cluster, connector):
    (queue,) = await cluster.topic()
    before = set(await connector.list_topics())
    await connector.write_barrier(queue.broker_name, Permit(), ANSWER_SECONDS)
    assert await cluster.count(queue) == 0
    assert set(await connector.list_topics()) == before


async def test_a_barrier_without_the_permit_is_not_confirmed(cluster, connector):
    (queue,) = await cluster.topic()
    with pytest.raises((Fenced, NotConnected)):
        await connector.write_barrier(queue.broker_name, Permit(valid=False), 1.0)
