"""The schedule topic as waiting topics: what is in them, and how far a group has come."""

from __future__ import annotations

import pytest

from connectors.rocketmq import retries
from connectors.rocketmq.remoting.codes import RequestCode
from replicator.core.connector import KeepsRetries
from replicator.core.record import MessageQueue, pack_properties
from tests.fakes.admin import _ok
from tests.fakes.state import dump
from tests.unit.rocketmq.conftest import make_connector

GROUP = "pay"
WAITING, RETRY, SCHEDULE = f"%WAITING%{GROUP}", f"%RETRY%{GROUP}", "SCHEDULE_TOPIC_XXXX"
FIRST, SECOND = 3, 4
BORN_MS = 1_760_000_000_000
"""A broker keeps it when it delivers what waited."""


class Failing:
    """One broker on which a group fails messages."""

    def __init__(self, fake) -> None:
        self.broker = fake.broker
        self.delivered: dict[int, int] = {}
        for broker in fake.brokers.values():
            broker.create_topic(SCHEDULE, 18)
            broker.create_topic(RETRY, 1)
        self.broker.handlers[RequestCode.GET_ALL_DELAY_OFFSET] = lambda command, connection: _ok(dump({"offsetTable": self.delivered}))

    def fail(self, key: str, level: int, group: str = GROUP, times: int = 1) -> None:
        self.broker.put(SCHEDULE, level - 1, b"body", self._properties(key, level, group), reconsume_times=times, born_timestamp_ms=BORN_MS)

    def deliver(self, key: str, level: int, group: str = GROUP, times: int = 1) -> None:
        properties = self._properties(key, level, group)
        self.broker.put(f"%RETRY%{group}", 0, b"body", properties, reconsume_times=times, born_timestamp_ms=BORN_MS)
        self.delivered[level] = self.delivered.get(level, 0) + 1

    def skip(self, level: int) -> None:
        """One of another group was delivered."""
        self.delivered[level] = self.delivered.get(level, 0) + 1

    def commit(self, offset: int) -> None:
        self.broker.consumer_offsets.setdefault((RETRY, GROUP), {})[0] = offset

    @staticmethod
    def _properties(key: str, level: int, group: str) -> bytes:
        pairs = {"ORIGIN_MESSAGE_ID": key, "RETRY_TOPIC": "orders", "DELAY": str(level), "REAL_TOPIC": f"%RETRY%{group}"}
        return pack_properties(pairs)


@pytest.fixture
def failing(fake, monkeypatch) -> Failing:
    monkeypatch.setattr(retries, "DISPATCHED_SECONDS", 0.0)
    return Failing(fake)


async def progress(connector, failing) -> dict[int, int | None]:
    """By delay level."""
    await connector.open()
    found = (await connector.group_offsets([WAITING])).get(GROUP, {})
    return {level: found.get(MessageQueue(WAITING, failing.broker.name, level - 1)) for level in (FIRST, SECOND)}


async def test_what_was_delivered_and_processed_is_behind_the_group(connector, failing) -> None:
    for key in ("a", "b", "c"):
        failing.fail(key, FIRST)
    failing.deliver("a", FIRST)
    failing.deliver("b", FIRST)
    failing.commit(2)
    assert await progress(connector, failing) == {FIRST: 2, SECOND: 0}


async def test_what_was_delivered_and_not_processed_leads_back_to_its_place_in_each_level(connector, failing) -> None:
    for key in ("a", "b", "c"):
        failing.fail(key, FIRST)
    failing.fail("other", FIRST, group="ship")
    failing.fail("a", SECOND, times=2)
    failing.deliver("a", FIRST)
    failing.deliver("a", SECOND, times=2)
    failing.deliver("b", FIRST)
    failing.deliver("c", FIRST)
    failing.skip(FIRST)
    failing.commit(1)
    assert await progress(connector, failing) == {FIRST: 1, SECOND: 0}
    failing.commit(3)
    assert await progress(connector, failing) == {FIRST: 2, SECOND: 1}
    failing.commit(4)
    assert await progress(connector, failing) == {FIRST: 4, SECOND: 1}


async def test_a_group_that_never_committed_has_everything_before_it(connector, failing) -> None:
    failing.fail("a", FIRST)
    failing.deliver("a", FIRST)
    assert await progress(connector, failing) == {FIRST: 0, SECOND: 0}


async def test_a_level_whose_place_cannot_be_found_has_no_progress(connector, failing) -> None:
    failing.fail("a", FIRST)
    failing.fail("b", SECOND)
    failing.deliver("lost", FIRST)
    failing.deliver("b", SECOND)
    assert await progress(connector, failing) == {FIRST: None, SECOND: 0}


