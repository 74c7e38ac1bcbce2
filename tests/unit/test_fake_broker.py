"""The fake broker keeps the rules that the client and the copy path rely on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from connectors.rocketmq.remoting import acl, bodies, headers
from connectors.rocketmq.remoting.codes import RequestCode, ResponseCode
from connectors.rocketmq.remoting.command import RemotingCommand, decode_frame, encode_frame
from connectors.rocketmq.remoting.framing import FrameReader
from connectors.rocketmq.remoting.message import encode_batch, walk
from tests.fakes.broker import FakeCluster
from tests.fakes.tcp import Action

TARGET = headers.SendTarget("PID_test", "orders", 1, 1_700_000_000_000)
SENDS = (RequestCode.SEND_MESSAGE_V2, RequestCode.SEND_BATCH_MESSAGE)


class Peer:
    """The smallest client: one connection, answers matched by opaque."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self._frames, self._opaque = reader, writer, FrameReader(), 0
        self._early: dict[int, RemotingCommand] = {}

    @classmethod
    async def connect(cls, address: str) -> Peer:
        host, port = address.split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def send(self, command: RemotingCommand) -> int:
        self._opaque += 1
        command.opaque = self._opaque
        self._writer.write(encode_frame(command))
        return self._opaque

    async def receive(self, opaque: int) -> RemotingCommand:
        async with asyncio.timeout(10):
            while opaque not in self._early:
                data = await self._reader.read(65536)
                if not data:
                    raise ConnectionResetError("closed by the broker")
                self._frames.feed(data)
                while (frame := self._frames.next_frame()) is not None:
                    command = decode_frame(frame)
                    self._early[command.opaque] = command
        return self._early.pop(opaque)

    async def ask(self, command: RemotingCommand) -> RemotingCommand:
        return await self.receive(self.send(command))

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return  # the broker was faster, which some tests ask for


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with FakeCluster("a", brokers=2) as running:
        running.create_topic("orders", 2)
        yield running


@pytest.fixture
async def peer(cluster: FakeCluster) -> AsyncIterator[Peer]:
    connected = await Peer.connect(cluster.broker.address)
    yield connected
    await connected.close()


def batch(*texts: bytes) -> RemotingCommand:
    return headers.send_batch(TARGET, encode_batch(texts, [b"K\x01v\x02"] * len(texts), [0] * len(texts)))


async def test_route_and_cluster_info_name_every_broker(cluster: FakeCluster) -> None:
    peer = await Peer.connect(cluster.name_server)
    route = bodies.read_topic_route((await peer.ask(headers.topic_route("orders"))).body)
    info = bodies.read_cluster_info((await peer.ask(headers.cluster_info())).body)
    missing = await peer.ask(headers.topic_route("nothing"))
    topics = bodies.read_topic_list((await peer.ask(headers.topic_list())).body)
    await peer.close()
    assert {data.broker_name: data.master for data in route.brokers} == {name: broker.address for name, broker in cluster.brokers.items()}
    assert [queue.read_queue_count for queue in route.queues] == [2, 2]
    assert info.clusters == {"a": ("a-0", "a-1")}
    assert missing.code == ResponseCode.TOPIC_NOT_EXIST
    assert topics == ("orders",)


async def test_batches_are_contiguous_and_come_back_byte_for_byte(cluster: FakeCluster, peer: Peer) -> None:
    cluster.broker.adds_properties = False
    first = headers.read_send(await peer.ask(batch(b"a", b"\x00\xff", b"")))
    second = headers.read_send(await peer.ask(batch(b"d")))
    pulled = await peer.ask(headers.pull("G", ("orders", 1), 0, 32))
    columns = walk(pulled.body)
    assert (first.queue_offset, first.count, second.queue_offset) == (0, 3, 3)
    assert list(columns.bodies) == [b"a", b"\x00\xff", b"", b"d"]
    assert list(columns.properties) == [b"K\x01v\x02"] * 4
    assert list(columns.queue_offsets) == [0, 1, 2, 3]
    assert set(columns.born_timestamps_ms) == {TARGET.born_timestamp_ms}
    assert headers.read_pull(pulled).max_offset == 4


