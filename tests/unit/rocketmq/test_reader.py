"""The pulling reader over a fake broker: gaps, odd answers, memory, another master."""

from __future__ import annotations

import asyncio

import pytest

from connectors.rocketmq import source
from connectors.rocketmq.remoting.codes import RequestCode, ResponseCode
from replicator.core.errors import HistoryChanged, NotConnected, NotFound, NotPermitted, Throttled
from tests.fakes.broker import answer
from tests.fakes.tcp import Action
from tests.unit.rocketmq.conftest import TOPIC, become_master, make_connector, until

PULL = (RequestCode.PULL_MESSAGE,)


def fill(fake, count: int, size=lambda i: 20) -> list[bytes]:
    bodies = [(b"%06d" % i).ljust(size(i), b".") for i in range(count)]
    for body in bodies:
        fake.broker.put(TOPIC, 0, body)
    return bodies


async def read_all(reader, count: int) -> list[bytes]:
    bodies: list[bytes] = []
    while len(bodies) < count:
        batch = await asyncio.wait_for(reader.read(), 5)
        assert list(batch.offsets) == list(range(len(bodies), len(bodies) + len(batch)))
        bodies.extend(map(bytes, batch.bodies))
        assert batch.next_offset == len(bodies)
        reader.release(batch)
    return bodies


async def test_uneven_sizes_leave_no_gap_and_nothing_beyond_the_end_is_asked(fake, connector, queue):
    bodies = fill(fake, 3000, lambda i: 60_000 if i % 37 == 0 else 20)
    reader = connector.reader(queue, 0)
    assert await read_all(reader, 3000) == bodies
    await reader.close()
    assert fake.broker.pulls_beyond_max == 0
    assert connector._credits.used_bytes == 0


async def test_limits_lower_than_the_configuration_says_are_learned(fake, connector, queue):
    """As for records the broker believes to lie on disk: 8 at a time, whatever was asked."""
    bodies = fill(fake, 2000)
    handler = fake.broker.handlers[RequestCode.PULL_MESSAGE]

    def on_disk(command, connection):
        command.ext_fields["maxMsgNums"] = str(min(8, int(command.ext_fields["maxMsgNums"])))
        return handler(command, connection)

    fake.broker.handlers[RequestCode.PULL_MESSAGE] = on_disk
    reader = connector.reader(queue, 0)
    assert await read_all(reader, 2000) == bodies
    await reader.close()
    assert fake.broker.counts[RequestCode.PULL_MESSAGE] < 2000 / 8 * 1.3


async def test_raised_limits_are_used(fake, connector, queue):
    fake.broker.config.update(maxTransferCountOnMessageInMemory="1024", maxTransferBytesOnMessageInMemory="4194304")
    bodies = fill(fake, 8000)
    reader = connector.reader(queue, 0)
    assert await read_all(reader, 8000) == bodies
    await reader.close()
    assert fake.broker.counts[RequestCode.PULL_MESSAGE] < 20


@pytest.mark.parametrize("prefetch", [True, False])
async def test_a_jump_over_records_that_are_gone_is_followed(fake, connector, queue, prefetch):
    """Code 20: the broker has examined entries whose records have expired."""
    bodies = fill(fake, 100)
    handler = fake.broker.handlers[RequestCode.PULL_MESSAGE]

    def with_hole(command, connection):
        offset = int(command.ext_fields["queueOffset"])
        if 40 <= offset < 57:
            bounds = {"minOffset": 0, "maxOffset": 100}
            return answer(b"", ResponseCode.PULL_RETRY_IMMEDIATELY, "MESSAGE_WAS_REMOVING", nextBeginOffset=57, **bounds)
        if offset < 40:
            command.ext_fields["maxMsgNums"] = str(min(int(command.ext_fields["maxMsgNums"]), 40 - offset))
        return handler(command, connection)

    fake.broker.handlers[RequestCode.PULL_MESSAGE] = with_hole
    reader = connector.reader(queue, 0, prefetch=prefetch)
    offsets: list[int] = []
    seen: list[bytes] = []
    while True:
        batch = await asyncio.wait_for(reader.read(), 5)
        offsets.extend(batch.offsets)
        seen.extend(map(bytes, batch.bodies))
        reader.release(batch)
        if batch.next_offset == 100:
            break
    assert offsets == [*range(40), *range(57, 100)]
    assert seen == bodies[:40] + bodies[57:]
    await reader.close()