async def test_more_than_can_be_looked_through_says_nothing_of_other_levels(connector, failing, monkeypatch) -> None:
    monkeypatch.setattr(retries, "BACKLOG_RECORDS_MAX", 1)
    for key in (*(str(number) for number in range(100)), "a"):
        failing.fail(key, FIRST)
        failing.deliver(key, FIRST)
    failing.commit(1)
    found = await progress(connector, failing)
    assert found == {FIRST: 1, SECOND: None}


async def test_a_copy_in_the_retry_topic_has_never_waited_here(connector, failing) -> None:
    failing.fail("a", FIRST)
    failing.deliver("a", FIRST)
    failing.broker.put(RETRY, 0, b"copy", pack_properties({"RETRY_TOPIC": "orders"}), reconsume_times=1)
    failing.commit(1)
    assert await progress(connector, failing) == {FIRST: 1, SECOND: 0}


async def test_a_delivery_counts_only_once_it_can_be_seen_in_the_retry_topic(connector, failing, monkeypatch) -> None:
    monkeypatch.setattr(retries, "DISPATCHED_SECONDS", 3600.0)
    failing.fail("a", FIRST)
    failing.delivered[FIRST] = 1
    assert await progress(connector, failing) == {FIRST: None, SECOND: None}
    monkeypatch.setattr(retries, "DISPATCHED_SECONDS", 0.0)
    assert await progress(connector, failing) == {FIRST: 1, SECOND: 0}


async def test_a_waiting_topic_is_read_from_the_schedule_topic(connector, failing, fake) -> None:
    await connector.open()
    assert isinstance(connector, KeepsRetries)
    failing.fail("a", FIRST)
    described = await connector.describe_topic(WAITING)
    assert described is not None
    assert len(described.queues) == 36
    assert {queue.topic for queue in described.queues} == {WAITING}
    assert not described.writable
    queue = MessageQueue(WAITING, failing.broker.name, FIRST - 1)
    assert (await connector.offset_range(queue)).max_offset == 1
    assert (await connector.waiting_ends())[failing.broker.name, FIRST - 1] == 1
    reader = connector.reader(queue, 0)
    batch = await reader.read()
    assert [bytes(body) for body in batch.bodies] == [b"body"]
    reader.release(batch)
    await reader.close()
    assert set(await connector.retry_topics([GROUP, "unknown"])) == {WAITING}
    assert await connector.describe_topic("%WAITING%unknown") is None
    await connector.publish_position("own", {queue: 1})
    assert not any(topic.startswith("%WAITING%") for topic, _ in failing.broker.consumer_offsets)


async def test_what_waits_is_counted_wherever_it_waits(connector, failing) -> None:
    await connector.open()
    for key in ("a", "b", "c"):
        failing.fail(key, FIRST)
    failing.fail("other", FIRST, group="ship")
    failing.fail("d", SECOND)
    failing.deliver("a", FIRST)
    failing.deliver("b", FIRST)
    failing.commit(1)
    # One in the retry topic, one in each level.
    assert await connector.waiting_counts([GROUP, "idle"]) == {GROUP: 3}


async def test_old_brokers_say_why_they_cannot(connector, fake) -> None:
    await connector.open()
    fake.create_topic(RETRY, 1)
    described = await connector.describe_topic(WAITING)
    assert described is not None
    assert "4.7.1" in described.unsupported


def test_the_topic_a_failed_message_came_from(connector) -> None:
    failed = {"REAL_TOPIC": RETRY, "RETRY_TOPIC": "orders"}
    assert connector.retried_topic(WAITING, failed) == "orders"
    assert connector.retried_topic("%WAITING%ship", failed) is None
    assert connector.retried_topic(WAITING, {"REAL_TOPIC": "orders", "DELAY": "3"}) is None
    assert connector.retried_topic(f"%DLQ%{GROUP}", {"RETRY_TOPIC": "orders"}) == "orders"


async def test_a_namespace_sees_its_own_names(fake) -> None:
    fake.create_topic(SCHEDULE, 18)
    fake.create_topic("%RETRY%ns%pay", 1)
    connector = make_connector(fake, namespace="ns")
    await connector.open()
    assert set(await connector.retry_topics([GROUP])) == {WAITING}
    described = await connector.describe_topic(WAITING)
    assert described is not None
    assert described.queues[0].topic == WAITING
    assert connector.retried_topic(WAITING, {"REAL_TOPIC": "%RETRY%ns%pay", "RETRY_TOPIC": "ns%orders"}) == "orders"
    await connector.close()
