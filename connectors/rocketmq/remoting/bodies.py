"""Typed views of the bodies of admin answers. Wrong types and missing names raise ProtocolError."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from connectors.rocketmq.remoting.errors import ProtocolError
from connectors.rocketmq.remoting.fastjson import loads

__all__ = [
    "BrokerData", "ClusterInfo", "Connection", "ConsumerConnections", "IndexEntry", "QueueData", "QueueProgress",
    "SubscriptionGroup", "TopicConfig", "TopicRoute", "loads", "read_cluster_info", "read_consume_queue",
    "read_consume_stats", "read_consumer_connections", "read_consumer_list", "read_consumer_offsets", "read_delay_offsets",
    "read_group_list", "read_locked_queues", "read_producer_connections", "read_properties_text", "read_queue_offsets",
    "read_runtime_info", "read_subscription_groups", "read_topic_config", "read_topic_configs", "read_topic_list",
    "read_topic_route",
]  # fmt: skip


# Access with the type checked


def _mapping(value: Any, what: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} is not an object")
    return value


def _members(value: Any, what: str) -> dict[Any, Any]:
    """An object that may be absent."""
    return {} if value is None else _mapping(value, what)


def _items(value: Any, what: str) -> list[Any]:
    """A list that may be absent."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ProtocolError(f"{what} is not a list")
    return value


def _integer(value: Any, what: str) -> int:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError as error:
            raise ProtocolError(f"{what} is no number") from error
    if type(value) is not int:
        raise ProtocolError(f"{what} is no number")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ProtocolError(f"{what} is no text")
    return value


def _texts(value: Any, what: str) -> tuple[str, ...]:
    return tuple(_text(item, what) for item in _items(value, what))


def _queue_key(value: Any) -> tuple[str, str, int]:
    """(topic, broker name, queue id) of a MessageQueue, as an object or as a frozen key."""
    pairs = value
    if isinstance(value, tuple):
        try:
            pairs = dict(value)
        except (TypeError, ValueError) as error:
            raise ProtocolError("a queue is no object") from error
    queue = _mapping(pairs, "queue")
    return (
        _text(queue.get("topic"), "topic"),
        _text(queue.get("brokerName"), "brokerName"),
        _integer(queue.get("queueId"), "queueId"),
    )


# Name server


@dataclass(frozen=True, slots=True)
class BrokerData:
    """A replica group: its processes by broker id, 0 being the master. ``lets_slaves_act``: without a master, 5.x may show a slave
    in its place (``enableSlaveActingMaster``)."""

    cluster: str
    broker_name: str
    addresses: dict[int, str]
    lets_slaves_act: bool = False

    @property
    def master(self) -> str | None:
        return self.addresses.get(0)


@dataclass(frozen=True, slots=True)
class QueueData:
    broker_name: str
    read_queue_count: int
    write_queue_count: int
    perm: int
    topic_sys_flag: int = 0


@dataclass(frozen=True, slots=True)
class TopicRoute:
    """Answer to 105. ``is_static``: a 5.x static topic, whose queue ids and offsets are mapped."""

    queues: tuple[QueueData, ...]
    brokers: tuple[BrokerData, ...]
    order_conf: str = ""
    is_static: bool = False


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """Answer to 106: replica groups by broker name, and broker names by RocketMQ's own cluster name."""

    brokers: dict[str, BrokerData]
    clusters: dict[str, tuple[str, ...]]


def _broker_data(value: Any) -> BrokerData:
    broker = _mapping(value, "broker")
    addresses = _members(broker.get("brokerAddrs"), "brokerAddrs")
    return BrokerData(
        _text(broker.get("cluster") or "", "cluster"),
        _text(broker.get("brokerName"), "brokerName"),
        {_integer(broker_id, "broker id"): _text(address, "address") for broker_id, address in addresses.items()},
        bool(broker.get("enableActingMaster")),
    )


def read_topic_route(body: bytes | memoryview) -> TopicRoute:
    route = _mapping(loads(body), "route")
    queues = []
    for value in _items(route.get("queueDatas"), "queueDatas"):
        queue = _mapping(value, "queue")
        queues.append(
            QueueData(
                _text(queue.get("brokerName"), "brokerName"),
                _integer(queue.get("readQueueNums"), "readQueueNums"),
                _integer(queue.get("writeQueueNums"), "writeQueueNums"),
                _integer(queue.get("perm"), "perm"),
                # 4.4.0 misspells the name.
                _integer(queue.get("topicSysFlag", queue.get("topicSynFlag", 0)), "topicSysFlag"),
            )
        )
    brokers = tuple(_broker_data(value) for value in _items(route.get("brokerDatas"), "brokerDatas"))
    return TopicRoute(
        tuple(queues),
        brokers,
        _text(route.get("orderTopicConf") or "", "orderTopicConf"),
        bool(_members(route.get("topicQueueMappingByBroker"), "topicQueueMappingByBroker")),
    )


