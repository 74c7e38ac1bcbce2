"""A fake RocketMQ cluster over real TCP: one name server and brokers that keep everything in memory.

Answers follow 5.3.3 (or 4.x with ``modern=False``): JSON headers, fastjson bodies, stored-record bytes, pull limits, long
polls, contiguous batches. Left out: delayed and transactional delivery (such messages are stored at once), filters,
slaves, static topics. Tests reach into ``broker.topics`` and ``broker.inject(Action.…, codes)``; see ``tcp`` and ``state``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from connectors.rocketmq.remoting.codes import RequestCode, ResponseCode
from connectors.rocketmq.remoting.command import RemotingCommand
from connectors.rocketmq.remoting.headers import PERM_READ, PERM_WRITE, PULL_SUSPEND
from connectors.rocketmq.remoting.message import PROPERTIES_BYTES_MAX, StoredMessage, SysFlag, decode_batch, stored_size
from tests.fakes.admin import AdminHandlers
from tests.fakes.state import FakeQueue, FakeTopic, QueueLocks, dump
from tests.fakes.tcp import Connection, FakeServer, Refusal

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
TOPIC_LENGTH_MAX = 127
BATCH_MESSAGES_MAX = 32767
MODERN_VERSION = "V5_3_3"
OLD_VERSION = "V4_9_7"


def answer(body: str | bytes = b"", code: int = ResponseCode.SUCCESS, remark: str | None = None, **fields: object) -> RemotingCommand:
    ext_fields = {name: str(value) for name, value in fields.items()}
    return RemotingCommand(code, ext_fields, body.encode() if isinstance(body, str) else body, remark=remark)


class FakeBroker(AdminHandlers, FakeServer):
    """A master. ``wall_clock_ms`` gives store times, ``locks.clock`` the age of locks; both may be replaced."""

    def __init__(self, name: str, cluster_name: str, modern: bool = True) -> None:
        super().__init__()
        self.name = name
        self.replica = 0
        """Its id in its replica group; 0 is the master."""
        self.cluster_name = cluster_name
        self.modern = modern
        self.version_name = MODERN_VERSION if modern else OLD_VERSION
        self.topics: dict[str, FakeTopic] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.consumer_offsets: dict[tuple[str, str], dict[int, int]] = {}
        self.producers: dict[str, dict[Connection, dict[str, Any]]] = {}
        self.consumers: dict[str, dict[Connection, dict[str, Any]]] = {}
        self.config: dict[str, str] = {
            "brokerName": name,
            "brokerClusterName": cluster_name,
            "brokerRole": "ASYNC_MASTER",
            "messageDelayLevel": "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h",
            "maxMessageSize": str(MESSAGE_BYTES_MAX),
            "maxTransferCountOnMessageInMemory": "32",
            "maxTransferBytesOnMessageInMemory": "262144",
        }
        self.auto_create_topic = False
        self.adds_properties = True
        self.delivers = True
        """While False nothing new is dispatched: stored, but max offset and pulls do not show it (a slow dispatch)."""
        self.wall_clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
        self.locks = QueueLocks(time.monotonic)
        self.pulls_beyond_max = 0
        self._log_offset = 0
        self._pending: list[tuple[FakeQueue, StoredMessage]] = []
        self.handlers.update({
            RequestCode.PULL_MESSAGE: self._pull,
            RequestCode.SEND_MESSAGE_V2: self._send,
            RequestCode.SEND_BATCH_MESSAGE: self._send,
            **self.admin_handlers(),
        })  # fmt: skip

    def connection_closed(self, connection: Connection) -> None:
        for table in (self.producers, self.consumers):
            for group in list(table):
                table[group].pop(connection, None)
                if not table[group]:
                    del table[group]

    # What tests do to it

    def create_topic(self, name: str, queue_count: int = 4, perm: int = PERM_READ | PERM_WRITE) -> FakeTopic:
        """Replaces a topic of that name: an existing one is gone with its messages, offsets start at 0 again."""
        topic = self.topics[name] = FakeTopic(name, queue_count, queue_count, perm)
        return topic

    def put(self, topic: str, queue_id: int, body: bytes, properties: bytes = b"", **changes: Any) -> int:
        """Stores a message as a producer would; returns its queue offset. ``changes`` are fields of StoredMessage."""
        queue = self.topics[topic].queue(queue_id)
        message = self._stored(topic, queue_id, queue.max_offset, body, properties, **changes)
        queue.append(message)
        queue.wake()
        return message.queue_offset

    def queue(self, topic: str, queue_id: int) -> FakeQueue:
        return self.topics[topic].queue(queue_id)

    def dispatch(self) -> None:
        """Ends a time of ``delivers = False``: what was stored becomes visible."""
        self.delivers = True
        pending, self._pending = self._pending, []
        for queue, message in pending:
            queue.append(message)
            queue.wake()

    def _stored(self, topic: str, queue_id: int, offset: int, body: bytes, properties: bytes, **changes: Any) -> StoredMessage:
        now_ms = self.wall_clock_ms()
        host = b"\x7f\x00\x00\x01" + self.port.to_bytes(4, "big")
        values = {
            "commit_log_offset": self._log_offset,
            "born_timestamp_ms": now_ms,
            "store_timestamp_ms": now_ms,
            "store_host": host,
            **changes,
        }
        self._log_offset += stored_size(topic, len(body), len(properties))
        return StoredMessage(topic.encode(), queue_id, offset, bytes(body), properties, **values)

    # Pull

    async def _pull(self, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        fields = command.ext_fields
        queue = self._readable_queue(fields["topic"], int(fields["queueId"]))
        self._check_group(fields["consumerGroup"])
        found = self._pull_once(queue, fields)
        suspend_ms = int(fields["suspendTimeoutMillis"])
        if found.code != ResponseCode.PULL_NOT_FOUND or not int(fields["sysFlag"]) & PULL_SUSPEND or suspend_ms <= 0:
            return found
        arrived = asyncio.Event()
        queue.arrivals.append(arrived.set)
        try:
            async with asyncio.timeout(suspend_ms / 1000):
                await arrived.wait()
        except TimeoutError:
            if arrived.set in queue.arrivals:
                queue.arrivals.remove(arrived.set)
        return self._pull_once(queue, fields)

    def _check_group(self, name: str) -> None:
        group = self.groups.get(name)
        if group is not None and group.get("consumeEnable") is False:
            raise Refusal(ResponseCode.NO_PERMISSION, f"subscription group no permission, {name}")

    def _readable_queue(self, topic_name: str, queue_id: int) -> FakeQueue:
        topic = self.topics.get(topic_name)
        if topic is None:
            raise Refusal(ResponseCode.TOPIC_NOT_EXIST, f"topic[{topic_name}] not exist, apply first please!")
        if not topic.perm & PERM_READ:
            raise Refusal(ResponseCode.NO_PERMISSION, f"the topic[{topic_name}] pulling message is forbidden")
        if not 0 <= queue_id < topic.read_queue_count:
            code = ResponseCode.INVALID_PARAMETER if self.modern else ResponseCode.SYSTEM_ERROR
            raise Refusal(code, f"queueId[{queue_id}] is illegal, topic:[{topic_name}]")
        return topic.queue(queue_id)

    def _pull_once(self, queue: FakeQueue, fields: dict[str, str]) -> RemotingCommand:
        offset = int(fields["queueOffset"])
        low, high = queue.min_offset, queue.max_offset
        code, remark, next_offset, body = ResponseCode.SUCCESS, "FOUND", offset, b""
        if high == 0:
            code = ResponseCode.PULL_OFFSET_MOVED if offset else ResponseCode.PULL_NOT_FOUND
            remark, next_offset = "NO_MESSAGE_IN_QUEUE", 0
        elif offset < low:
            code, remark, next_offset = ResponseCode.PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL", low
        elif offset == high:
            code, remark = ResponseCode.PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE"
        elif offset > high:
            self.pulls_beyond_max += 1
            code, remark, next_offset = ResponseCode.PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY", high
        else:
            count = min(int(fields["maxMsgNums"]), int(self.config["maxTransferCountOnMessageInMemory"]))
            found = queue.read(offset, count, int(self.config["maxTransferBytesOnMessageInMemory"]))
            next_offset, body = offset + len(found), b"".join(found)
        return answer(
            body, code, remark,
            suggestWhichBrokerId=0, nextBeginOffset=next_offset, minOffset=low, maxOffset=high,
        )  # fmt: skip

    # Send

    def _send(self, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        fields = command.ext_fields
        topic = self._writable_topic(fields)
        is_batch = fields.get("m") == "true"
        sys_flag = int(fields["f"])
        if len(command.body) > int(self.config["maxMessageSize"]):
            raise Refusal(ResponseCode.MESSAGE_ILLEGAL, "the message is illegal, maybe msg body or properties length not matched")
        own = fields.get("i", "").encode("utf-8", "surrogateescape")
        if is_batch:
            if sys_flag & SysFlag.TRANSACTION:
                raise Refusal(ResponseCode.MESSAGE_ILLEGAL, "transaction messages cannot be batched")
            messages = [(flag, body, properties + self._added(own)) for flag, body, properties in decode_batch(command.body)]
        else:
            messages = [(int(fields["h"]), bytes(command.body), self._single_properties(own))]
        self._check_messages(messages)
        return self._append(topic, fields, messages)

    def _writable_topic(self, fields: dict[str, str]) -> FakeTopic:
        name = fields["b"]
        if len(name) > TOPIC_LENGTH_MAX:
            raise Refusal(ResponseCode.MESSAGE_ILLEGAL, f"message topic length too long {len(name)}")
        topic = self.topics.get(name)
        if topic is None:
            if not self.auto_create_topic:
                raise Refusal(ResponseCode.TOPIC_NOT_EXIST, f"topic[{name}] not exist, apply first please!")
            topic = self.create_topic(name)
        if not topic.perm & PERM_WRITE:
            raise Refusal(ResponseCode.NO_PERMISSION, f"the broker[{self.address}] sending message is forbidden")
        if int(fields["e"]) >= max(topic.read_queue_count, topic.write_queue_count):
            code = ResponseCode.INVALID_PARAMETER if self.modern else ResponseCode.SYSTEM_ERROR
            raise Refusal(code, f"request queueId[{fields['e']}] is illegal")
        return topic

    def _check_messages(self, messages: list[tuple[int, bytes, bytes]]) -> None:
        if not 0 < len(messages) <= BATCH_MESSAGES_MAX:
            raise Refusal(ResponseCode.MESSAGE_ILLEGAL, "wrong number of messages")
        for _, _, properties in messages:
            if len(properties) > PROPERTIES_BYTES_MAX:
                raise Refusal(ResponseCode.MESSAGE_ILLEGAL, "message properties length too long")

    def _append(self, topic: FakeTopic, fields: dict[str, str], messages: list[tuple[int, bytes, bytes]]) -> RemotingCommand:
        queue_id = int(fields["e"])
        queue = topic.queue(queue_id)
        first = queue.max_offset + sum(waiting is queue for waiting, _ in self._pending)
        message_ids = []
        for index, (flag, body, properties) in enumerate(messages):
            message = self._stored(
                topic.name, queue_id, first + index, body, properties,
                flag=flag,
                sys_flag=int(fields["f"]),
                born_timestamp_ms=int(fields["g"]),
                reconsume_times=int(fields.get("j", "0")),
            )  # fmt: skip
            message_ids.append((message.store_host + message.commit_log_offset.to_bytes(8, "big")).hex().upper())
            if self.delivers:
                queue.append(message)
            else:
                self._pending.append((queue, message))
        queue.wake()
        return answer(msgId=",".join(message_ids), queueId=queue_id, queueOffset=first, MSG_REGION="DefaultRegion", TRACE_ON="true")

    def _added(self, own: bytes) -> bytes:
        """What 4.8 to 5.3.3 append to each message of a batch."""
        if not self.adds_properties:
            return own
        if own and not own.endswith(b"\x02"):
            own += b"\x02"
        cluster = f"CLUSTER\x01{self.cluster_name}\x02"
        return own + (f"MSG_REGION\x01DefaultRegion\x02TRACE_ON\x01true\x02{cluster}" if self.modern else cluster).encode()

    def _single_properties(self, own: bytes) -> bytes:
        """Parsed to a map and written anew: order changes, empty values go, the last of a name wins."""
        pairs: dict[bytes, bytes] = {}
        for pair in self._added(own).split(b"\x02"):
            name, _, value = pair.partition(b"\x01")
            if name and value:
                pairs[name] = value
        return b"".join(name + b"\x01" + pairs[name] + b"\x02" for name in sorted(pairs))


class FakeNameServer(FakeServer):
    """Knows the brokers of its cluster; routes are always fresh, and a stopped broker stays in them until told."""

    def __init__(self, cluster_name: str, brokers: dict[str, FakeBroker]) -> None:
        super().__init__()
        self.cluster_name = cluster_name
        self.brokers = brokers
        self.registered = set(brokers)
        self.handlers.update({
            RequestCode.GET_ROUTEINFO_BY_TOPIC: self._route,
            RequestCode.GET_BROKER_CLUSTER_INFO: self._cluster_info,
            RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER: self._topic_list,
            RequestCode.GET_TOPICS_BY_CLUSTER: self._topic_list,
            RequestCode.GET_KV_CONFIG: self._kv_config,
            RequestCode.DELETE_TOPIC_IN_NAMESRV: lambda command, connection: answer(),
        })  # fmt: skip

    def _live(self) -> list[FakeBroker]:
        return [broker for name, broker in self.brokers.items() if name in self.registered]

    def _broker_data(self, broker: FakeBroker) -> dict[str, Any]:
        return {"brokerAddrs": {broker.replica: broker.address}, "brokerName": broker.name, "cluster": self.cluster_name}

    def _route(self, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        name = command.ext_fields["topic"]
        brokers = [broker for broker in self._live() if name in broker.topics]
        if not brokers:
            raise Refusal(ResponseCode.TOPIC_NOT_EXIST, f"No topic route info in name server for the topic: {name}")
        queues = []
        for broker in brokers:
            topic = broker.topics[name]
            queues.append({
                "brokerName": broker.name,
                "perm": topic.perm,
                "readQueueNums": topic.read_queue_count,
                "topicSysFlag": 0,
                "writeQueueNums": topic.write_queue_count,
            })  # fmt: skip
        route = {
            "brokerDatas": [self._broker_data(broker) for broker in brokers],
            "filterServerTable": {},
            "queueDatas": queues,
        }
        standard = brokers[0].modern and command.ext_fields.get("acceptStandardJsonOnly") == "true"
        return answer(json.dumps(route) if standard else dump(route))

    def _cluster_info(self, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        brokers = self._live()
        return answer(
            dump({
                "brokerAddrTable": {broker.name: self._broker_data(broker) for broker in brokers},
                "clusterAddrTable": {self.cluster_name: [broker.name for broker in brokers]},
            })
        )  # fmt: skip

    def _topic_list(self, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        names = {name for broker in self._live() for name in broker.topics}
        return answer(dump({"topicList": sorted(names)}))

    def _kv_config(self, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        raise Refusal(ResponseCode.QUERY_NOT_FOUND, "No config item")


class FakeCluster:
    """``async with FakeCluster("a", brokers=2) as cluster``: then ``cluster.name_server`` is an address to connect to."""

    def __init__(self, name: str, brokers: int = 1, modern: bool = True) -> None:
        self.name = name
        self.brokers = {f"{name}-{number}": FakeBroker(f"{name}-{number}", name, modern) for number in range(brokers)}
        self.name_server_process = FakeNameServer(name, self.brokers)

    @property
    def name_server(self) -> str:
        return self.name_server_process.address

    @property
    def broker(self) -> FakeBroker:
        """The first one, for tests with only one."""
        return next(iter(self.brokers.values()))

    def create_topic(self, name: str, queue_count: int = 4) -> None:
        for broker in self.brokers.values():
            broker.create_topic(name, queue_count)

    async def __aenter__(self) -> Self:
        for server in (*self.brokers.values(), self.name_server_process):
            await server.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for server in (*self.brokers.values(), self.name_server_process):
            await server.stop()
