"""``spec.rocketmq``: what is accepted, and when secrets are read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from connectors.rocketmq.client.client import Client, ClusterAddress
from connectors.rocketmq.client.credentials import Credentials, Security
from connectors.rocketmq.names import is_user_topic
from connectors.rocketmq.settings import RocketMQSettings
from replicator.core.errors import NotPermitted

NAME_SERVERS = {"name_servers": ["127.0.0.1:9876"]}


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({}, "either name_servers or name_server_url"),
        ({**NAME_SERVERS, "name_server_url": "http://x/nsaddr"}, "either name_servers or name_server_url"),
        ({"name_server_url": "http://me:hunter2@x/nsaddr"}, "must not stand in name_server_url"),
        ({"name_servers": ["nowhere"]}, "name_servers"),
        ({**NAME_SERVERS, "access_key": {"env": "A"}}, "go together"),
        ({**NAME_SERVERS, "access_key": "plain", "secret_key": {"env": "A"}}, "must not stand in the file"),
        ({**NAME_SERVERS, "access_key": {"env": "A", "file": "b"}, "secret_key": {"env": "A"}}, "either env or file"),
        ({**NAME_SERVERS, "tls": {"enable": True}}, "enable"),
        ({**NAME_SERVERS, "namespace": "ns%"}, "namespace"),
        ({**NAME_SERVERS, "colour": "red"}, "colour"),
    ],
)
def test_wrong_blocks_are_refused(block, said):
    with pytest.raises(ValidationError) as raised:
        RocketMQSettings(**block)
    assert said in str(raised.value)
    assert "plain" not in str([error["msg"] for error in raised.value.errors()])


def test_secrets_are_read_at_each_use(monkeypatch, tmp_path):
    secret = tmp_path / "secret"
    settings = RocketMQSettings(**NAME_SERVERS, access_key={"env": "UNIT_KEY"}, secret_key={"file": str(secret)})
    security = settings.security()
    with pytest.raises(NotPermitted, match="UNIT_KEY is not set"):
        security.credentials()
    monkeypatch.setenv("UNIT_KEY", "key")
    with pytest.raises(NotPermitted, match="cannot read"):
        security.credentials()
    secret.write_text("first\n")
    assert security.credentials() == Credentials("key", "first")
    secret.write_text("second")
    assert security.credentials() == Credentials("key", "second")
    assert "second" not in repr(security.credentials())


def test_no_credentials_and_no_tls_by_default():
    security = RocketMQSettings(**NAME_SERVERS).security()
    assert security.credentials() is None
    assert security.tls() is None


async def test_addresses_are_mapped_exactly_or_by_pattern():
    table = {"10.0.0.5:10911": "gateway:31911", "10.0.0.*:10911": "gateway:1", "10.1.*:10911": "gateway:2"}
    client = Client(ClusterAddress(["127.0.0.1:1"], address_map=table), Security())
    assert client._mapped("10.0.0.5:10911") == "gateway:31911"
    assert client._mapped("10.0.0.6:10911") == "gateway:1"
    assert client._mapped("10.1.2.3:10911") == "gateway:2"
    assert client._mapped("10.0.0.6:10912") == "10.0.0.6:10912"


@pytest.mark.parametrize(
    "topic",
    [
        "%RETRY%group", "%DLQ%group", "%LMQ%x", "rmq_sys_wheel_timer", "RMQ_SYS_TRANS_HALF_TOPIC", "SCHEDULE_TOPIC_XXXX", "TBW102",
        "SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT", "BenchmarkTest", "TRANS_CHECK_MAX_TIME_TOPIC", "Hangzhou_REPLY_TOPIC", "Hangzhou",
        "broker-a", "replicator-barrier", "replicator-id-abc",
    ],
)  # fmt: skip
def test_topics_of_the_system_and_ours_are_no_user_topics(topic):
    assert not is_user_topic(topic, {"broker-a"}, ("Hangzhou",))


@pytest.mark.parametrize("topic", ["orders", "Shanghai_REPLY_TOPIC", "broker-b", "retry", "my-replicator-id-x"])
def test_other_topics_are(topic):
    assert is_user_topic(topic, {"broker-a"}, ("Hangzhou",))
