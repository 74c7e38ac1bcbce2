"""Names RocketMQ and we keep for ourselves: topics no pattern matches, properties no copy carries."""

from __future__ import annotations

from collections.abc import Collection

OWN_PREFIX = "replicator-"
MARK_PREFIX = "replicator-id-"
BARRIER_TOPIC = "replicator-barrier"

_PREFIXES = ("%RETRY%", "%DLQ%", "%LMQ%", "rmq_sys_", "RMQ_SYS_", "CID_RMQ_SYS_", OWN_PREFIX)
_TOPICS = frozenset({
    "SCHEDULE_TOPIC_XXXX", "TBW102", "SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT", "BenchmarkTest", "TRANS_CHECK_MAX_TIME_TOPIC",
    "DefaultHeartBeatSyncerTopic",
})
_REPLY_SUFFIX = "_REPLY_TOPIC"

# MessageConst: what a broker or client gives a meaning to at one place only (P§13, "Property hygiene").
RESERVED_PROPERTIES = frozenset(
    name.encode()
    for name in (
        "DELAY", "REAL_TOPIC", "REAL_QID", "TRAN_MSG", "PGROUP", "__transactionId__", "TRANSACTION_CHECK_TIMES",
        "TRAN_PREPARED_QUEUE_OFFSET", "CHECK_IMMUNITY_TIME_IN_SECONDS", "TIMER_OUT_MS", "TIMER_DELIVER_MS", "TIMER_ENQUEUE_MS",
        "TIMER_DEQUEUE_MS", "TIMER_DELAY_SEC", "TIMER_DELAY_MS", "TIMER_ROLL_TIMES", "TIMER_DEL_UNIQKEY", "WAIT", "CLUSTER",
        "MSG_REGION", "TRACE_ON", "INNER_NUM", "INNER_BASE", "INNER_MULTI_DISPATCH", "INNER_MULTI_QUEUE_OFFSET", "__CRC32#",
        "DUP_INFO", "POP_CK", "POP_CK_OFFSET", "1ST_POP_TIME", "MIN_OFFSET", "MAX_OFFSET", "CONSUME_START_TIME", "TRANSFER_FLAG",
        "CORRECTION_FLAG", "MQ2_FLAG",
    )
)


def is_user_topic(topic: str, broker_names: Collection[str], cluster_names: Collection[str]) -> bool:
    """False for RocketMQ's own topics, ours, and the ones every broker makes under its own and the cluster's name."""
    if topic in _TOPICS or topic.startswith(_PREFIXES) or topic in broker_names or topic in cluster_names:
        return False
    return not any(topic == f"{cluster}{_REPLY_SUFFIX}" for cluster in cluster_names)