async def test_a_broker_that_finds_nothing_inside_the_bounds_is_given_time(fake, connector, queue):
    fill(fake, 10)
    fake.broker.handlers[RequestCode.PULL_MESSAGE] = lambda command, connection: answer(
        b"", ResponseCode.PULL_NOT_FOUND, "OFFSET_FOUND_NULL", nextBeginOffset=0, minOffset=0, maxOffset=10
    )
    reader = connector.reader(queue, 0)
    reader.release(await reader.read())  # the long poll's answer
    with pytest.raises(Throttled):
        await asyncio.wait_for(reader.read(), 5)


@pytest.mark.parametrize(
    ("code", "error"),
    [(2, Throttled), (14, NotConnected), (16, NotPermitted), (17, NotFound), (26, NotFound)],
)
async def test_refusals_become_instructions_and_reading_goes_on_afterwards(fake, connector, queue, code, error):
    bodies = fill(fake, 5)
    fake.broker.inject(Action.ANSWER, PULL, response_code=code)
    reader = connector.reader(queue, 0)
    with pytest.raises(error):
        await reader.read()
    assert await read_all(reader, 5) == bodies
    await reader.close()


async def test_records_before_a_failure_are_handed_out_first(fake, connector, queue):
    bodies = fill(fake, 600)
    reader = connector.reader(queue, 0)
    batch = await reader.read()
    seen = list(map(bytes, batch.bodies))
    reader.release(batch)
    await until(lambda: reader._ready_bytes > 0)
    fake.broker.close_connections()
    await until(lambda: reader._failure is not None)
    while len(seen) < 600:
        try:
            batch = await asyncio.wait_for(reader.read(), 5)
        except NotConnected:
            continue
        seen.extend(map(bytes, batch.bodies))
        reader.release(batch)
    assert seen == bodies
    await reader.close()
    assert connector._credits.used_bytes == 0


async def test_a_history_change_names_what_is_lost_and_is_never_followed(fake, connector, queue):
    fill(fake, 50)
    fake.broker.queue(TOPIC, 0).expire(30)
    reader = connector.reader(queue, 10)
    for _ in range(2):
        with pytest.raises(HistoryChanged) as raised:
            await reader.read()
        assert (raised.value.lost_from, raised.value.lost_to) == (10, 30)


async def test_memory_held_by_others_leaves_every_reader_one_pull(fake, queue):
    connector = make_connector(fake, memory_bytes_max=100_000)
    bodies = fill(fake, 500, lambda i: 1000)
    assert connector._credits.try_take(100_000)  # by a reader whose engine never comes back
    reader = connector.reader(queue, 0)
    assert await read_all(reader, 500) == bodies
    await reader.close()
    assert connector._credits.used_bytes == 100_000
    await connector.close()


async def test_held_batches_stop_a_reader_at_the_limit(fake, queue, monkeypatch):
    monkeypatch.setattr(source, "SUSPEND_MS", 100)
    connector = make_connector(fake, memory_bytes_max=200_000)
    fill(fake, 1000, lambda i: 1000)
    reader = connector.reader(queue, 0)
    held = []
    while len(batch := await reader.read()):
        held.append(batch)
    assert sum(each.size_bytes for each in held) <= 200_000
    for each in held:
        reader.release(each)
    assert len(await reader.read())
    await reader.close()
    await connector.close()


async def test_closing_gives_back_what_was_prefetched(fake, connector, queue):
    fill(fake, 3000)
    reader = connector.reader(queue, 0)
    batch = await reader.read()
    reader.release(batch)
    await until(lambda: reader._ready_bytes > 0)
    await reader.close()
    assert connector._credits.used_bytes == 0
    with pytest.raises(NotConnected):
        await reader.read()


async def test_another_master_ends_the_reading_of_the_former(fake, connector, queue, monkeypatch):
    """4.x slaves go on answering pulls, so the route is looked at now and then."""
    monkeypatch.setattr(source, "CLUSTER_INFO_SECONDS", 0.0)
    fill(fake, 3)
    reader = connector.reader(queue, 0)
    reader.release(await reader.read())
    _, new = fake.brokers.values()
    become_master(fake)
    connector._client.forget_masters()
    fake.broker.put(TOPIC, 0, b"of the former")
    with pytest.raises(NotConnected, match="another process is master"):
        await reader.read()
    for i in range(4):
        new.put(TOPIC, 0, b"new %d" % i)
    batch = await reader.read()
    assert list(map(bytes, batch.bodies)) == [b"new 3"]
    await reader.close()