async def test_a_single_send_gets_its_properties_rewritten(cluster: FakeCluster, peer: Peer) -> None:
    await peer.ask(headers.send_single(TARGET, b"x", b"b\x011\x02a\x01\x02a\x012", 7))
    columns = walk((await peer.ask(headers.pull("G", ("orders", 1), 0, 1))).body)
    assert columns.properties[0].startswith(b"CLUSTER\x01a\x02")
    assert b"a\x012\x02b\x011\x02" in columns.properties[0]
    assert list(columns.flags) == [7]


async def test_pull_codes_at_every_place_of_the_queue(cluster: FakeCluster, peer: Peer) -> None:
    async def pull(offset: int, queue_id: int = 0) -> tuple[int, int]:
        answer = await peer.ask(headers.pull("G", ("orders", queue_id), offset, 32))
        return answer.code, headers.read_pull(answer).next_begin_offset

    assert await pull(0) == (ResponseCode.PULL_NOT_FOUND, 0)
    assert await pull(3) == (ResponseCode.PULL_OFFSET_MOVED, 0)
    for number in range(40):
        cluster.broker.put("orders", 0, b"%d" % number)
    cluster.broker.queue("orders", 0).expire(5)
    assert await pull(2) == (ResponseCode.PULL_OFFSET_MOVED, 5)
    assert await pull(5) == (ResponseCode.SUCCESS, 37)
    assert await pull(40) == (ResponseCode.PULL_NOT_FOUND, 40)
    assert await pull(41) == (ResponseCode.PULL_OFFSET_MOVED, 40)
    assert cluster.broker.pulls_beyond_max == 1
    gone = await peer.ask(headers.pull("G", ("orders", 2), 0, 32))
    assert gone.code == ResponseCode.INVALID_PARAMETER


async def test_pull_is_cut_by_bytes_but_the_first_message_passes(cluster: FakeCluster, peer: Peer) -> None:
    for _ in range(3):
        cluster.broker.put("orders", 0, b"x" * 300_000)
    assert len(walk((await peer.ask(headers.pull("G", ("orders", 0), 0, 32))).body)) == 1
    await peer.ask(headers.update_broker_config({"maxTransferBytesOnMessageInMemory": "4194304"}))
    assert len(walk((await peer.ask(headers.pull("G", ("orders", 0), 0, 32))).body)) == 3


async def test_a_long_poll_ends_with_the_message_or_with_its_time(cluster: FakeCluster, peer: Peer) -> None:
    held = peer.send(headers.pull("G", ("orders", 0), 0, 32, suspend_ms=30_000))
    quick = await peer.ask(headers.pull("G", ("orders", 0), 0, 32, suspend_ms=20))
    assert quick.code == ResponseCode.PULL_NOT_FOUND
    cluster.broker.put("orders", 0, b"now")
    assert walk((await peer.receive(held)).body).bodies == [b"now"]


async def test_refusals_of_a_send(cluster: FakeCluster, peer: Peer) -> None:
    def to(topic: str, queue_id: int, sys_flag: int = 0) -> RemotingCommand:
        command = headers.send_batch(headers.SendTarget("P", topic, queue_id, 1), encode_batch([b"x"], [b""], [0]))
        command.ext_fields["f"] = str(sys_flag)
        return command

    cluster.broker.create_topic("closed", perm=headers.PERM_READ)
    codes = [
        (await peer.ask(command)).code
        for command in (to("nothing", 0), to("orders", 9), to("closed", 0), to("orders", 0, 4), to("t" * 200, 0))
    ]
    assert codes == [17, 29, 16, 13, 13]
    assert cluster.broker.queue("orders", 0).max_offset == 0


