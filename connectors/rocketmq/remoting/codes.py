"""Request and response codes under RocketMQ's own names, and what each response code asks the caller to do.

Mirrors RequestCode, ResponseCode and RemotingSysResponseCode.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class RequestCode(IntEnum):
    """What we ask, and what a broker may ask us (39, 40, 220 and on)."""

    PULL_MESSAGE = 11
    QUERY_CONSUMER_OFFSET = 14
    UPDATE_CONSUMER_OFFSET = 15
    UPDATE_AND_CREATE_TOPIC = 17
    GET_ALL_TOPIC_CONFIG = 21
    UPDATE_BROKER_CONFIG = 25
    GET_BROKER_CONFIG = 26
    GET_BROKER_RUNTIME_INFO = 28
    SEARCH_OFFSET_BY_TIMESTAMP = 29
    GET_MAX_OFFSET = 30
    GET_MIN_OFFSET = 31
    GET_EARLIEST_MSG_STORETIME = 32
    VIEW_MESSAGE_BY_ID = 33
    HEART_BEAT = 34
    UNREGISTER_CLIENT = 35
    END_TRANSACTION = 37
    GET_CONSUMER_LIST_BY_GROUP = 38
    CHECK_TRANSACTION_STATE = 39
    NOTIFY_CONSUMER_IDS_CHANGED = 40
    LOCK_BATCH_MQ = 41
    UNLOCK_BATCH_MQ = 42
    GET_ALL_CONSUMER_OFFSET = 43
    GET_ALL_DELAY_OFFSET = 45
    CHECK_CLIENT_CONFIG = 46
    GET_KV_CONFIG = 101
    GET_ROUTEINFO_BY_TOPIC = 105
    GET_BROKER_CLUSTER_INFO = 106
    UPDATE_AND_CREATE_SUBSCRIPTIONGROUP = 200
    GET_ALL_SUBSCRIPTIONGROUP_CONFIG = 201
    GET_CONSUMER_CONNECTION_LIST = 203
    GET_PRODUCER_CONNECTION_LIST = 204
    GET_ALL_TOPIC_LIST_FROM_NAMESERVER = 206
    DELETE_SUBSCRIPTIONGROUP = 207
    GET_CONSUME_STATS = 208
    DELETE_TOPIC_IN_BROKER = 215
    DELETE_TOPIC_IN_NAMESRV = 216
    RESET_CONSUMER_CLIENT_OFFSET = 220
    GET_CONSUMER_STATUS_FROM_CLIENT = 221
    INVOKE_BROKER_TO_RESET_OFFSET = 222
    INVOKE_BROKER_TO_GET_CONSUMER_STATUS = 223
    GET_TOPICS_BY_CLUSTER = 224
    QUERY_TOPIC_CONSUME_BY_WHO = 300
    GET_CONSUMER_RUNNING_INFO = 307
    CONSUME_MESSAGE_DIRECTLY = 309
    SEND_MESSAGE_V2 = 310
    SEND_BATCH_MESSAGE = 320
    QUERY_CONSUME_QUEUE = 321
    PUSH_REPLY_MESSAGE_TO_CLIENT = 326
    QUERY_TOPICS_BY_CONSUMER = 343
    GET_TOPIC_CONFIG = 351
    LITE_PULL_MESSAGE = 361


class ResponseCode(IntEnum):
    """Every answer code a replicator may meet."""

    SUCCESS = 0
    SYSTEM_ERROR = 1
    SYSTEM_BUSY = 2
    REQUEST_CODE_NOT_SUPPORTED = 3
    TRANSACTION_FAILED = 4
    FLUSH_DISK_TIMEOUT = 10
    SLAVE_NOT_AVAILABLE = 11
    FLUSH_SLAVE_TIMEOUT = 12
    MESSAGE_ILLEGAL = 13
    SERVICE_NOT_AVAILABLE = 14
    VERSION_NOT_SUPPORTED = 15
    NO_PERMISSION = 16
    TOPIC_NOT_EXIST = 17
    TOPIC_EXIST_ALREADY = 18
    PULL_NOT_FOUND = 19
    PULL_RETRY_IMMEDIATELY = 20
    PULL_OFFSET_MOVED = 21
    QUERY_NOT_FOUND = 22
    SUBSCRIPTION_PARSE_FAILED = 23
    SUBSCRIPTION_NOT_EXIST = 24
    SUBSCRIPTION_NOT_LATEST = 25
    SUBSCRIPTION_GROUP_NOT_EXIST = 26
    FILTER_DATA_NOT_EXIST = 27
    FILTER_DATA_NOT_LATEST = 28
    INVALID_PARAMETER = 29
    CONSUMER_NOT_ONLINE = 206
    CONSUME_MSG_TIMEOUT = 207
    NO_MESSAGE = 208
    FLOW_CONTROL = 215
    NOT_LEADER_FOR_QUEUE = 501
    RPC_UNKNOWN = -1
    RPC_ADDR_IS_NULL = -1002
    RPC_SEND_TO_CHANNEL_FAILED = -1004
    RPC_TIME_OUT = -1006
    GO_AWAY = 1500


class Kind(StrEnum):
    """What an answer means for the caller, whatever was asked."""

    OK = "ok"
    STORED_WEAK = "stored_weak"  # stored, but with less durability than wished: never send again
    BUSY = "busy"  # nothing stored: wait, then the same again
    MOVED = "moved"  # nothing stored: this broker does not serve the queue now; ask the route again
    RECORD = "record"  # this record, or this batch, will never be taken
    QUEUE = "queue"  # the queue or the request is refused until somebody changes something; 1 may hide anything
    PERMISSION = "permission"  # an account, a topic's perm or a group's switch forbids it
    MISSING = "missing"  # the topic or group does not exist there
    NOT_FOUND = "not_found"  # nothing at this place (yet)
    RETRY = "retry"  # nothing for us here; go on at nextBeginOffset at once
    OFFSET_MOVED = "offset_moved"  # the offset asked for lies outside the queue
    FILTER = "filter"  # the subscription is wrong or unknown
    OFFLINE = "offline"  # no client of this group is connected
    UNSUPPORTED = "unsupported"  # this version does not know the request
    UNKNOWN = "unknown"  # a code we do not know: treat as in doubt


REFUSES_QUEUE = frozenset({Kind.QUEUE, Kind.PERMISSION, Kind.MISSING, Kind.MOVED})
"""Kinds of a send's answer that concern the queue, not the record: nothing of the batch is stored (but see code 1)."""


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """One row: RocketMQ's name, what to do, and the meaning in a few words."""

    name: str
    kind: Kind
    meaning: str


