"""The general connection and the name servers: limits, silence, garbage, requests of the peer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from connectors.rocketmq.client import connection as connection_module
from connectors.rocketmq.client.client import Client, ClusterAddress
from connectors.rocketmq.client.connection import Connection
from connectors.rocketmq.client.credentials import Security
from connectors.rocketmq.client.errors import Unreachable
from connectors.rocketmq.remoting import headers
from connectors.rocketmq.remoting.codes import RequestCode
from connectors.rocketmq.remoting.command import FLAG_ONEWAY, RemotingCommand, decode_frame, encode_frame
from connectors.rocketmq.remoting.framing import FrameReader
from tests.fakes.tcp import Action
from tests.unit.rocketmq.conftest import until


@pytest.fixture
def quick_sweep(monkeypatch):
    monkeypatch.setattr(connection_module, "SWEEP_INTERVAL_SECONDS", 0.02)


async def test_one_slow_answer_does_not_hold_up_the_others(fake):
    connection = await Connection.open(fake.broker.address, Security())
    fake.broker.inject(Action.DELAY_ANSWER, [RequestCode.GET_BROKER_CONFIG], seconds=0.3)
    slow = asyncio.create_task(connection.ask(headers.broker_config()))
    await asyncio.sleep(0)
    assert (await connection.ask(headers.broker_runtime_info())).code == 0
    assert not slow.done()
    assert (await slow).code == 0
    connection.close()


async def test_a_request_without_answer_ends_but_the_connection_serves_on(fake, quick_sweep):
    connection = await Connection.open(fake.broker.address, Security())
    fake.broker.inject(Action.DROP_ANSWER, [RequestCode.GET_BROKER_CONFIG])
    waiting = asyncio.create_task(connection.ask(headers.broker_config(), 0.2))
    for _ in range(15):
        await connection.ask(headers.broker_runtime_info())
        await asyncio.sleep(0.02)
    with pytest.raises(Unreachable, match="GET_BROKER_CONFIG: no answer in time"):
        await waiting
    assert connection.is_open
    connection.close()


async def test_a_silent_peer_loses_the_connection(fake, quick_sweep):
    connection = await Connection.open(fake.broker.address, Security())
    fake.broker.inject(Action.DROP_ANSWER, times=5)
    with pytest.raises(Unreachable, match="nothing else came"):
        await connection.ask(headers.broker_config(), 0.1)
    assert not connection.is_open


async def test_an_idle_connection_is_closed_before_the_server_does(fake, quick_sweep, monkeypatch):
    monkeypatch.setattr(connection_module, "IDLE_SECONDS_MAX", 0.1)
    connection = await Connection.open(fake.broker.address, Security())
    await until(lambda: not connection.is_open)


async def test_unanswered_requests_are_bounded(fake, monkeypatch):
    monkeypatch.setattr(connection_module, "IN_FLIGHT_MAX", 3)
    connection = await Connection.open(fake.broker.address, Security())
    fake.broker.inject(Action.DROP_ANSWER, times=3)
    held = [asyncio.create_task(connection.ask(headers.broker_config())) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unreachable, match="3 requests are unanswered"):
        await connection.ask(headers.broker_config())
    connection.close()
    assert all(isinstance(result, Unreachable) for result in await asyncio.gather(*held, return_exceptions=True))


async def test_a_lost_connection_fails_what_waits_and_stays_closed(fake):
    connection = await Connection.open(fake.broker.address, Security())
    fake.broker.inject(Action.CLOSE_BEFORE, [RequestCode.GET_BROKER_CONFIG])
    with pytest.raises(Unreachable, match="connection lost"):
        await connection.ask(headers.broker_config())
    assert not connection.is_open
    with pytest.raises(Unreachable):
        await connection.ask(headers.broker_config())


async def test_requests_of_the_peer_are_refused_and_one_ways_swallowed():
    answers: asyncio.Queue[RemotingCommand] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_frame(RemotingCommand(40, {"consumerGroup": "g"}, opaque=5, flag=FLAG_ONEWAY)))
        writer.write(encode_frame(RemotingCommand(307, {"consumerGroup": "g"}, opaque=6)))
        frames = FrameReader()
        frames.feed(await reader.read(4096))
        frame = frames.next_frame()
        assert frame is not None
        answers.put_nowait(decode_frame(frame))
        writer.write(b"\xff" * 64)  # which no frame begins with
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = await Connection.open(f"127.0.0.1:{port}", Security())
    answer = await asyncio.wait_for(answers.get(), 5)
    assert (answer.opaque, answer.code, answer.is_response) == (6, 3, True)
    await until(lambda: not connection.is_open)
    server.close()
    await server.wait_closed()


async def test_nobody_listening_is_unreachable(fake):
    address = fake.broker.address
    await fake.broker.stop()
    with pytest.raises(Unreachable, match="cannot connect"):
        await Connection.open(address, Security())
    with pytest.raises(Unreachable):
        await Connection.open("127.0.0.1:none", Security())


async def test_another_name_server_is_asked_when_one_fails(fake):
    client = Client(ClusterAddress(["127.0.0.1:1", fake.name_server]), Security())
    assert set(await client.brokers()) == set(fake.brokers)
    assert client._name_servers._last_good == fake.name_server
    client.close()


async def test_what_is_known_serves_while_no_name_server_answers(fake):
    client = Client(ClusterAddress([fake.name_server]), Security())
    await client.brokers()
    await fake.name_server_process.stop()
    client.forget_masters()
    assert await client.master_address(fake.broker.name) == fake.broker.address
    with pytest.raises(Unreachable):
        await client.brokers(fresh=True)
    client.close()


@pytest.fixture
def address_service(fake) -> Iterator[HTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name http.server looks for
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"127.0.0.1:1;{fake.name_server}\n".encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_name_servers_can_come_from_an_address_service(fake, address_service):
    url = f"http://127.0.0.1:{address_service.server_port}/rocketmq/nsaddr"
    client = Client(ClusterAddress(name_server_url=url), Security())
    assert set(await client.brokers()) == set(fake.brokers)
    client.close()


async def test_only_the_named_cluster_is_seen(fake):
    assert set(await Client(ClusterAddress([fake.name_server], cluster_name="fake"), Security()).brokers()) == set(fake.brokers)
    with pytest.raises(Unreachable, match="no cluster is named other"):
        await Client(ClusterAddress([fake.name_server], cluster_name="other"), Security()).brokers()


async def test_a_broker_without_its_first_statistics_is_asked_again(fake):
    client = Client(ClusterAddress([fake.name_server]), Security())
    early = "java.util.NoSuchElementException, java.base/java.util.LinkedList.getLast(LinkedList.java:261)"
    fake.broker.inject(Action.ANSWER, [RequestCode.GET_BROKER_RUNTIME_INFO], response_code=1, remark=early, times=2)
    assert await client.version(fake.broker.name) == fake.broker.version_name
    client.close()