async def test_faults_store_or_do_not_store_as_they_say(cluster: FakeCluster, peer: Peer) -> None:
    broker, queue = cluster.broker, cluster.broker.queue("orders", 1)
    broker.inject(Action.ANSWER, SENDS, response_code=2)
    assert (await peer.ask(batch(b"0"))).code == 2
    assert queue.max_offset == 0
    broker.inject(Action.DROP_ANSWER, SENDS)
    dropped = peer.send(batch(b"1"))
    assert headers.read_send(await peer.ask(batch(b"2"))).queue_offset == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await peer.receive(dropped)
    for action, stored in ((Action.CLOSE_BEFORE, 2), (Action.CLOSE_AFTER, 3), (Action.CUT_ANSWER, 4)):
        broker.inject(action, SENDS)
        fresh = await Peer.connect(broker.address)
        with pytest.raises(ConnectionError):
            await fresh.ask(batch(b"x"))
        await fresh.close()
        assert queue.max_offset == stored
    assert not broker.faults


async def test_a_slow_dispatch_hides_what_is_stored(cluster: FakeCluster, peer: Peer) -> None:
    cluster.broker.delivers = False
    assert headers.read_send(await peer.ask(batch(b"1", b"2"))).queue_offset == 0
    assert headers.read_send(await peer.ask(batch(b"3"))).queue_offset == 2
    assert headers.read_offset(await peer.ask(headers.max_offset("orders", 1))) == 0
    table = bodies.read_runtime_info((await peer.ask(headers.broker_runtime_info())).body)
    assert table["dispatchBehindBytes"] != "0"
    cluster.broker.dispatch()
    assert headers.read_offset(await peer.ask(headers.max_offset("orders", 1))) == 3


async def test_truncation_reuses_offsets_and_a_new_topic_starts_at_zero(cluster: FakeCluster, peer: Peer) -> None:
    for number in range(5):
        cluster.broker.put("orders", 1, b"%d" % number)
    cluster.broker.queue("orders", 1).truncate(3)
    assert headers.read_send(await peer.ask(batch(b"other"))).queue_offset == 3
    cluster.broker.create_topic("orders", 2)
    assert headers.read_send(await peer.ask(batch(b"first"))).queue_offset == 0


async def test_consumer_offsets(cluster: FakeCluster, peer: Peer) -> None:
    unknown = await peer.ask(headers.update_consumer_offset("G", "orders", 0, 7))
    assert unknown.code == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST
    await peer.ask(headers.create_subscription_group({"groupName": "G", "retryMaxTimes": 3}))
    never = await peer.ask(headers.query_consumer_offset("G", "orders", 0))
    await peer.ask(headers.update_consumer_offset("G", "orders", 0, 7))
    answer = await peer.ask(headers.query_consumer_offset("G", "orders", 0))
    every = bodies.read_consumer_offsets((await peer.ask(headers.all_consumer_offsets())).body)
    groups = bodies.read_subscription_groups((await peer.ask(headers.all_subscription_groups())).body)
    stats = bodies.read_consume_stats((await peer.ask(headers.consume_stats("G"))).body)
    assert never.code == ResponseCode.QUERY_NOT_FOUND
    assert headers.read_offset(answer) == 7
    assert every == {("orders", "G"): {0: 7}}
    assert groups["G"].fields["retryMaxTimes"] == 3
    assert [(row.broker_name, row.queue_id, row.consumer_offset) for row in stats] == [("a-0", 0, 7), ("a-0", 1, 0)]


async def test_search_by_time(cluster: FakeCluster, peer: Peer) -> None:
    for time_ms in (100, 200, 300):
        cluster.broker.put("orders", 0, b"x", store_timestamp_ms=time_ms)

    async def search(time_ms: int, upper: bool = False) -> int:
        return headers.read_offset(await peer.ask(headers.search_offset("orders", 0, time_ms, upper)))

    assert [await search(time_ms) for time_ms in (50, 200, 201, 999)] == [0, 1, 2, 3]
    assert [await search(time_ms, True) for time_ms in (200, 250, 999)] == [1, 1, 2]


async def test_topics_are_created_described_and_deleted(cluster: FakeCluster, peer: Peer) -> None:
    new = headers.NewTopic("fresh", 3, 3, order=True, attributes="+message.type=FIFO")
    await peer.ask(headers.create_topic(new))
    one = bodies.read_topic_config((await peer.ask(headers.topic_config("fresh"))).body)
    every = bodies.read_topic_configs((await peer.ask(headers.all_topic_configs())).body)
    await peer.ask(headers.delete_topic_in_broker("fresh"))
    assert one == bodies.TopicConfig("fresh", 3, 3, 6, order=True, attributes={"message.type": "FIFO"})
    assert every["fresh"] == one
    assert (await peer.ask(headers.topic_config("fresh"))).code == ResponseCode.TOPIC_NOT_EXIST


