"""Requests of the set a replicator uses, and typed readers of the fields in their answers.

Field names are those of RocketMQ's header classes. A builder sets code, fields and body; opaque and signature belong to
the connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from connectors.rocketmq.remoting.codes import RequestCode
from connectors.rocketmq.remoting.command import RemotingCommand
from connectors.rocketmq.remoting.errors import ProtocolError
from connectors.rocketmq.remoting.message import SysFlag

PULL_SUSPEND = 2
PULL_SUBSCRIPTION = 4

PERM_READ = 4
PERM_WRITE = 2

PULL_PATCHED = ("queueOffset", "maxMsgNums")
"""Fields of ``pull`` that a ``FrameTemplate`` fills in."""

_DEFAULT_TOPIC = "TBW102"
_DEFAULT_TOPIC_QUEUES = "4"

QueueKey = tuple[str, str, int]
"""(topic, broker name, queue id)."""


@dataclass(frozen=True, slots=True)
class PullBounds:
    """Header of a pull's answer. ``offset_delta`` is not 0 for static topics only."""

    next_begin_offset: int
    min_offset: int
    max_offset: int
    suggested_broker_id: int = 0
    offset_delta: int = 0


@dataclass(frozen=True, slots=True)
class SendAnswer:
    """Header of a send's answer. ``queue_offset`` is the first message's; ``count`` the number of ids, 0 if none came."""

    queue_id: int
    queue_offset: int
    count: int
    message_ids: str = ""


@dataclass(frozen=True, slots=True)
class SendTarget:
    """Where a send goes and what is common to all it carries. ``sys_flag`` is masked to what may be carried."""

    producer_group: str
    topic: str
    queue_id: int
    born_timestamp_ms: int
    sys_flag: int = 0
    reconsume_times: int = 0
    max_reconsume_times: int | None = None


@dataclass(frozen=True, slots=True)
class NewTopic:
    """What 17 writes, overwriting what is there. ``attributes`` as text, ``+message.type=FIFO``; 5.x only."""

    name: str
    read_queue_count: int
    write_queue_count: int
    perm: int = PERM_READ | PERM_WRITE
    order: bool = False
    attributes: str = ""
    filter_type: str = "SINGLE_TAG"
    sys_flag: int = 0