def read_cluster_info(body: bytes | memoryview) -> ClusterInfo:
    info = _mapping(loads(body), "cluster info")
    brokers = _members(info.get("brokerAddrTable"), "brokerAddrTable")
    clusters = _members(info.get("clusterAddrTable"), "clusterAddrTable")
    return ClusterInfo(
        {_text(name, "broker name"): _broker_data(value) for name, value in brokers.items()},
        {_text(name, "cluster"): _texts(names, "broker names") for name, names in clusters.items()},
    )


def read_topic_list(body: bytes | memoryview) -> tuple[str, ...]:
    """Answer to 206 and 224."""
    return _texts(_mapping(loads(body), "topic list").get("topicList"), "topicList")


# Topics and groups


@dataclass(frozen=True, slots=True)
class TopicConfig:
    name: str
    read_queue_count: int
    write_queue_count: int
    perm: int
    topic_sys_flag: int = 0
    order: bool = False
    filter_type: str = "SINGLE_TAG"
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SubscriptionGroup:
    """``fields`` is the group's configuration in RocketMQ's own names, fit to be sent with 200."""

    name: str
    consume_enabled: bool
    fields: dict[str, Any]


def _topic_config(value: Any) -> TopicConfig:
    config = _mapping(value, "topic config")
    attributes = _members(config.get("attributes"), "attributes")
    return TopicConfig(
        _text(config.get("topicName"), "topicName"),
        _integer(config.get("readQueueNums"), "readQueueNums"),
        _integer(config.get("writeQueueNums"), "writeQueueNums"),
        _integer(config.get("perm"), "perm"),
        _integer(config.get("topicSysFlag", 0), "topicSysFlag"),
        config.get("order") is True,
        _text(config.get("topicFilterType") or "SINGLE_TAG", "topicFilterType"),
        {_text(name, "attribute"): _text(item, "attribute") for name, item in attributes.items()},
    )


def read_topic_config(body: bytes | memoryview) -> TopicConfig:
    """Answer to 351."""
    return _topic_config(loads(body))


def read_topic_configs(body: bytes | memoryview) -> dict[str, TopicConfig]:
    """Answer to 21."""
    table = _members(_mapping(loads(body), "topic configs").get("topicConfigTable"), "topicConfigTable")
    configs = (_topic_config(value) for value in table.values())
    return {config.name: config for config in configs}


def read_subscription_groups(body: bytes | memoryview) -> dict[str, SubscriptionGroup]:
    """Answer to 201."""
    table = _members(_mapping(loads(body), "groups").get("subscriptionGroupTable"), "subscriptionGroupTable")
    groups = {}
    for value in table.values():
        fields = _mapping(value, "group")
        name = _text(fields.get("groupName"), "groupName")
        groups[name] = SubscriptionGroup(name, fields.get("consumeEnable") is not False, fields)
    return groups


# Offsets


@dataclass(frozen=True, slots=True)
class QueueProgress:
    """One queue of 208. A consumer offset of 0 may also mean that nothing was committed."""

    topic: str
    broker_name: str
    queue_id: int
    broker_offset: int
    consumer_offset: int
    last_timestamp_ms: int


def read_consumer_offsets(body: bytes | memoryview) -> dict[tuple[str, str], dict[int, int]]:
    """Answer to 43: (topic, group) to offset by queue id. Broadcast progress has groups that end in ``@broadcast``."""
    table = _members(_mapping(loads(body), "offsets").get("offsetTable"), "offsetTable")
    offsets = {}
    for key, value in table.items():
        topic, _, group = _text(key, "offset key").partition("@")
        offsets[topic, group] = {
            _integer(queue_id, "queue id"): _integer(offset, "offset")
            for queue_id, offset in _members(value, "offsets").items()
        }
    return offsets


def read_delay_offsets(body: bytes | memoryview) -> dict[int, int]:
    """Answer to 45: next offset to deliver by delay level."""
    table = _members(_mapping(loads(body), "delay offsets").get("offsetTable"), "offsetTable")
    return {_integer(level, "delay level"): _integer(offset, "offset") for level, offset in table.items()}


def read_queue_offsets(body: bytes | memoryview) -> dict[tuple[str, str, int], int]:
    """Answer to 222: offsets set, by queue."""
    table = _members(_mapping(loads(body), "reset result").get("offsetTable"), "offsetTable")
    return {_queue_key(key): _integer(offset, "offset") for key, offset in table.items()}


