"""Keys that change while connections are open, and TLS that is refused: what is tried again at once, and what is shown."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from connectors.rocketmq.client.client import Client, ClusterAddress
from connectors.rocketmq.client.credentials import Security
from connectors.rocketmq.client.errors import Answered, Unreachable, Untrusted, not_connected
from connectors.rocketmq.client.sending import SendingConnection
from connectors.rocketmq.mapping import mapped
from connectors.rocketmq.remoting.codes import RequestCode, ResponseCode
from connectors.rocketmq.settings import TlsSettings
from replicator.core.connector import NotStored, Stored
from replicator.core.errors import NotConnected, NotPermitted
from replicator.core.record import AppendBatch, MessageQueue
from replicator.worker.fence import SourceFence
from tests.certificates import Authority
from tests.fakes.tcp import Action
from tests.unit.rocketmq.conftest import QUEUE_COUNT, TOPIC, make_connector, until

KEY = "replicator"
ANSWER_SECONDS = 5.0


class Always:
    def is_valid(self) -> bool:
        return True


class Account:
    """The one account of a fake cluster, and the file with the secret that a connector has for it."""

    def __init__(self, fake, folder) -> None:
        self._brokers = fake.brokers.values()
        self._file = folder / "secret"
        (folder / "key").write_text(KEY)
        self.settings = {"access_key": {"file": str(folder / "key")}, "secret_key": {"file": str(self._file)}}

    def at_the_cluster(self, secret: str) -> None:
        for broker in self._brokers:
            broker.secret_keys = {KEY: secret}

    def in_the_file(self, secret: str) -> None:
        self._file.write_text(secret)


@pytest.fixture
def account(fake, tmp_path) -> Account:
    made = Account(fake, tmp_path)
    made.at_the_cluster("first")
    made.in_the_file("first")
    return made


@pytest.fixture
async def connector(fake, account):
    made = make_connector(fake, **account.settings)
    await made.open()
    yield made
    await made.close()


def batch(*bodies: bytes) -> AppendBatch:
    return AppendBatch(list(bodies), [b""] * len(bodies), [0] * len(bodies))


async def append(connector, queue, body: bytes):
    sender = connector.sender(queue.broker_name)
    await sender.connect()
    return await sender.append(queue, batch(body), Always(), ANSWER_SECONDS)


async def test_a_key_that_changed_in_its_file_is_used_within_the_same_question(account, connector, queue):
    assert (await connector.offset_range(queue)).max_offset == 0
    account.in_the_file("second")
    assert (await connector.offset_range(queue)).max_offset == 0
    account.at_the_cluster("second")
    assert (await connector.offset_range(queue)).max_offset == 0
    assert await connector.list_topics() == [TOPIC]


async def test_a_key_that_is_still_the_old_one_is_refused_until_its_file_changes(account, connector, queue):
    await connector.offset_range(queue)
    account.at_the_cluster("second")
    for _ in range(2):
        with pytest.raises(NotPermitted, match="check access_key and secret_key"):
            await connector.offset_range(queue)
    account.in_the_file("second")
    assert (await connector.offset_range(queue)).max_offset == 0


async def test_appends_go_on_over_the_same_connection(account, connector, queue):
    assert await append(connector, queue, b"1") == Stored(0)
    identity = connector.sender(queue.broker_name).identity
    account.at_the_cluster("second")
    refused = await append(connector, queue, b"2")
    assert isinstance(refused, NotStored)
    assert refused.scope == "queue"
    assert "check access_key and secret_key" in refused.detail
    account.in_the_file("second")
    patient = await append(connector, queue, b"2")
    assert isinstance(patient, NotStored)
    assert patient.scope == "busy"
    assert await append(connector, queue, b"2") == Stored(1)
    assert connector.sender(queue.broker_name).identity == identity


async def test_a_file_that_is_away_for_a_moment_breaks_no_append(account, connector, queue, tmp_path):
    assert await append(connector, queue, b"1") == Stored(0)
    account.at_the_cluster("second")
    (tmp_path / "secret").unlink()
    refused = await append(connector, queue, b"2")
    assert isinstance(refused, NotStored)
    assert "signature check failed" in refused.detail


async def test_pulls_learn_the_new_key(account, connector, queue):
    assert await append(connector, queue, b"1") == Stored(0)
    reader = connector.reader(queue, 0, prefetch=False)
    account.at_the_cluster("second")
    with pytest.raises(NotPermitted):
        await reader.read()
    account.in_the_file("second")
    assert [len(await reader.read()) for _ in range(2)] == [0, 1]
    await reader.close()


async def test_a_heartbeat_that_is_refused_names_the_account(account, connector, queue):
    account.at_the_cluster("second")
    with pytest.raises(NotPermitted, match="HEART_BEAT"):
        await connector.sender(queue.broker_name).connect()


async def test_a_refused_key_says_nothing_about_who_is_connected(account, connector, queue):
    await append(connector, queue, b"1")
    account.at_the_cluster("second")
    with pytest.raises(NotPermitted):
        await connector.sender_identities(queue.broker_name)


async def test_permits_know_why_their_renewal_failed(account, connector, queue):
    fence = SourceFence(connector, "replicator-lock-x", "holder")
    permit = await fence.take(queue, "")
    account.at_the_cluster("second")
    renewing = asyncio.create_task(fence.run())
    await until(lambda: permit.problem is not None)
    assert isinstance(permit.problem, NotPermitted)
    account.in_the_file("second")
    await until(lambda: permit.problem is None)
    renewing.cancel()
    assert permit.is_valid()


def test_tls_that_is_refused_is_not_waited_for():
    for error, kind in ((ssl.SSLCertVerificationError("expired"), Untrusted), (ssl.SSLError(1, "alert"), Untrusted),
                        (ssl.SSLEOFError(8, "EOF"), Unreachable), (ConnectionResetError(), Unreachable), (None, Unreachable)):  # fmt: skip
        assert type(not_connected("a:1", "x", error)) is kind
    with pytest.raises(NotPermitted, match="certificates of both sides"), mapped("cluster a"):
        raise Untrusted("a:1", "x")
    with pytest.raises(NotConnected), mapped("cluster a"):
        raise Unreachable("a:1", "x")
    with pytest.raises(NotPermitted), mapped("cluster a"):
        raise Answered("a:1", "PULL_MESSAGE", 16, "")


async def test_rights_are_asked_for_without_writing(fake, account, connector, queue):
    fake.create_topic("replicator-barrier", 1)
    await append(connector, queue, b"1")
    ends = {one: (await connector.offset_range(MessageQueue(TOPIC, queue.broker_name, one))).max_offset for one in range(QUEUE_COUNT)}
    assert await connector.missing_rights([TOPIC, "unknown"], [TOPIC]) == []
    assert ends == {
        one: (await connector.offset_range(MessageQueue(TOPIC, queue.broker_name, one))).max_offset for one in range(QUEUE_COUNT)
    }
    for code, what in ((RequestCode.PULL_MESSAGE, "read"), (RequestCode.SEND_MESSAGE_V2, "written to")):
        fake.broker.inject(
            Action.ANSWER, [code], response_code=int(ResponseCode.NO_PERMISSION), remark="User:x has no permission to access Topic:y"
        )
        (said,) = await connector.missing_rights([TOPIC], [TOPIC] if what == "written to" else [])
        assert f"cluster fake: topic {TOPIC} may not be {what}" in said
    account.at_the_cluster("second")
    with pytest.raises(NotPermitted, match="check access_key"):
        await connector.missing_rights([TOPIC], [])


@pytest.mark.parametrize("kind", ["missing", "garbage", "of-another-key"])
def test_files_that_cannot_be_used_are_named(tmp_path, kind):
    authority = Authority(tmp_path)
    pair, other = authority.issue("ours"), authority.issue("other")
    if kind == "missing":
        pair.cert.unlink()
    elif kind == "garbage":
        pair.cert.write_text("no certificate")
    key = other.key if kind == "of-another-key" else pair.key
    settings = TlsSettings(enabled=True, ca_file=str(authority.root.cert), cert_file=str(pair.cert), key_file=str(key))
    with pytest.raises(NotPermitted) as refused:
        settings.context()
    assert str(pair.cert) in str(refused.value)
    with pytest.raises(NotPermitted, match="ca_file"):
        TlsSettings(enabled=True, ca_file=str(tmp_path / "nowhere.pem")).context()


async def test_a_server_of_an_unknown_authority_is_refused_by_both_kinds_of_connection(tmp_path):
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    pair = theirs.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    security = Security(tls=TlsSettings(enabled=True, ca_file=str(ours.root.cert)).context)
    client = Client(ClusterAddress([address]), security)
    with pytest.raises(Untrusted, match="certificate verify failed"):
        await client.brokers()
    with pytest.raises(Untrusted, match="certificate verify failed"):
        await SendingConnection(address, "unit", security).open()
    client.close()
    server.close()
    await server.wait_closed()