def _request(code: RequestCode, body: bytes = b"", **fields: object) -> RemotingCommand:
    return RemotingCommand(int(code), {name: _text(value) for name, value in fields.items()}, body)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _json_body(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# Pull and send


def pull(
    consumer_group: str, queue: tuple[str, int], queue_offset: int, max_messages: int, *, suspend_ms: int = 0
) -> RemotingCommand:
    """A stateless read of ``queue`` = (topic, queue id): never commits, needs no heartbeat. ``suspend_ms`` > 0 polls long."""
    topic, queue_id = queue
    return _request(
        RequestCode.PULL_MESSAGE,
        consumerGroup=consumer_group,
        topic=topic,
        queueId=queue_id,
        queueOffset=queue_offset,
        maxMsgNums=max_messages,
        sysFlag=PULL_SUBSCRIPTION | (PULL_SUSPEND if suspend_ms > 0 else 0),
        commitOffset=0,
        suspendTimeoutMillis=suspend_ms,
        subscription="*",
        subVersion=0,
        expressionType="TAG",
    )


def send_single(target: SendTarget, body: bytes, properties: bytes, flag: int = 0) -> RemotingCommand:
    """One message (310). The broker parses the properties and writes them anew; only for what a batch cannot carry."""
    return RemotingCommand(int(RequestCode.SEND_MESSAGE_V2), _send_fields(target, False, flag, properties), body)


def send_batch(target: SendTarget, batch: bytes) -> RemotingCommand:
    """A batch (320) made by ``message.encode_batch``: stored contiguously and all or nothing."""
    return RemotingCommand(int(RequestCode.SEND_BATCH_MESSAGE), _send_fields(target, True, 0, b""), batch)


def _send_fields(target: SendTarget, batch: bool, flag: int, properties: bytes) -> dict[str, str]:
    fields = {
        "a": target.producer_group,
        "b": target.topic,
        "c": _DEFAULT_TOPIC,
        "d": _DEFAULT_TOPIC_QUEUES,
        "e": str(target.queue_id),
        "f": str(target.sys_flag & SysFlag.CARRIED),
        "g": str(target.born_timestamp_ms),
        "h": str(flag),
        "j": str(target.reconsume_times),
        "k": "false",
        "m": _text(batch),
    }
    # Batch-level properties would be appended to every message's own by 4.8 to 5.3.3, so a batch has none.
    if properties:
        fields["i"] = properties.decode("utf-8", "surrogateescape")
    if target.max_reconsume_times is not None:
        fields["l"] = str(target.max_reconsume_times)
    return fields


def read_pull(answer: RemotingCommand) -> PullBounds:
    fields = answer.ext_fields
    return PullBounds(
        integer_field(fields, "nextBeginOffset"),
        integer_field(fields, "minOffset"),
        integer_field(fields, "maxOffset"),
        integer_field(fields, "suggestWhichBrokerId", 0),
        integer_field(fields, "offsetDelta", 0),
    )


def read_send(answer: RemotingCommand) -> SendAnswer:
    fields = answer.ext_fields
    message_ids = fields.get("msgId", "")
    return SendAnswer(
        integer_field(fields, "queueId"),
        integer_field(fields, "queueOffset"),
        message_ids.count(",") + 1 if message_ids else 0,
        message_ids,
    )


def integer_field(fields: Mapping[str, str], name: str, default: int | None = None) -> int:
    """A decimal field of an answer; a missing one is a protocol error unless there is a default."""
    text = fields.get(name)
    if text is None or text == "":
        if default is None:
            raise ProtocolError(f"answer has no field {name}")
        return default
    try:
        return int(text)
    except ValueError as error:
        raise ProtocolError(f"field {name} is no number: {text[:40]!r}") from error


# Name server


def topic_route(topic: str) -> RemotingCommand:
    return _request(RequestCode.GET_ROUTEINFO_BY_TOPIC, topic=topic, acceptStandardJsonOnly=True)


def cluster_info() -> RemotingCommand:
    return _request(RequestCode.GET_BROKER_CLUSTER_INFO)


def topic_list() -> RemotingCommand:
    return _request(RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER)


def topics_by_cluster(cluster: str) -> RemotingCommand:
    return _request(RequestCode.GET_TOPICS_BY_CLUSTER, cluster=cluster)


def kv_config(namespace: str, key: str) -> RemotingCommand:
    return _request(RequestCode.GET_KV_CONFIG, namespace=namespace, key=key)


def delete_topic_in_name_server(topic: str) -> RemotingCommand:
    return _request(RequestCode.DELETE_TOPIC_IN_NAMESRV, topic=topic)


# Offsets


def query_consumer_offset(consumer_group: str, topic: str, queue_id: int) -> RemotingCommand:
    """5.x answers 22 when nothing was ever committed; 4.x may answer 0: the bulk read 43 is the truth there."""
    return _request(
        RequestCode.QUERY_CONSUMER_OFFSET,
        consumerGroup=consumer_group, topic=topic, queueId=queue_id, setZeroIfNotFound=False,
    )  # fmt: skip


def update_consumer_offset(consumer_group: str, topic: str, queue_id: int, offset: int) -> RemotingCommand:
    return _request(
        RequestCode.UPDATE_CONSUMER_OFFSET,
        consumerGroup=consumer_group, topic=topic, queueId=queue_id, commitOffset=offset,
    )  # fmt: skip


def max_offset(topic: str, queue_id: int) -> RemotingCommand:
    """Only for queues the route lists: asking for another creates it."""
    return _request(RequestCode.GET_MAX_OFFSET, topic=topic, queueId=queue_id)


def min_offset(topic: str, queue_id: int) -> RemotingCommand:
    """Only for queues the route lists: asking for another creates it."""
    return _request(RequestCode.GET_MIN_OFFSET, topic=topic, queueId=queue_id)


def search_offset(topic: str, queue_id: int, timestamp_ms: int, upper: bool = False) -> RemotingCommand:
    """By store time. 5.x: the first at or after it (or, ``upper``, the last at or before); 4.x: the nearest."""
    return _request(
        RequestCode.SEARCH_OFFSET_BY_TIMESTAMP,
        topic=topic, queueId=queue_id, timestamp=timestamp_ms, boundaryType="UPPER" if upper else "LOWER",
    )  # fmt: skip


def earliest_store_time(topic: str, queue_id: int) -> RemotingCommand:
    return _request(RequestCode.GET_EARLIEST_MSG_STORETIME, topic=topic, queueId=queue_id)


def read_offset(answer: RemotingCommand) -> int:
    """The offset in an answer to 14, 29, 30 or 31."""
    return integer_field(answer.ext_fields, "offset")


def all_consumer_offsets() -> RemotingCommand:
    return _request(RequestCode.GET_ALL_CONSUMER_OFFSET)


def all_delay_offsets() -> RemotingCommand:
    return _request(RequestCode.GET_ALL_DELAY_OFFSET)


def consume_stats(consumer_group: str, topic: str = "") -> RemotingCommand:
    command = _request(RequestCode.GET_CONSUME_STATS, consumerGroup=consumer_group)
    if topic:
        command.ext_fields["topic"] = topic
    return command


def reset_offset(consumer_group: str, topic: str, queue_id: int, offset: int) -> RemotingCommand:
    """Exact per-queue reset on brokers from 5.2 on, whether the group is online or not."""
    return _request(
        RequestCode.INVOKE_BROKER_TO_RESET_OFFSET,
        topic=topic, group=consumer_group, queueId=queue_id, offset=offset, timestamp=0, isForce=True,
    )  # fmt: skip


def reset_offset_by_time(consumer_group: str, topic: str, timestamp_ms: int, force: bool = True) -> RemotingCommand:
    return _request(
        RequestCode.INVOKE_BROKER_TO_RESET_OFFSET,
        topic=topic, group=consumer_group, timestamp=timestamp_ms, isForce=force,
    )  # fmt: skip


# Topics, groups, broker


def all_topic_configs() -> RemotingCommand:
    return _request(RequestCode.GET_ALL_TOPIC_CONFIG)


def topic_config(topic: str) -> RemotingCommand:
    """5.x only. 4.9 answers 3, and 4.4.0 does not answer at all, as to any request it does not know."""
    return _request(RequestCode.GET_TOPIC_CONFIG, topic=topic)


def create_topic(topic: NewTopic) -> RemotingCommand:
    command = _request(
        RequestCode.UPDATE_AND_CREATE_TOPIC,
        topic=topic.name,
        defaultTopic=_DEFAULT_TOPIC,
        readQueueNums=topic.read_queue_count,
        writeQueueNums=topic.write_queue_count,
        perm=topic.perm,
        topicFilterType=topic.filter_type,
        topicSysFlag=topic.sys_flag,
        order=topic.order,
    )
    if topic.attributes:
        command.ext_fields["attributes"] = topic.attributes
    return command


def delete_topic_in_broker(topic: str) -> RemotingCommand:
    return _request(RequestCode.DELETE_TOPIC_IN_BROKER, topic=topic)


def all_subscription_groups() -> RemotingCommand:
    return _request(RequestCode.GET_ALL_SUBSCRIPTIONGROUP_CONFIG)


def create_subscription_group(config: Mapping[str, Any]) -> RemotingCommand:
    """``config`` holds RocketMQ's own names (groupName, consumeEnable, retryMaxTimes …); what is left out gets defaults."""
    return _request(RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, _json_body(dict(config)))


def delete_subscription_group(group: str, clean_offset: bool = False) -> RemotingCommand:
    """The offsets' flag has one name in 4.9 and another in 5.x; 4.4 knows neither and keeps them."""
    return _request(RequestCode.DELETE_SUBSCRIPTIONGROUP, groupName=group, cleanOffset=clean_offset, removeOffset=clean_offset)


def broker_config() -> RemotingCommand:
    return _request(RequestCode.GET_BROKER_CONFIG)


def update_broker_config(settings: Mapping[str, str]) -> RemotingCommand:
    text = "".join(f"{name}={value}\n" for name, value in settings.items())
    return _request(RequestCode.UPDATE_BROKER_CONFIG, text.encode())


def broker_runtime_info() -> RemotingCommand:
    return _request(RequestCode.GET_BROKER_RUNTIME_INFO)


def query_consume_queue(topic: str, queue_id: int, index: int, count: int) -> RemotingCommand:
    """Of no use on 4.4.0, whose answer is always empty."""
    return _request(RequestCode.QUERY_CONSUME_QUEUE, topic=topic, queueId=queue_id, index=index, count=count)


def view_message(commit_log_offset: int, topic: str = "") -> RemotingCommand:
    """The answer's body is one stored message."""
    command = _request(RequestCode.VIEW_MESSAGE_BY_ID, offset=commit_log_offset)
    if topic:
        command.ext_fields["topic"] = topic
    return command


# Clients and queue locks


def heartbeat(client_id: str, producer_groups: Iterable[str]) -> RemotingCommand:
    """Producers only: a consumer heartbeat would make a group online and its retry topic exist."""
    producers = [{"groupName": group} for group in producer_groups]
    body = {"clientID": client_id, "producerDataSet": producers, "consumerDataSet": []}
    return _request(RequestCode.HEART_BEAT, _json_body(body))


def unregister_client(client_id: str, producer_group: str) -> RemotingCommand:
    return _request(RequestCode.UNREGISTER_CLIENT, clientID=client_id, producerGroup=producer_group)


def consumer_list(consumer_group: str) -> RemotingCommand:
    return _request(RequestCode.GET_CONSUMER_LIST_BY_GROUP, consumerGroup=consumer_group)


def consumer_connections(consumer_group: str) -> RemotingCommand:
    return _request(RequestCode.GET_CONSUMER_CONNECTION_LIST, consumerGroup=consumer_group)


def producer_connections(producer_group: str, topic: str) -> RemotingCommand:
    return _request(RequestCode.GET_PRODUCER_CONNECTION_LIST, producerGroup=producer_group, topic=topic)


def groups_by_topic(topic: str) -> RemotingCommand:
    return _request(RequestCode.QUERY_TOPIC_CONSUME_BY_WHO, topic=topic)


def lock_queues(consumer_group: str, client_id: str, queues: Iterable[QueueKey]) -> RemotingCommand:
    """The locks last 60 s on the broker asked; asking again renews those held."""
    return _request(RequestCode.LOCK_BATCH_MQ, _lock_body(consumer_group, client_id, queues))


def unlock_queues(consumer_group: str, client_id: str, queues: Iterable[QueueKey]) -> RemotingCommand:
    """Any client may unlock in another's name."""
    return _request(RequestCode.UNLOCK_BATCH_MQ, _lock_body(consumer_group, client_id, queues))


def _lock_body(consumer_group: str, client_id: str, queues: Iterable[QueueKey]) -> bytes:
    return _json_body({
        "consumerGroup": consumer_group,
        "clientId": client_id,
        "mqSet": [{"topic": topic, "brokerName": broker, "queueId": queue_id} for topic, broker, queue_id in queues],
        "onlyThisBroker": True,
    })  # fmt: skip