def read_consume_stats(body: bytes | memoryview) -> list[QueueProgress]:
    """Answer to 208."""
    table = _members(_mapping(loads(body), "consume stats").get("offsetTable"), "offsetTable")
    progress = []
    for key, value in table.items():
        numbers = _mapping(value, "offsets")
        topic, broker_name, queue_id = _queue_key(key)
        progress.append(
            QueueProgress(
                topic,
                broker_name,
                queue_id,
                _integer(numbers.get("brokerOffset"), "brokerOffset"),
                _integer(numbers.get("consumerOffset"), "consumerOffset"),
                _integer(numbers.get("lastTimestamp", 0), "lastTimestamp"),
            )
        )
    return progress


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One entry of a consume queue (321)."""

    commit_log_offset: int
    size_bytes: int
    tags_code: int


def read_consume_queue(body: bytes | memoryview) -> tuple[int, int, list[IndexEntry]]:
    """Answer to 321: min index, max index, entries."""
    answer = _mapping(loads(body), "consume queue")
    entries = []
    for value in _items(answer.get("queueData"), "queueData"):
        entry = _mapping(value, "entry")
        entries.append(
            IndexEntry(
                _integer(entry.get("physicOffset"), "physicOffset"),
                _integer(entry.get("physicSize"), "physicSize"),
                _integer(entry.get("tagsCode"), "tagsCode"),
            )
        )
    low = _integer(answer.get("minQueueIndex", 0), "minQueueIndex")
    return low, _integer(answer.get("maxQueueIndex", 0), "maxQueueIndex"), entries


# Clients


@dataclass(frozen=True, slots=True)
class Connection:
    client_id: str
    address: str
    language: str
    version: int


@dataclass(frozen=True, slots=True)
class ConsumerConnections:
    """Answer to 203. ``subscriptions`` maps a topic to its filter text and the kind of it (``TAG``, ``SQL92``; 4.4 leaves it out)."""

    connections: tuple[Connection, ...]
    subscriptions: dict[str, tuple[str, str]]
    consume_type: str
    message_model: str
    consume_from_where: str


def _connections(value: Any) -> Iterator[Connection]:
    for item in _items(value, "connectionSet"):
        connection = _mapping(item, "connection")
        yield Connection(
            _text(connection.get("clientId"), "clientId"),
            _text(connection.get("clientAddr") or "", "clientAddr"),
            _text(connection.get("language") or "", "language"),
            _integer(connection.get("version", 0), "version"),
        )


def read_consumer_connections(body: bytes | memoryview) -> ConsumerConnections:
    answer = _mapping(loads(body), "consumer connections")
    subscriptions = {}
    for topic, value in _members(answer.get("subscriptionTable"), "subscriptionTable").items():
        subscription = _mapping(value, "subscription")
        subscriptions[_text(topic, "topic")] = (
            _text(subscription.get("subString") or "", "subString"), _text(subscription.get("expressionType") or "", "expressionType"),
        )  # fmt: skip
    return ConsumerConnections(
        tuple(_connections(answer.get("connectionSet"))),
        subscriptions,
        _text(answer.get("consumeType") or "", "consumeType"),
        _text(answer.get("messageModel") or "", "messageModel"),
        _text(answer.get("consumeFromWhere") or "", "consumeFromWhere"),
    )


def read_producer_connections(body: bytes | memoryview) -> tuple[Connection, ...]:
    """Answer to 204."""
    return tuple(_connections(_mapping(loads(body), "producer connections").get("connectionSet")))


def read_consumer_list(body: bytes | memoryview) -> tuple[str, ...]:
    """Answer to 38: client ids."""
    return _texts(_mapping(loads(body), "consumer list").get("consumerIdList"), "consumerIdList")


def read_group_list(body: bytes | memoryview) -> tuple[str, ...]:
    """Answer to 300."""
    return _texts(_mapping(loads(body), "group list").get("groupList"), "groupList")


def read_locked_queues(body: bytes | memoryview) -> set[tuple[str, str, int]]:
    """Answer to 41: the queues now locked by the client that asked."""
    locked = _mapping(loads(body), "lock result").get("lockOKMQSet")
    return {_queue_key(value) for value in _items(locked, "lockOKMQSet")}


# Broker


def read_properties_text(body: bytes | memoryview) -> dict[str, str]:
    """Answer to 26: ``name=value`` lines."""
    settings = {}
    for line in bytes(body).decode("utf-8", "replace").splitlines():
        name, separator, value = line.partition("=")
        if separator and not line.lstrip().startswith("#"):
            settings[name.strip()] = value.strip()
    return settings


def read_runtime_info(body: bytes | memoryview) -> Mapping[str, str]:
    """Answer to 28: the table as text."""
    table = _members(_mapping(loads(body), "runtime info").get("table"), "table")
    return {_text(name, "name"): value if isinstance(value, str) else json.dumps(value) for name, value in table.items()}
