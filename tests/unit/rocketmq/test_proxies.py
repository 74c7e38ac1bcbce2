"""Consumers behind proxies, as the proxies tell each other of them."""

from __future__ import annotations

import json
import time

import pytest

from connectors.rocketmq import proxies
from connectors.rocketmq.remoting.codes import RequestCode, ResponseCode
from replicator.core.errors import Throttled
from replicator.core.groups import GroupMembers, Subscription
from tests.fakes.tcp import Refusal
from tests.unit.rocketmq.conftest import TOPIC

GRPC, REMOTING = json.dumps({"type": "GRPC_V2"}), json.dumps({"type": "REMOTING"})


@pytest.fixture
def tell(fake, monkeypatch):
    """Puts one heartbeat into the proxies' topic."""
    monkeypatch.setattr(proxies, "LOOK_SECONDS", 0.0)
    fake.broker.create_topic(proxies.HEARTBEAT_TOPIC, 1)

    def put(client: str, group: str = "pay", kind: str = "REGISTER", channel: str = GRPC, ago_seconds: float = 0, expression: str = "*"):
        told = {
            "clientId": client, "group": group, "heartbeatType": kind, "channelData": channel, "messageModel": "CLUSTERING",
            "subscriptionDataSet": [{"topic": TOPIC, "subString": expression, "expressionType": "TAG"}],
        }
        stored_ms = int((time.time() - ago_seconds) * 1000)
        fake.broker.put(proxies.HEARTBEAT_TOPIC, 0, json.dumps(told).encode(), store_timestamp_ms=stored_ms)

    return put


async def test_without_proxies_nobody_is_behind_one(connector) -> None:
    await connector.open()
    assert await connector.group_members("pay") == GroupMembers()


async def test_a_grpc_client_is_a_member_that_pops_until_it_goes(connector, tell) -> None:
    await connector.open()
    tell("one")
    tell("one")
    tell("two")
    tell("elsewhere", group="ship")
    assert await connector.group_members("pay") == GroupMembers(2, "pop", subscriptions=(Subscription(TOPIC),))
    tell("one", kind="UNREGISTER")
    assert (await connector.group_members("pay")).count == 1
    tell("two", kind="UNREGISTER")
    assert await connector.group_members("pay") == GroupMembers(kind="pop")


async def test_a_client_that_fell_silent_is_none(connector, tell) -> None:
    await connector.open()
    tell("silent", ago_seconds=60)
    tell("other", group="ship")
    assert await connector.group_members("pay") == GroupMembers(kind="pop")


async def test_members_that_disagree_and_remoting_clients(connector, tell) -> None:
    await connector.open()
    tell("one", channel=REMOTING)
    assert (await connector.group_members("pay")).kind == ""
    tell("two", channel=REMOTING, expression="gold")
    assert not (await connector.group_members("pay")).agree


async def test_what_cannot_be_read_says_nothing(connector, tell, fake) -> None:
    await connector.open()
    fake.broker.put(proxies.HEARTBEAT_TOPIC, 0, b"\x00not json")
    fake.broker.put(proxies.HEARTBEAT_TOPIC, 0, b"[1]")
    tell("one")
    assert (await connector.group_members("pay")).count == 1


async def test_an_account_that_may_not_read_it_sees_nobody_behind_proxies(connector, tell, fake) -> None:
    await connector.open()
    tell("one")

    def refuse(command, connection):
        raise Refusal(ResponseCode.NO_PERMISSION, "no right to the topic")

    fake.broker.handlers[RequestCode.GET_MAX_OFFSET] = refuse
    assert await connector.group_members("pay") == GroupMembers()


async def test_a_busy_broker_leaves_it_open_who_is_there(connector, tell, fake) -> None:
    await connector.open()
    tell("one")

    def refuse(command, connection):
        raise Refusal(ResponseCode.SYSTEM_BUSY, "[TIMEOUT_CLEAN_QUEUE]")

    fake.broker.handlers[RequestCode.GET_MAX_OFFSET] = refuse
    with pytest.raises(Throttled):
        await connector.group_members("pay")


async def test_a_retry_topic_as_only_popping_makes_one_tells_the_kind(connector, fake) -> None:
    await connector.open()
    fake.broker.consumer_offsets[f"%RETRY%pay_{TOPIC}", "pay"] = {0: 0}
    fake.broker.consumer_offsets["%RETRY%ship", "ship"] = {0: 0}
    await connector.group_offsets([TOPIC])
    assert (await connector.group_members("pay")).kind == "pop"
    assert (await connector.group_members("ship")).kind == ""
