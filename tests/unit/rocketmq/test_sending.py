"""The sending connection: the permit before each system call, and what is known when it ends."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from connectors.rocketmq.remoting.codes import RequestCode
from replicator.core.connector import NotStored, Stored, Unknown
from replicator.core.errors import NotConnected, Refused
from replicator.core.record import AppendBatch, MessageQueue
from tests.fakes.tcp import Action
from tests.unit.rocketmq.conftest import TOPIC, become_master, make_connector, until

ANSWER_SECONDS = 5.0
SENDS = (RequestCode.SEND_BATCH_MESSAGE, RequestCode.SEND_MESSAGE_V2)


class Asked:
    """Valid until it was asked ``times`` times."""

    def __init__(self, times: int = 1_000_000) -> None:
        self.left = times
        self.asked = 0

    def is_valid(self) -> bool:
        self.asked += 1
        self.left -= 1
        return self.left >= 0


class TrickleSocket:
    """Takes a few bytes a call, and every other time none."""

    def __init__(self, real, chunk_bytes: int) -> None:
        self._real = real
        self._chunk_bytes = chunk_bytes
        self._turn = itertools.count()
        self.sends = 0

    def send(self, data) -> int:
        if next(self._turn) % 2:
            raise BlockingIOError
        self.sends += 1
        return self._real.send(data[: self._chunk_bytes])

    def __getattr__(self, name):
        return getattr(self._real, name)


def batch(*bodies: bytes) -> AppendBatch:
    return AppendBatch(list(bodies), [b""] * len(bodies), [0] * len(bodies))


async def append(connector, queue, records, permit, seconds=ANSWER_SECONDS):
    sender = connector.sender(queue.broker_name)
    await sender.connect()
    return await sender.append(queue, records, permit, seconds)


async def opened(connector, queue):
    assert await append(connector, queue, batch(b"first"), Asked()) == Stored(0)
    return connector.sender(queue.broker_name)


async def test_the_permit_is_asked_before_every_send(connector, queue):
    sender = await opened(connector, queue)
    trickle = sender._connection._socket = TrickleSocket(sender._connection._socket, 1000)
    permit = Asked()
    assert await append(connector, queue, batch(b"x" * 10_000), permit) == Stored(1)
    assert trickle.sends > 10
    assert permit.asked >= trickle.sends


async def test_a_frame_whose_permit_ends_half_way_is_never_executed(fake, connector, queue):
    sender = await opened(connector, queue)
    before = sender.identity
    sender._connection._socket = TrickleSocket(sender._connection._socket, 1000)
    outcome = await append(connector, queue, batch(b"x" * 10_000), Asked(5))
    assert isinstance(outcome, NotStored)
    assert outcome.scope == "fenced"
    assert await append(connector, queue, batch(b"next"), Asked()) == Stored(1)
    assert sender.identity != before
    assert fake.broker.queue(TOPIC, 0).max_offset == 2


async def test_a_permit_that_ended_before_the_first_byte_keeps_the_connection(connector, queue):
    sender = await opened(connector, queue)
    before = sender.identity
    outcome = await append(connector, queue, batch(b"x"), Asked(0))
    assert isinstance(outcome, NotStored)
    assert outcome.scope == "fenced"
    assert sender.identity == before
    assert await append(connector, queue, batch(b"next"), Asked()) == Stored(1)


@pytest.mark.parametrize("action", [Action.CLOSE_BEFORE, Action.CLOSE_AFTER, Action.CUT_ANSWER])
async def test_a_connection_lost_after_the_frame_left_is_in_doubt(fake, connector, queue, action):
    sender = await opened(connector, queue)
    before = sender.identity
    fake.broker.inject(action, SENDS)
    outcome = await append(connector, queue, batch(b"x"), Asked())
    assert isinstance(outcome, Unknown)
    assert outcome.sender == before
    assert await sender.late_answer(queue, 0.1) is None


async def test_a_late_answer_is_given_once(fake, connector, queue):
    sender = await opened(connector, queue)
    fake.broker.inject(Action.DELAY_ANSWER, SENDS, seconds=0.4)
    outcome = await append(connector, queue, batch(b"x"), Asked(), 0.1)
    assert outcome == Unknown(outcome.detail, sender.identity)
    assert await sender.late_answer(queue, 0.05) is None
    assert await sender.late_answer(queue, ANSWER_SECONDS) == Stored(1)
    assert await sender.late_answer(queue, 0.05) is None


async def test_a_reset_leaves_what_is_under_way_in_doubt(fake, connector, queue):
    sender = await opened(connector, queue)
    fake.broker.inject(Action.DROP_ANSWER, SENDS)
    appending = asyncio.create_task(append(connector, queue, batch(b"x"), Asked()))
    await until(lambda: fake.broker.queue(TOPIC, 0).max_offset == 2)
    await sender.reset("somebody@else")
    assert not appending.done()
    await sender.reset(sender.identity)
    assert isinstance(await appending, Unknown)


async def test_registers_before_the_first_append_under_its_own_group_only(fake, connector, queue):
    sender = await opened(connector, queue)
    (group,) = fake.broker.producers
    assert group == "replicator-sender"
    assert [entry["clientId"] for entry in fake.broker.producers[group].values()] == [sender.identity]
    assert fake.broker.consumers == {}


async def test_a_broker_that_is_away_is_unreachable(fake, connector, queue):
    await fake.broker.stop()
    with pytest.raises(NotConnected):
        await connector.sender(queue.broker_name).connect()
    await fake.broker.start()
    assert await append(connector, queue, batch(b"x"), Asked()) == Stored(0)


async def test_a_moved_role_leads_to_the_new_master(fake, connector, queue):
    """The first broker says that it is a slave now, and the name server shows another address."""
    former, new = fake.brokers.values()
    former.inject(Action.ANSWER, SENDS, response_code=14, remark="service not available now")
    outcome = await append(connector, queue, batch(b"x"), Asked())
    assert isinstance(outcome, NotStored)
    assert outcome.scope == "moved"
    become_master(fake)
    assert await append(connector, queue, batch(b"x"), Asked()) == Stored(0)
    assert new.queue(TOPIC, 0).max_offset == 1


async def test_retry_topics_are_sent_singly_with_their_limit(fake, connector, queue):
    fake.create_topic("%RETRY%group", 1)
    seen = []
    handler = fake.broker.handlers[RequestCode.SEND_MESSAGE_V2]
    fake.broker.handlers[RequestCode.SEND_MESSAGE_V2] = lambda command, connection: (seen.append(command), handler(command, connection))[1]
    retry = MessageQueue("%RETRY%group", queue.broker_name, 0)
    single = AppendBatch([b"x"], [b"k\x01v\x02"], [0], reconsume_times=3)
    assert await append(connector, retry, single, Asked()) == Stored(0)
    assert (seen[0].ext_fields["j"], seen[0].ext_fields["l"]) == ("3", "16")
    # A group may allow more attempts than usual: above its limit the broker would make a dead letter of it.
    often = AppendBatch([b"x"], [b"k\x01v\x02"], [0], reconsume_times=20)
    assert await append(connector, retry, often, Asked()) == Stored(1)
    assert (seen[1].ext_fields["j"], seen[1].ext_fields["l"]) == ("20", "20")


async def test_a_secret_that_cannot_be_read_blocks_the_queue(fake, queue, monkeypatch):
    monkeypatch.setenv("UNIT_KEY", "key")
    connector = make_connector(fake, access_key={"env": "UNIT_KEY"}, secret_key={"env": "UNIT_KEY"})
    await connector.open()
    monkeypatch.delenv("UNIT_KEY")
    with pytest.raises(Refused):
        await connector.sender(queue.broker_name).connect()
    await connector.close()


async def test_a_rotated_secret_is_read_again_after_a_refusal(fake, queue, monkeypatch):
    monkeypatch.setenv("UNIT_KEY", "key")
    monkeypatch.setenv("UNIT_SECRET", "old")
    for server in (*fake.brokers.values(), fake.name_server_process):
        server.secret_keys = {"key": "old"}
    connector = make_connector(fake, access_key={"env": "UNIT_KEY"}, secret_key={"env": "UNIT_SECRET"})
    assert await append(connector, queue, batch(b"x"), Asked()) == Stored(0)
    fake.broker.secret_keys = {"key": "new"}
    monkeypatch.setenv("UNIT_SECRET", "new")
    refused = await append(connector, queue, batch(b"x"), Asked())
    assert isinstance(refused, NotStored)
    assert await append(connector, queue, batch(b"x"), Asked()) == Stored(1)
    await connector.close()


async def test_what_no_batch_of_this_cluster_can_carry_goes_alone(fake, connector, queue):
    for broker in fake.brokers.values():
        broker.config["maxMessageSize"] = "20000"
    assert (await connector.describe()).append_bytes_max == 20_000
    assert await append(connector, queue, batch(b"x" * 19_990), Asked()) == Stored(0)
    assert fake.broker.counts[RequestCode.SEND_MESSAGE_V2] == 1
    assert await append(connector, queue, batch(b"x" * 10_000), Asked()) == Stored(1)
    assert fake.broker.counts[RequestCode.SEND_BATCH_MESSAGE] == 1