async def test_locks_belong_to_one_client_until_they_expire(cluster: FakeCluster, peer: Peer) -> None:
    now = 0.0
    cluster.broker.locks.clock = lambda: now
    queue = ("orders", "a-0", 0)

    async def lock(client_id: str) -> bool:
        answer = await peer.ask(headers.lock_queues("GR", client_id, [queue]))
        return queue in bodies.read_locked_queues(answer.body)

    assert await lock("one")
    assert not await lock("two")
    now = 59.0
    assert await lock("one")
    now = 60.5
    assert not await lock("two")
    await peer.ask(headers.unlock_queues("GR", "two", [queue]))
    assert cluster.broker.locks.holder("GR", queue) == "one"
    await peer.ask(headers.unlock_queues("GR", "one", [queue]))
    assert await lock("two")
    now = 121.0
    assert await lock("one")


async def test_a_producer_is_listed_until_its_channel_closes(cluster: FakeCluster, peer: Peer) -> None:
    other = await Peer.connect(cluster.broker.address)
    await other.ask(headers.heartbeat("127.0.0.1@w1", ["PID_gr"]))
    listed = bodies.read_producer_connections((await peer.ask(headers.producer_connections("PID_gr", "orders"))).body)
    assert [connection.client_id for connection in listed] == ["127.0.0.1@w1"]
    await other.close()
    async with asyncio.timeout(5):
        while (await peer.ask(headers.producer_connections("PID_gr", "orders"))).code == ResponseCode.SUCCESS:
            continue  # each round trip gives the broker's loop a turn to notice the closed channel
    await peer.ask(headers.heartbeat("127.0.0.1@w2", ["PID_gr"]))
    await peer.ask(headers.unregister_client("127.0.0.1@w2", "PID_gr"))
    assert (await peer.ask(headers.producer_connections("PID_gr", "orders"))).code == ResponseCode.SYSTEM_ERROR
    assert (await peer.ask(headers.consumer_connections("G"))).code == ResponseCode.CONSUMER_NOT_ONLINE


async def test_signatures_unknown_codes_garbage_and_restart(cluster: FakeCluster, peer: Peer) -> None:
    broker = cluster.broker
    assert (await peer.ask(RemotingCommand(9999))).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED
    broker.secret_keys["worker1"] = "secret-of-worker1"
    signed = batch(b"x")
    assert (await peer.ask(batch(b"x"))).code == ResponseCode.NO_PERMISSION
    signed.ext_fields = acl.sign(signed.ext_fields, signed.body, "worker1", "secret-of-worker1")
    assert (await peer.ask(signed)).code == ResponseCode.SUCCESS
    broker.secret_keys.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    port = broker.port
    await broker.stop()
    with pytest.raises(ConnectionError):
        await Peer.connect(f"127.0.0.1:{port}")
    await broker.start()
    again = await Peer.connect(f"127.0.0.1:{port}")
    assert headers.read_offset(await again.ask(headers.max_offset("orders", 1))) == 1
    await again.close()


async def test_an_old_cluster_quotes_no_keys_and_knows_no_new_requests() -> None:
    async with FakeCluster("old", modern=False) as cluster:
        cluster.create_topic("orders", 1)
        at_name_server = await Peer.connect(cluster.name_server)
        at_broker = await Peer.connect(cluster.broker.address)
        body = bytes((await at_name_server.ask(headers.topic_route("orders"))).body)
        with pytest.raises(ValueError):
            json.loads(body)
        assert bodies.read_topic_route(body).brokers[0].master == cluster.broker.address
        assert (await at_broker.ask(headers.topic_config("orders"))).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED
        zero = await at_broker.ask(headers.query_consumer_offset("G", "orders", 0))
        assert headers.read_offset(zero) == 0
        await at_name_server.close()
        await at_broker.close()
