"""What is said of brokers: which are too old, and what a name server that knows none of them can tell."""

from __future__ import annotations

import pytest

from connectors.rocketmq.remoting.codes import RequestCode, ResponseCode
from replicator.core.errors import NotConnected, Refused
from tests.fakes.broker import answer
from tests.unit.rocketmq.conftest import TOPIC


@pytest.mark.parametrize("version", ["V4_3_2", "V3_5_8", "V4_3_0_SNAPSHOT"])
async def test_an_old_broker_is_refused_by_name(fake, connector, version):
    fake.broker.version_name = version
    with pytest.raises(Refused, match=rf"cluster fake, broker fake-0: RocketMQ {version[1]}\.{version[3]}\.{version[5]} is not supported"):
        await connector.describe()


@pytest.mark.parametrize("version", ["V4_4_0", "V5_3_3", "V5_0_0_BETA", "HIGHER_VERSION", "unknown"])
async def test_any_other_is_accepted(fake, connector, version):
    fake.broker.version_name = version
    assert (await connector.describe()).brokers[0].version == version


async def test_without_a_registered_broker_nothing_is_known_of_topics_and_marks(fake, connector):
    """All brokers stopped in good order: the cluster is away, not wiped."""
    await connector.open()
    await connector.write_mark("abcdefgh")
    assert await connector.read_marks() == ["abcdefgh"]
    registered = set(fake.name_server_process.registered)
    fake.name_server_process.registered.clear()
    for asked in (connector.read_marks, connector.list_topics, lambda: connector.describe_topic(TOPIC)):
        with pytest.raises(NotConnected, match="no broker of the cluster is registered"):
            await asked()
    fake.name_server_process.registered.update(registered)
    assert await connector.list_topics() == [TOPIC]
    assert await connector.describe_topic("missing") is None


async def test_the_remoting_port_of_a_proxy_is_told_from_a_name_server(fake, connector):
    """As 5.3.3 answers there."""
    code = ResponseCode.REQUEST_CODE_NOT_SUPPORTED
    handlers = fake.name_server_process.handlers
    handlers[RequestCode.GET_BROKER_CLUSTER_INFO] = lambda command, connection: answer(code=code, remark=" request type 106 not supported")
    with pytest.raises(Refused, match=r"request type 106 not supported; .* a 5\.x proxy.* give name_servers"):
        await connector.open()