_ROWS: tuple[tuple[ResponseCode, Kind, str], ...] = (
    (ResponseCode.SUCCESS, Kind.OK, "done"),
    (ResponseCode.SYSTEM_ERROR, Kind.QUEUE, "unclassified failure; the remark tells more"),
    (ResponseCode.SYSTEM_BUSY, Kind.BUSY, "the broker sheds load; nothing was stored"),
    (ResponseCode.REQUEST_CODE_NOT_SUPPORTED, Kind.UNSUPPORTED, "this version does not know the request"),
    (ResponseCode.TRANSACTION_FAILED, Kind.QUEUE, "transaction refused"),
    (ResponseCode.FLUSH_DISK_TIMEOUT, Kind.STORED_WEAK, "stored; the disk flush was not confirmed in time"),
    (ResponseCode.SLAVE_NOT_AVAILABLE, Kind.STORED_WEAK, "stored; no slave took it"),
    (ResponseCode.FLUSH_SLAVE_TIMEOUT, Kind.STORED_WEAK, "stored; the slave did not confirm in time"),
    (ResponseCode.MESSAGE_ILLEGAL, Kind.RECORD, "the message breaks a rule (size, properties, topic length, flags)"),
    (ResponseCode.SERVICE_NOT_AVAILABLE, Kind.MOVED, "cannot write now: disk full, slave role or stopping"),
    (ResponseCode.VERSION_NOT_SUPPORTED, Kind.UNSUPPORTED, "client version refused"),
    (ResponseCode.NO_PERMISSION, Kind.PERMISSION, "not permitted by account, topic or group"),
    (ResponseCode.TOPIC_NOT_EXIST, Kind.MISSING, "no such topic"),
    (ResponseCode.TOPIC_EXIST_ALREADY, Kind.QUEUE, "topic exists already"),
    (ResponseCode.PULL_NOT_FOUND, Kind.NOT_FOUND, "no message at this offset yet"),
    (ResponseCode.PULL_RETRY_IMMEDIATELY, Kind.RETRY, "nothing matched here; go on at nextBeginOffset"),
    (ResponseCode.PULL_OFFSET_MOVED, Kind.OFFSET_MOVED, "the offset lies outside the queue, or was reset"),
    (ResponseCode.QUERY_NOT_FOUND, Kind.NOT_FOUND, "nothing stored under this key"),
    (ResponseCode.SUBSCRIPTION_PARSE_FAILED, Kind.FILTER, "the filter expression is malformed"),
    (ResponseCode.SUBSCRIPTION_NOT_EXIST, Kind.FILTER, "the group has no such subscription"),
    (ResponseCode.SUBSCRIPTION_NOT_LATEST, Kind.FILTER, "the broker's subscription is older than ours"),
    (ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST, Kind.MISSING, "no such consumer group"),
    (ResponseCode.FILTER_DATA_NOT_EXIST, Kind.FILTER, "no filter data for this group"),
    (ResponseCode.FILTER_DATA_NOT_LATEST, Kind.FILTER, "the broker's filter data is older than ours"),
    (ResponseCode.INVALID_PARAMETER, Kind.QUEUE, "an argument is out of range, often a queue that is gone"),
    (ResponseCode.CONSUMER_NOT_ONLINE, Kind.OFFLINE, "no consumer of this group is connected"),
    (ResponseCode.CONSUME_MSG_TIMEOUT, Kind.QUEUE, "the consumer did not answer the broker"),
    (ResponseCode.NO_MESSAGE, Kind.NOT_FOUND, "no message"),
    (ResponseCode.FLOW_CONTROL, Kind.BUSY, "flow control; nothing was stored"),
    (ResponseCode.NOT_LEADER_FOR_QUEUE, Kind.MOVED, "another broker leads this queue of a static topic"),
    (ResponseCode.RPC_UNKNOWN, Kind.UNKNOWN, "a forwarding broker failed"),
    (ResponseCode.RPC_ADDR_IS_NULL, Kind.MOVED, "a forwarding broker knows no address"),
    (ResponseCode.RPC_SEND_TO_CHANNEL_FAILED, Kind.UNKNOWN, "a forwarding broker could not send"),
    (ResponseCode.RPC_TIME_OUT, Kind.UNKNOWN, "a forwarding broker got no answer"),
    (ResponseCode.GO_AWAY, Kind.BUSY, "the broker shuts down; nothing was stored"),
)

RESPONSES: dict[int, ResponseInfo] = {int(code): ResponseInfo(code.name, kind, meaning) for code, kind, meaning in _ROWS}


def kind_of(code: int) -> Kind:
    """What an answer code means; ``Kind.UNKNOWN`` for one that is not in the table."""
    info = RESPONSES.get(code)
    return info.kind if info is not None else Kind.UNKNOWN


def describe(code: int) -> str:
    """``"13 MESSAGE_ILLEGAL"``, for messages meant for people."""
    info = RESPONSES.get(code)
    return f"{code} {info.name}" if info is not None else f"{code} (unknown code)"


def request_name(code: int) -> str:
    """RocketMQ's name of a request code, or the number in words."""
    try:
        return RequestCode(code).name
    except ValueError:
        return f"request {code}"
