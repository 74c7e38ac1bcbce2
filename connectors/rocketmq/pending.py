"""Messages a cluster has taken and not delivered yet, and closing its topics to producers.

Facts (4.4.0 to 5.3.3): delay levels wait in queue level-1 of SCHEDULE_TOPIC_XXXX, and 45 answers how far each level was delivered.
Timers (5.x) are counted by the broker itself (``timerCongestNum`` of 28). Half messages lie in queue 0 of the half topic; what the
broker's own group has not passed there is undecided at most. A broker does not look at a topic's perm when it is sent to, only
its clients do, at their next look at the route.
"""

from __future__ import annotations

from connectors.rocketmq.client.client import Client
from connectors.rocketmq.client.errors import Answered
from connectors.rocketmq.remoting import bodies, headers
from connectors.rocketmq.remoting.codes import ResponseCode

DELAYED, TIMED, HALF = "delayed", "timed", "half"
_SCHEDULE_TOPIC = "SCHEDULE_TOPIC_XXXX"
_HALF_TOPIC = "RMQ_SYS_TRANS_HALF_TOPIC"
_HALF_GROUP = "CID_RMQ_SYS_TRANS"
_TIMERS = "timerCongestNum"


async def pending_counts(client: Client) -> dict[str, int]:
    """Raises ``Unreachable``, ``Answered``, ``ProtocolError``."""
    counts: dict[str, int] = {}
    for broker_name in sorted(await client.brokers(fresh=True)):
        for kind, count in (await _counts(client, broker_name)).items():
            counts[kind] = counts.get(kind, 0) + count
    return counts


async def _counts(client: Client, broker_name: str) -> dict[str, int]:
    delivered = bodies.read_delay_offsets((await client.ask(broker_name, headers.all_delay_offsets())).body)
    counts = {DELAYED: 0}
    for level, offset in delivered.items():
        counts[DELAYED] += max(0, await _end(client, broker_name, _SCHEDULE_TOPIC, level - 1) - offset)
    runtime = await client.runtime_info(broker_name)
    if runtime.get(_TIMERS, "").isdigit():
        counts[TIMED] = int(runtime[_TIMERS])
    half = await _half(client, broker_name)
    if half is not None:
        counts[HALF] = half
    return counts


async def _half(client: Client, broker_name: str) -> int | None:
    """None where no transaction was ever begun: asking a queue that does not exist would create it."""
    offsets = bodies.read_consumer_offsets((await client.ask(broker_name, headers.all_consumer_offsets())).body)
    passed = offsets.get((_HALF_TOPIC, _HALF_GROUP), {}).get(0)
    return None if passed is None else max(0, await _end(client, broker_name, _HALF_TOPIC, 0) - passed)


async def _end(client: Client, broker_name: str, topic: str, queue_id: int) -> int:
    return headers.read_offset(await client.ask(broker_name, headers.max_offset(topic, queue_id)))


async def set_topic_writable(client: Client, topic: str, writable: bool) -> bool:
    """True if it was the other way on any broker. Raises ``Unreachable``, ``Answered``, ``ProtocolError``."""
    changed = False
    for broker_name in sorted(await client.brokers(fresh=True)):
        config = await _config(client, broker_name, topic)
        if config is None or bool(config.perm & headers.PERM_WRITE) is writable:
            continue
        perm = config.perm | headers.PERM_WRITE if writable else config.perm & ~headers.PERM_WRITE
        wanted = headers.NewTopic(
            config.name, config.read_queue_count, config.write_queue_count, perm, config.order, "", config.filter_type,
            config.topic_sys_flag,
        )
        await client.ask(broker_name, headers.create_topic(wanted))
        changed = True
    return changed


async def _config(client: Client, broker_name: str, topic: str) -> bodies.TopicConfig | None:
    try:
        answer = await client.ask(broker_name, headers.all_topic_configs())
    except Answered as error:
        if error.code == ResponseCode.TOPIC_NOT_EXIST:
            return None
        raise
    return bodies.read_topic_configs(answer.body).get(topic)

